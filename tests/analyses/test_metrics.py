"""Every metric against scikit-learn or SciPy, and every weighting against actual repetition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from layerprobe.analyses.statistics.metrics import (
    METRICS,
    Predicted,
    expected_calibration_error,
    score,
    stratified_auroc,
    tpr_at_fpr,
)
from layerprobe.hooks.errors import LayerprobeError


def draw(seed, ties=True):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, rng.integers(0, 2, 40)]
    margin = rng.normal(size=42) + y
    return y, np.round(margin, 1) if ties else margin


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_binary_metrics_equal_scikit_learn(seed, ties):
    y, margin = draw(seed, ties)
    p = 1 / (1 + np.exp(-margin))
    predicted = Predicted(margin, p)
    assert score("auroc", y, predicted)[0] == pytest.approx(sk.roc_auc_score(y, margin))
    assert score("average_precision", y, predicted)[0] == pytest.approx(sk.average_precision_score(y, margin))
    assert score("balanced_accuracy", y, predicted)[0] == pytest.approx(
        sk.balanced_accuracy_score(y, p > 0.5)
    )
    assert score("log_loss", y, predicted)[0] == pytest.approx(sk.log_loss(y, p))
    assert score("brier", y, predicted)[0] == pytest.approx(sk.brier_score_loss(y, p))
    fpr, tpr, _ = sk.roc_curve(y, margin, drop_intermediate=False)
    n = int((y == 0).sum())
    allowed = (fpr * n + 1) / (n + 1) <= 0.1 + 1e-12  # what a new negative passes with
    assert tpr_at_fpr(y, margin, fpr=0.1)[0] == pytest.approx(
        tpr[allowed].max() if allowed.any() else np.nan, nan_ok=True
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
@pytest.mark.parametrize(
    "metric", [name for name in METRICS if name not in ("ece", "spearman", "tpr_at_fpr_0.01")]
)
def test_weights_are_repetitions(metric, seed):
    y, margin = draw(seed)
    times = np.random.default_rng(seed).integers(0, 3, len(y))
    times[:2] = 1
    again = np.repeat(np.arange(len(y)), times)
    truth = margin + np.sin(margin) if metric in ("r2", "pearson", "mse", "kendall") else y
    p = 1 / (1 + np.exp(-margin))
    weighted = score(metric, truth, Predicted(margin, p), times[None])[0]
    repeated = score(metric, truth[again], Predicted(margin[again], p[again]))[0]
    assert weighted == pytest.approx(repeated, abs=1e-9)


def test_regression_metrics():
    rng = np.random.default_rng(0)
    y, f = rng.normal(size=50), rng.normal(size=50)
    f = np.round(f + y, 1)
    predicted = Predicted(f)
    assert score("r2", y, predicted)[0] == pytest.approx(sk.r2_score(y, f))
    assert score("pearson", y, predicted)[0] == pytest.approx(stats.pearsonr(y, f)[0])
    assert score("spearman", y, predicted)[0] == pytest.approx(stats.spearmanr(y, f)[0])
    assert score("kendall", y, predicted)[0] == pytest.approx(stats.kendalltau(y, f)[0])
    assert score("accuracy_within_0.5", y, predicted)[0] == pytest.approx((np.abs(y - f) <= 0.5).mean())
    with pytest.raises(LayerprobeError, match="choose from auroc"):
        score("accuracy_within_x", y, predicted)


def test_multiclass_auroc_is_macro_one_against_rest():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    margin = rng.normal(size=(90, 3)) + np.eye(3)[y]
    p = np.exp(margin) / np.exp(margin).sum(axis=1, keepdims=True)
    assert score("auroc", y, Predicted(margin, p))[0] == pytest.approx(
        sk.roc_auc_score(y, p, multi_class="ovr")
    )
    assert score("log_loss", y, Predicted(margin, p))[0] == pytest.approx(sk.log_loss(y, p))


def test_stratified_auroc_counts_pairs_within_strata():
    y, m = np.array([0, 1, 0, 1]), np.array([0.0, 1.0, 5.0, 2.0])
    assert stratified_auroc(y, m, [0, 0, 1, 1])[0] == 0.5
    assert stratified_auroc(y, m, [0, 0, 0, 0])[0] == score("auroc", y, Predicted(m))[0]


def test_calibration_error_is_the_mean_gap_over_bins_of_equal_size():
    """Four distinct forecasts, 25 rows each, with known frequencies: the gaps are 0.1, 0.2, 0 and 0.3."""
    forecast = np.repeat([0.1, 0.4, 0.6, 0.9], 25)
    truth = np.concatenate([np.arange(25) < hits for hits in (5, 15, 15, 15)]).astype(int)
    gaps = [0.1, 0.2, 0.0, 0.3]
    found = expected_calibration_error(truth, forecast, bins=4)
    assert found[0] == pytest.approx(np.mean(gaps))
    doubled = expected_calibration_error(truth, forecast, np.where(forecast == 0.9, 3.0, 1.0)[None], bins=4)
    assert doubled[0] == pytest.approx((0.1 + 0.2 + 0.0 + 3 * 0.3) / 6)
