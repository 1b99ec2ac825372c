"""Nested cross-validation covers what it says it covers, and its parts equal explicit refits."""

import numpy as np
import pytest
import torch
from planted_probes import planted_store
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import layerprobe as lp
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.result.charts import to_svg
from layerprobe.analyses.statistics.resampling import exact_binomial_bound, grouped_folds
from layerprobe.analyses.validation.nested_cv import nested_cv
from layerprobe.analyses.validation.nested_variance import influence, nested_score
from layerprobe.hooks.errors import LayerprobeError


def draw_rows(rng, n, width, signal):
    """Pairs of rows that share half their variance; a label constant in a pair, along the first axis."""
    y = np.repeat(rng.permutation(np.arange(n // 2) % 2), 2)
    shared = np.repeat(rng.normal(size=(n // 2, width)), 2, axis=0)
    x = (shared + rng.normal(size=(n, width))) / np.sqrt(2)
    x[:, 0] += signal * (y - 0.5)
    return x, y, np.repeat(np.arange(n // 2), 2)


def coverage(draws, *, signal, n=80, width=10, seed=0, repeats=4):
    """How many intervals hold the AUROC to be expected of a probe trained on n rows; and naive ones."""
    intervals, truths = [], []
    fresh, labels, _ = draw_rows(np.random.default_rng(99), 4000, width, signal)
    for draw in range(draws):
        x, y, groups = draw_rows(np.random.default_rng((seed, draw)), n, width, signal)
        store = lp.from_arrays({"resid_post": x[None]}, labels={"y": y}, groups=groups)
        row = nested_cv(store, label="y", strengths=[0.1], repeats=repeats, seed=draw, threads=1).table.iloc[
            0
        ]
        intervals.append((row["lo"], row["hi"], row["estimate"], row["naive_error"]))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(x, y)
        truths.append(roc_auc_score(labels, model.decision_function(fresh)))
    lo, hi, estimate, naive = np.array(intervals).T
    truth = 0.5 if not signal else np.mean(truths)
    return int(((lo <= truth) & (truth <= hi)).sum()), int((abs(estimate - truth) <= 1.96 * naive).sum())


def test_small_draws_are_covered():
    covered, _ = coverage(40, signal=0.0)
    assert covered >= exact_binomial_bound(40, 0.95)[0]
    covered, _ = coverage(25, signal=1.5, seed=1)
    assert covered >= exact_binomial_bound(25, 0.95)[0]


@pytest.mark.soak
@pytest.mark.parametrize("signal", [0.0, 1.5])
def test_many_draws_are_covered_where_naive_intervals_fall_short(signal):
    covered, naive = coverage(300, signal=signal, seed=2, repeats=10)
    assert covered >= exact_binomial_bound(300, 0.95)[0]
    assert naive < covered


@pytest.mark.parametrize("seed, bound", [(9, 2.0), (2, 1.0), (0, None)])
def test_its_pieces_equal_explicit_refits(seed, bound):
    """With the standard error at its upper bound, at its lower one, and between them."""
    x, y, groups = draw_rows(np.random.default_rng(seed), 60, 5, 1.0)
    store = lp.from_arrays({"resid_post": x[None]}, labels={"y": y}, groups=groups)
    task = make_task(store, "y", groups=groups, held_out=0.3, n_folds=2, seed=0)
    x = x[task.rows]
    fold = grouped_folds(task.groups, task.y, 4, 0)
    ours = nested_score(x, task, METHODS["logistic"], np.array([0.5]), "log_loss", fold[None])

    def loss(seen, on):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-10)).fit(
            x[seen], task.y[seen]
        )
        p = model.predict_proba(x[on])[np.arange(on.sum()), task.y[on]]
        return -np.log(p)

    share = np.bincount(fold) / len(fold)
    outer = sum(share[k] * loss(fold != k, fold == k).mean() for k in range(4))
    gaps, inner = [], []
    for k in range(4):
        others = [j for j in range(4) if j != k]
        within = [loss((fold != k) & (fold != j), fold == j).mean() for j in others]
        inner.append(np.average(within, weights=share[others]))
        out = loss(fold != k, fold == k)
        codes = np.unique(task.groups[fold == k], return_inverse=True)[1]
        totals = np.bincount(codes, weights=out - out.mean())
        g = len(totals)
        gaps.append((inner[-1] - out.mean()) ** 2 - (totals**2).sum() / len(out) ** 2 * g / (g - 1))
    expected = np.mean(inner) - (1 + 2 / 4) * (np.mean(inner) - outer)
    assert ours.estimate == pytest.approx(expected, abs=1e-4)
    error = np.clip(np.sqrt(3 / 4 * max(np.mean(gaps), 0)), ours.naive_error, 2 * ours.naive_error)
    assert ours.error == pytest.approx(error, abs=1e-4)
    between = 1.1 < ours.error / ours.naive_error < 1.9
    assert between if bound is None else ours.error == pytest.approx(bound * ours.naive_error)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_influence_is_the_delong_variance(ties):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    margin = rng.normal(size=60) + y
    margin = np.round(margin) if ties else margin
    area, values = influence("auroc", y, margin)
    assert area == pytest.approx(roc_auc_score(y, margin))
    won = (margin[y == 1][:, None] > margin[y == 0]) + 0.5 * (margin[y == 1][:, None] == margin[y == 0])
    m, n = won.shape
    delong = won.mean(axis=1).var() / m + won.mean(axis=0).var() / n
    assert (values**2).sum() / 60**2 == pytest.approx(delong)
    assert values.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("metric", ["balanced_accuracy", "accuracy", "log_loss", "brier"])
def test_influences_predict_what_a_heavier_row_does(metric):
    """A row counted twice moves the score by its influence over n, to first order."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 3
    margin = rng.normal(size=(400, 3)) + 0.7 * np.eye(3)[y]
    value, values = influence(metric, y, margin)
    for row in range(5):
        twice = np.r_[np.arange(400), row]
        assert influence(metric, y[twice], margin[twice])[0] - value == pytest.approx(
            values[row] / 400, abs=3e-5
        )


def test_planted_layers_stand_out_and_strengths_are_chosen_inside():
    store, _ = planted_store(seed=1)
    result = nested_cv(store, label="truth", repeats=2, strengths=[1e-3, 1e-1])
    rows = result.table.set_index("layer")
    assert (rows.loc[2:, "lo"] > 0.8).all() and (rows.loc[:1, "lo"] < 0.52).all()
    assert (rows["standard_error"] >= rows["naive_error"]).all() and rows["converged"].all()
    assert (rows["n"] == store.n_rows).all()
    (finding,) = result.findings
    assert finding.verdict == "not_tested" and finding.layer in (2, 3) and finding.lead
    names = [number.name for number in finding.numbers]
    assert names[0] == "lowest" and names[-1] == "standard error over that of pooled cross-validation"
    assert finding.numbers[-1].value >= 1 and to_svg(result.plot()).startswith("<svg")


def test_other_tasks_and_bad_input():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(120, 4))
    labels = {"three": np.argmax(z[:, :3], axis=1), "value": z[:, 0] + 0.1 * rng.normal(size=120)}
    store = lp.from_arrays({"final_norm": z}, labels=labels, groups=np.arange(120))
    options = {"repeats": 1, "strengths": [1.0]}
    three = nested_cv(store, label="three", **options).table.iloc[0]
    assert three["metric"] == "balanced_accuracy" and three["lo"] > 0.5
    value = nested_cv(store, label="value", method="ridge", **options).table.iloc[0]
    assert value["metric"] == "mse" and value["hi"] < 0.3
    for change, message in [
        ({"n_folds": 3}, "pass 4 or more"),
        ({"repeats": 0}, "10 is a start"),
        ({"metric": "auroc"}, "balanced_accuracy, accuracy, log_loss, brier"),
        ({"metric": "brier", "method": "ridge"}, "needs probabilities"),
    ]:
        with pytest.raises(LayerprobeError, match=message):
            nested_cv(store, label="three", **change)


@pytest.mark.parametrize("width", [6, 120])
def test_the_same_on_tensors(width, monkeypatch):
    rng = np.random.default_rng(3)
    y = np.tile([0, 1], 35)
    store = lp.from_arrays({"resid_post": rng.normal(size=(2, 70, width)) + y[:, None]}, labels={"y": y})
    options = {"label": "y", "groups": None, "repeats": 1, "strengths": [0.01, 1.0]}
    one = nested_cv(store, **options).table
    monkeypatch.setattr(
        "layerprobe.analyses.validation.nested_cv.find_device", lambda given: torch.device("cpu")
    )
    other = nested_cv(store, device="stacked", **options).table
    np.testing.assert_allclose(one["estimate"], other["estimate"], atol=1e-6)
    np.testing.assert_allclose(one["standard_error"], other["standard_error"], atol=1e-6)
