"""LDA probes on data like activations: a massive dimension, large offsets, few or constant features."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from layerprobe.analyses.probes.discriminant import ledoit_wolf
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.probes.problem import Problem

LDA = ["mass_mean_covariance", "shrunk_lda"]


def correlated(rng, n, width, *, seed=0):
    mix = np.random.default_rng(seed).normal(size=(width, width)) / width**0.5
    gap = np.random.default_rng(seed + 1).normal(size=width) * 0.35
    y = rng.integers(0, 2, n)
    return rng.normal(size=(n, width)) @ mix + 0.3 * rng.normal(size=(n, width)) + y[:, None] * gap, y


def margins(method, x, y, on):
    fits = METHODS[method].fit(Problem(x, y, 2, np.ones((len(y), 1))), np.ones(1))
    return fits.margins(on, 0)[0]


@pytest.mark.parametrize("method", LDA)
@pytest.mark.parametrize("factor", [1, 100, 1e4])
def test_one_massive_dimension_costs_nothing(method, factor):
    rng = np.random.default_rng(5)
    (x, y), (other, truth) = correlated(rng, 400, 32), correlated(rng, 3000, 32)
    unit = np.ones(32)
    unit[3] = factor
    ours = roc_auc_score(truth, margins(method, x * unit, y, other * unit))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x * unit, y)
    theirs = roc_auc_score(truth, reference.decision_function(other * unit))
    assert ours > 0.95 and ours > theirs - 0.01


@pytest.mark.parametrize("method", LDA)
@pytest.mark.parametrize("n, width", [(200, 8), (40, 90)])
def test_units_and_offsets_change_no_margin(method, n, width):
    x, y = correlated(np.random.default_rng(6), n, width)
    plain = margins(method, x, y, x)
    unit = np.logspace(-2, 2, width)
    np.testing.assert_allclose(margins(method, x * unit, y, x * unit), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(margins(method, x + 1e6, y, x + 1e6), plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("method", LDA)
def test_one_feature_constant_features_and_classes_without_spread(method):
    rng = np.random.default_rng(7)
    y = np.arange(60) % 2
    x = rng.normal(size=(60, 1)) + y[:, None]
    centre = (x[y == 0].mean() + x[y == 1].mean()) / 2
    assert ((margins(method, x, y, x) > 0) == (x[:, 0] > centre)).all()
    padded = np.concatenate([x, np.full((60, 2), 1e6)], axis=1)
    assert np.corrcoef(margins(method, padded, y, padded), margins(method, x, y, x))[0, 1] > 1 - 1e-9
    assert (margins(method, np.ones((60, 3)), y, np.ones((60, 3))) == 0).all()
    apart = margins(method, np.stack([y, y], axis=1) * 2.0, y, np.array([[0.0, 0.0], [2.0, 2.0]]))
    assert np.isfinite(apart).all() and apart[0] < 0 < apart[1]


@pytest.mark.parametrize("n, width", [(50, 12), (12, 50), (30, 2)])
def test_the_shrinkage_is_that_of_scikit_learn(n, width):
    rows = np.random.default_rng(8).normal(size=(n, width)) * np.linspace(1, 4, width)
    rows -= rows.mean(axis=0)
    ours = ledoit_wolf(torch.from_numpy(rows), torch.linalg.svdvals(torch.from_numpy(rows)))
    np.testing.assert_allclose(ours, ledoit_wolf_shrinkage(rows, assume_centered=True), rtol=1e-10)


@pytest.mark.parametrize("n, width", [(120, 6), (40, 60)])
def test_weights_are_those_of_the_correlations_within_classes_shrunk(n, width):
    rng = np.random.default_rng(9)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, width)) * np.linspace(1, 5, width)
    x[:, 0] += 40 * y  # classes far apart: its spread within them is a small part of its spread
    means = np.stack([x[y == code].mean(axis=0) for code in (0, 1)])
    residuals = x - means[y]
    within = residuals.std(axis=0)
    share = ledoit_wolf_shrinkage(residuals / within, assume_centered=True)
    correlation = (residuals / within).T @ (residuals / within) / n
    shrunk = (1 - share) * correlation + share * np.eye(width)
    expected = np.linalg.solve(shrunk, (means[1] - means[0]) / within) / within
    fits = METHODS["shrunk_lda"].fit(Problem(x, y, 2, np.ones((n, 1))), np.ones(1))
    np.testing.assert_allclose(fits.weight[0, 0], expected, rtol=1e-8)
