"""Whole groups move together, and the order of rows does not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from layerprobe import from_arrays
from layerprobe.analyses.statistics.resampling import (
    STORED,
    benjamini_hochberg,
    check_finite,
    cluster_bootstrap_weights,
    exact_binomial_bound,
    group_permutations,
    grouped_folds,
    max_t,
    permutation_p,
    resolve_groups,
    split_half,
)
from layerprobe.hooks.errors import LayerprobeError


def a_store(**given):
    return from_arrays({"resid_post": np.zeros((1, 6, 2), np.float32)}, **given)


def test_groups_must_be_said_aloud():
    with pytest.raises(LayerprobeError, match="groups=None to treat each prompt"):
        resolve_groups(a_store())
    assert resolve_groups(a_store(), None).tolist() == list(range(6))
    store = a_store(groups=list("aabbcc"), labels={"topic": list("xxxyyy")})
    assert resolve_groups(store, STORED).tolist() == [0, 0, 1, 1, 2, 2]
    assert resolve_groups(store, "topic").tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(LayerprobeError, match="it has topic"):
        resolve_groups(store, "topics")
    with pytest.raises(LayerprobeError, match="each of the 6 rows"):
        resolve_groups(store, [1, 2])


@settings(max_examples=40, deadline=None)
@given(st.integers(6, 40), st.integers(2, 5), st.integers(0, 10**6))
def test_folds_keep_groups_whole_and_ignore_row_order(n_groups, n_folds, seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    labels = (groups % 2).astype(int)
    fold = grouped_folds(groups, labels, n_folds=n_folds, seed=seed)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in np.unique(groups))
    assert set(fold) == set(range(n_folds))
    order = rng.permutation(len(groups))
    again = grouped_folds(groups[order], labels[order], n_folds=n_folds, seed=seed)
    np.testing.assert_array_equal(again, fold[order])


def test_folds_balance_classes():
    rng = np.random.default_rng(0)
    labels = rng.random(1000) < 0.1
    fold = grouped_folds(np.arange(1000), labels, n_folds=5)
    counts = [labels[fold == f].sum() for f in range(5)]
    assert max(counts) - min(counts) <= 1
    assert np.ptp(np.bincount(fold)) <= 2


def test_folds_refuse_what_cannot_be_split():
    with pytest.raises(LayerprobeError, match="3 groups cannot fill 5 folds; pass n_folds=3"):
        grouped_folds([0, 1, 2], None, n_folds=5)
    with pytest.raises(LayerprobeError, match="'yes' occurs in a single group"):
        grouped_folds([0, 0, 1, 2], ["yes", "yes", "no", "no"], n_folds=2)


def test_bootstrap_weights_draw_whole_groups_with_the_right_moments():
    groups = np.repeat(np.arange(30), [1, 2, 3] * 10)
    weights = cluster_bootstrap_weights(groups, 4000, seed=1)
    first = np.unique(groups, return_index=True)[1]
    np.testing.assert_array_equal(weights, weights[:, first][:, groups])
    assert (weights[:, first].sum(axis=1) == 30).all()
    assert weights.mean() == pytest.approx(1, abs=0.01)
    assert weights[:, first].var() == pytest.approx(29 / 30, rel=0.05)
    np.testing.assert_array_equal(weights, cluster_bootstrap_weights(groups, 4000, seed=1))


def test_permutations_between_and_within_groups():
    groups = np.repeat(np.arange(10), 3)
    between = np.repeat([0, 1], 15)
    for draw in group_permutations(between, groups, 50):
        assert all(len(set(draw[groups == g])) == 1 for g in range(10))
        assert draw.sum() == 15
    within = np.tile([0, 0, 1], 10)
    draws = group_permutations(within, groups, 300)
    assert (draws.reshape(300, 10, 3).sum(axis=2) == 1).all()
    assert draws.mean(axis=0) == pytest.approx(np.full(30, 1 / 3), abs=0.12)
    mixed = between.copy()
    mixed[0] = 1
    with pytest.raises(LayerprobeError, match="permute='within'"):
        group_permutations(mixed, groups)
    assert group_permutations(mixed, groups, 20, how="within")[:, 3:].tolist() == [mixed[3:].tolist()] * 20


def test_within_permutation_is_uniform():
    draws = group_permutations([0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1], 6000, seed=3)
    patterns, counts = np.unique(draws[:, :3], axis=0, return_counts=True)
    lo, hi = exact_binomial_bound(6000, 1 / 6, 0.001)
    assert len(patterns) == 6 and counts.min() >= lo and counts.max() <= hi


def test_max_t_holds_the_family_and_p_is_never_zero():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        values = rng.normal(size=(100, 20)) @ rng.normal(size=(20, 20))  # correlated tests of unequal spread
        alarms += (max_t(values[0], values[1:]) <= 0.05).any()
    assert alarms <= exact_binomial_bound(300, 0.05)[1]
    assert permutation_p([9.0], np.zeros((99, 1)))[0] == 0.01
    assert permutation_p([-9.0], np.zeros((99, 1)), two_sided=True)[0] == 0.01


def test_benjamini_hochberg_against_scipy():
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(0).random(50) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))
    assert np.isnan(benjamini_hochberg([0.1, np.nan])[1])


def test_exact_binomial_bound_is_exact():
    lo, hi = exact_binomial_bound(1000, 0.95)
    assert binom.cdf(lo - 1, 1000, 0.95) <= 0.001 < binom.cdf(lo, 1000, 0.95)
    assert binom.sf(hi, 1000, 0.95) <= 0.001 < binom.sf(hi - 1, 1000, 0.95)


def test_split_half_takes_whole_groups():
    groups = np.repeat(np.arange(11), 2)
    half = split_half(groups, seed=4)
    assert half[::2].tolist() == half[1::2].tolist() and half.sum() == 10


def test_non_finite_rows_are_named():
    x = np.zeros((4, 3))
    check_finite(x)
    check_finite(np.full((2, 2), 1e308))  # a sum that overflows is not an infinite value
    x[2, 1] = np.inf
    with pytest.raises(
        LayerprobeError, match=r"resid_post\[7\] has NaN or infinite values in 1 of 4 rows.*'c'"
    ):
        check_finite(x, site="resid_post", layer=7, ids=list("abcd"))
