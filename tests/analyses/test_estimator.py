"""The estimator passes scikit-learn's own checks and keeps groups out of one another's folds."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from layerprobe.analyses.probes.estimator import LinearProbe
from layerprobe.analyses.probes.methods import METHODS


@pytest.mark.parametrize("method", list(METHODS))
def test_scikit_learn_accepts_it(method):
    check_estimator(LinearProbe(method))


def test_an_unknown_method_is_named():
    with pytest.raises(ValueError, match="'nope' is unknown; choose from logistic"):
        LinearProbe("nope").fit([[0.0], [1.0]], [0, 1])


def test_it_equals_a_scaled_logistic_regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 5)) * [1, 10, 0.1, 3, 1] + 4
    y = (x[:, 0] + rng.normal(size=120) > 4).astype(int)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, tol=1e-10)).fit(x, y)
    ours = LinearProbe(strengths=(0.3,)).fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-4)
    assert ours.converged_ and ours.strength_ == 0.3


def test_strength_is_chosen_across_groups():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    x = rng.normal(size=(40, 60))[groups] + 0.05 * rng.normal(size=(200, 60))
    y = rng.integers(0, 2, 40)[groups]
    grid = np.logspace(-5, 2, 5)
    assert LinearProbe(strengths=grid).fit(x, y).strength_ > 1  # within items everything can be told
    assert LinearProbe(strengths=grid).fit(x, y, groups=groups).strength_ < 1e-2  # across them nothing
