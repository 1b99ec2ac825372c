"""A linear probe put together from scikit-learn's and SciPy's parts, loop by loop: what ours must equal."""

import numpy as np
from scipy.stats import false_discovery_control
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def fit(x, y, c):
    """Scaled logistic regression, run to the end."""
    model = LogisticRegression(C=c, tol=1e-9, max_iter=20_000, solver="newton-cholesky")
    return make_pipeline(StandardScaler(), model).fit(x, y)


def chosen_c(x, y, fold, strengths):
    """Strongest C whose mean out-of-fold log-loss is within one standard error of the least."""
    losses = np.array(
        [
            [
                log_loss(y[fold == f], fit(x[fold != f], y[fold != f], c).predict_proba(x[fold == f]))
                for f in np.unique(fold)
            ]
            for c in strengths
        ]
    )
    best = losses.mean(axis=1).argmin()
    bar = losses[best].mean() + losses[best].std(ddof=1) / np.sqrt(losses.shape[1])
    return strengths[np.flatnonzero(losses.mean(axis=1) <= bar)[0]]


def inner_auroc(x, y, fold, c):
    """Mean over folds of the AUROC of a fit that has not seen the fold."""
    return np.mean(
        [
            roc_auc_score(y[fold == f], fit(x[fold != f], y[fold != f], c).decision_function(x[fold == f]))
            for f in np.unique(fold)
        ]
    )


def probe(layers, y, test, fold, strengths):
    """Held-out scores [layers, held-out rows], chosen C, inner AUROC and raw-space (w, b) of every layer."""
    found = []
    for x in layers:
        c = chosen_c(x[~test], y[~test], fold[~test], strengths)
        model = fit(x[~test], y[~test], c)
        scaler, logistic = model[0], model[1]
        w = logistic.coef_[0] / scaler.scale_
        found.append(
            {
                "scores": model.decision_function(x[test]),
                "strength": c,
                "inner": inner_auroc(x[~test], y[~test], fold[~test], c),
                "weight": w,
                "bias": logistic.intercept_[0] - w @ scaler.mean_,
            }
        )
    return found


def permutation_table(scores, y, relabelled):
    """Per layer: AUROC, null mean and sd, p, max-T p and Benjamini-Hochberg q, by loops over relabellings."""
    observed = np.array([roc_auc_score(y, s) for s in scores])
    null = np.array([[roc_auc_score(labels, s) for s in scores] for labels in relabelled])
    p = (1 + (null >= observed - 1e-12).sum(axis=0)) / (1 + len(null))
    everything = np.vstack([observed, null])
    standard = (everything - everything.mean(axis=0)) / everything.std(axis=0)
    top = standard[1:].max(axis=1)
    familywise = np.array([(1 + (top >= t - 1e-12).sum()) / (1 + len(null)) for t in standard[0]])
    return {
        "estimate": observed,
        "null_mean": null.mean(axis=0),
        "null_sd": null.std(axis=0, ddof=1),
        "p": p,
        "p_familywise": familywise,
        "q": false_discovery_control(p),
    }


def cluster_bootstrap_sd(scores, y, groups, n_draws, seed):
    """Spread of the AUROC when whole groups are drawn again, rows really repeated."""
    rng = np.random.default_rng(seed)
    names = np.unique(groups)
    rows = {name: np.flatnonzero(groups == name) for name in names}
    draws = []
    for _ in range(n_draws):
        drawn = np.concatenate([rows[name] for name in rng.choice(names, len(names))])
        if len(np.unique(y[drawn])) == 2:
            draws.append(roc_auc_score(y[drawn], scores[drawn]))
    return np.std(draws, ddof=1)
