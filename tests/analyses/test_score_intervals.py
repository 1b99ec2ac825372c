"""Intervals of held-out scores cover; where nothing can be said they say so."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import logit
from scipy.stats import norm, t

import layerprobe as lp
from layerprobe.analyses.statistics.metrics import Predicted, score, tpr_at_fpr
from layerprobe.analyses.statistics.resampling import cluster_bootstrap_weights, exact_binomial_bound
from layerprobe.analyses.statistics.score_intervals import deciding_groups, interval, perfect_bound


def lowest_auroc_for_a_perfect_sample(n1, n0):
    """AUROC of two normal distributions at which 2.5 % of samples are ranked perfectly."""

    def chance(gap):
        return quad(
            lambda x: n0 * norm.pdf(x) * norm.cdf(x) ** (n0 - 1) * norm.sf(x - gap) ** n1, -6, 9, limit=200
        )[0]

    return norm.cdf(brentq(lambda gap: chance(gap) - 0.025, 0, 9) / 2**0.5)


@pytest.mark.parametrize("n1, n0", [(5, 5), (9, 9), (30, 30), (5, 55), (10, 190), (5, 20)])
def test_the_bound_of_a_perfect_ranking_is_no_higher_than_the_exact_one(n1, n0):
    assert perfect_bound("auroc", np.array([n1, n0])) <= lowest_auroc_for_a_perfect_sample(n1, n0)


def test_perfect_and_hopeless_shares_are_bounded_by_trials():
    draws = np.ones(50)
    assert interval(1.0, draws, 20, "accuracy")[:2] == (0.025 ** (1 / 20), 1.0)
    assert interval(0.0, 0 * draws, 20, "accuracy_within_0.5")[:2] == (0.0, 1 - 0.025 ** (1 / 20))
    assert interval(0.0, 0 * draws, (40,), "tpr_at_fpr_0.01")[1] == pytest.approx(1 - 0.025 ** (1 / 40))
    assert interval(1.0, draws, (8, 100), "balanced_accuracy")[0] == (1 + 0.025 ** (1 / 8)) / 2


def test_units_are_groups_of_each_class_where_classes_are_averaged():
    groups, y = np.array([0, 0, 1, 1, 2, 3]), np.array([1, 1, 0, 0, 0, 0])
    assert deciding_groups("auroc", y, groups, 2) == (3, 1)
    assert deciding_groups("tpr_at_fpr_0.01", y, groups, 2) == (1,)
    assert deciding_groups("log_loss", y, groups, 2) == deciding_groups("r2", y, groups, 0) == (4,)


def test_few_groups_of_a_class_and_calibration_errors_have_no_interval():
    draws = np.random.default_rng(0).random(100)
    assert "4 held-out groups with the rarest class" in interval(0.7, draws, (4, 90), "auroc")[2]
    assert "upwards" in interval(0.1, draws, 90, "ece")[2]


@pytest.mark.parametrize("counts", [(8,), (6, 60), (10, 10, 10)])
def test_half_widths_are_those_of_welch_and_satterthwaite(counts):
    draws = 0.7 + 0.05 * np.random.default_rng(5).normal(size=500)
    lo, hi, _ = interval(0.7, draws, counts, "auroc")
    variance = 1 / np.array(counts, dtype=float)  # of a class's mean, up to one factor
    freedom = variance.sum() ** 2 / (variance**2 / (np.array(counts) - 1)).sum()
    shrunk = (variance * (np.array(counts) - 1) / counts).sum()  # what a bootstrap sees of it
    half = t.ppf(0.975, freedom) * np.sqrt(variance.sum() / shrunk) * draws.std(ddof=1) / (0.7 * 0.3)
    assert logit(hi) - logit(0.7) == pytest.approx(half) == logit(0.7) - logit(lo)


def coverage(metric, counts, separation, sets, seed=0):
    """Share of samples whose interval holds the true AUROC or balanced accuracy of two normal classes."""
    rng = np.random.default_rng(seed)
    truth = norm.cdf(separation / 2**0.5) if metric == "auroc" else norm.cdf(separation / 2)
    y = np.repeat([1, 0], counts)
    groups = np.arange(len(y))
    weights = cluster_bootstrap_weights(groups, 200, seed)
    hits = []
    for _ in range(sets):
        margin = rng.normal(size=len(y)) + separation * (y - 0.5)
        predicted = Predicted(margin, 1 / (1 + np.exp(-margin)))
        estimate = float(score(metric, y, predicted)[0])
        lo, hi, why = interval(estimate, score(metric, y, predicted, weights), counts, metric)
        hits.append(lo <= truth <= hi if why is None else True)
    return sum(hits)


@pytest.mark.parametrize("metric", ["auroc", "balanced_accuracy"])
@pytest.mark.parametrize("counts", [(5, 55), (10, 50), (30, 30)])
@pytest.mark.parametrize("separation", [0.0, 1.6])
def test_intervals_cover_whatever_the_balance(metric, counts, separation):
    assert coverage(metric, counts, separation, 300) >= exact_binomial_bound(300, 0.95)[0]


def test_recalls_near_one_have_no_wide_interval():
    y = np.repeat(np.arange(4), 45)
    said = np.eye(4)[y]
    said[0] = [0.0, 1.0, 0.0, 0.0]
    predicted, weights = Predicted(said, said), cluster_bootstrap_weights(np.arange(180), 200, 0)
    estimate = float(score("balanced_accuracy", y, predicted)[0])
    lo, hi, _ = interval(
        estimate, score("balanced_accuracy", y, predicted, weights), [45] * 4, "balanced_accuracy"
    )
    assert 0.88 < lo < estimate < hi <= 1


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n_groups", [10, 40])
def test_correlations_and_shares_of_variance_cover(strength, n_groups):
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(n_groups), 2)
    weights = cluster_bootstrap_weights(groups, 200, 0)
    noise = (1 - strength**2) ** 0.5
    true = {"pearson": strength, "r2": 1 - noise**2 - (0.1 * strength) ** 2}
    hits = dict.fromkeys(true, 0)
    for _ in range(300):
        shared = rng.normal(size=(2, n_groups))[:, groups]
        own = rng.normal(size=(2, len(groups)))
        x, e = (shared + own) / 2**0.5
        y = strength * x + noise * e
        predicted = Predicted(0.9 * strength * x if strength else x)
        for name in true:
            estimate = float(score(name, y, predicted)[0])
            lo, hi, _ = interval(estimate, score(name, y, predicted, weights), n_groups, name)
            hits[name] += lo <= true[name] <= hi
    least = exact_binomial_bound(300, 0.95)[0]
    assert hits["pearson"] >= least and (hits["r2"] >= least or not strength)


def test_the_false_positive_rate_of_new_negatives_stays_below_what_was_asked():
    rng = np.random.default_rng(2)
    rates, found = [], []
    for _ in range(400):
        y, margin = np.repeat([1, 0], [50, 150]), rng.normal(size=200)
        margin[:50] += 2
        share = tpr_at_fpr(y, margin)[0]
        threshold = np.sort(margin[150 - 100 :])[-1]
        assert share == (margin[:50] > threshold).mean()
        rates.append(norm.sf(threshold))
        found.append(norm.sf(threshold - 2))
    assert np.mean(rates) <= 0.01
    assert np.isnan(tpr_at_fpr(np.repeat([1, 0], [50, 98]), rng.normal(size=148))[0])
    assert np.isfinite(tpr_at_fpr(np.repeat([1, 0], [50, 99]), rng.normal(size=149))[0])


def table_of(y, x, lengths=None, **options):
    store = lp.from_arrays({"resid_post": x[None]}, labels={"y": y}, lengths=lengths)
    options = {"n_permutations": 0, "groups": None, "baselines": False} | options
    return lp.linear_probe(store, label="y", **options).table.set_index("metric")


def test_too_few_negatives_are_said():
    rng = np.random.default_rng(3)
    y = np.arange(120) % 2
    row = table_of(y, rng.normal(size=(120, 3)) + y[:, None]).loc["tpr_at_fpr_0.01"]
    assert np.isnan(row["estimate"]) and "99 held-out negatives" in row["note"]


def test_a_label_that_length_decides_is_not_ranked_within_a_length():
    rng = np.random.default_rng(4)
    lengths = rng.integers(10, 51, size=600)
    x = np.stack([lengths / 10 + 0.1 * rng.normal(size=600), rng.normal(size=600)], axis=1)
    row = table_of((lengths > 30).astype(int), x, lengths).loc["auroc_within_length"]
    assert np.isnan(row["estimate"]) and "same length" in row["note"]
    chance = 1 / (1 + np.exp(-(lengths - 30) / 4))
    softened = table_of((rng.random(600) < chance).astype(int), x, lengths)
    assert softened.loc["auroc", "estimate"] > 0.8
    row = softened.loc["auroc_within_length"]
    assert row["lo"] < 0.5 < row["hi"] and 0 < row["pairs_share"] < 0.1
