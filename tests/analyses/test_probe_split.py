"""Held-out groups: the asked share of every class, however rare, and a true message where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layerprobe as lp
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.statistics.held_out_split import held_out_rows
from layerprobe.analyses.statistics.resampling import grouped_folds
from layerprobe.hooks.errors import LayerprobeError


def a_store(y, groups=None, **more):
    n = len(y)
    x = np.random.default_rng(0).normal(size=(1, n, 2))
    return lp.from_arrays(
        {"resid_post": x}, labels={"y": y, **more}, groups=np.arange(n) if groups is None else groups
    )


@pytest.mark.parametrize("n, rare", [(100, 6), (200, 10), (60, 20), (100, 5), (100, 15)])
def test_over_many_seeds_each_class_has_its_share_held_out(n, rare):
    counts, sizes = [], []
    for seed in range(300):
        y = np.zeros(n, dtype=int)
        y[np.random.default_rng(seed).choice(n, rare, replace=False)] = 1
        task = make_task(a_store(y), "y", groups=np.arange(n), held_out=0.3, n_folds=5, seed=seed)
        counts.append(task.y[task.test].sum())
        sizes.append(task.test.mean())
    assert set(counts) <= {int(np.floor(0.3 * rare + 1e-9)), int(np.ceil(0.3 * rare - 1e-9))}
    assert np.mean(counts) == pytest.approx(0.3 * rare, abs=4 * np.std(counts) / 300**0.5 + 1e-9)
    assert np.mean(sizes) == pytest.approx(0.3, abs=0.003)


def test_the_positives_scored_are_as_frequent_as_those_trained_on():
    rng = np.random.default_rng(0)
    gap = []
    for seed in range(100):
        y = np.repeat(rng.random(100) < 0.15, 2)
        task = make_task(
            a_store(y), "y", groups=np.repeat(np.arange(100), 2), held_out=0.3, n_folds=5, seed=seed
        )
        gap.append(task.y[task.test].mean() - task.y[task.train].mean())
    assert np.mean(gap) == pytest.approx(0, abs=0.005) and np.max(np.abs(gap)) < 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(12, 60), st.floats(0.1, 0.5), st.integers(0, 10**6))
def test_whole_groups_in_any_order_of_rows_whatever_classes_are_called(n_groups, share, seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    classes = (rng.random(len(groups)) < rng.random()).astype(int)
    classes[: len(groups) // 3] = np.arange(len(groups) // 3) % 2  # both classes in several groups
    test = held_out_rows(groups, classes, share, seed)
    assert all(len(set(test[groups == g])) == 1 for g in range(n_groups))
    order = rng.permutation(len(groups))
    np.testing.assert_array_equal(held_out_rows(groups[order], classes[order], share, seed), test[order])
    np.testing.assert_array_equal(held_out_rows(groups, 1 - classes, share, seed), test)
    for value in (0, 1):
        mine = classes == value
        assert test[mine].any() and len(set(groups[mine & ~test])) >= 2


def test_every_group_is_as_likely_to_be_held_out():
    y = np.r_[np.zeros(20, int), np.ones(8, int)]
    share = np.mean([held_out_rows(np.arange(28), y, 0.3, seed) for seed in range(2000)], axis=0)
    assert np.abs(share - 0.3).max() < 4 * (0.21 / 2000) ** 0.5


def test_folds_of_low_number_are_not_preferred():
    held = np.zeros(10)
    for seed in range(300):
        y = np.zeros(60, int)
        y[:4] = 1
        held += np.bincount(grouped_folds(np.arange(60), y, n_folds=10, seed=seed)[:4], minlength=10)
    assert held.min() > 0.7 * held.mean() and held.max() < 1.3 * held.mean()


def test_what_cannot_be_split_is_said_in_the_users_words():
    y = np.array(["no"] * 58 + ["yes"] * 2)
    with pytest.raises(
        LayerprobeError,
        match="class 'yes' of label 'y' lives in 2 groups of 60, and one of them must be held",
    ):
        lp.linear_probe(a_store(y), label="y")
    y = np.array(["no"] * 56 + ["yes"] * 4)
    side = (np.arange(60) >= 57) | (np.arange(60) < 10)
    with pytest.raises(
        LayerprobeError, match="of 4 groups with class 'yes' of label 'y' 1 is in training, where 2 must be"
    ):
        lp.linear_probe(a_store(y), label="y", held_out=side)
    with pytest.raises(LayerprobeError, match="class 'yes' of label 'y' 0 are held out, where 1 must be"):
        lp.linear_probe(a_store(y), label="y", held_out=np.arange(60) < 20)
    grades = np.arange(60) % 25
    with pytest.raises(LayerprobeError, match=r"25 classes in 60 rows.*kind='regression'"):
        lp.linear_probe(a_store(grades), label="y")
    grades = np.minimum(np.arange(60) % 12, 9)
    grades[:2] = 11
    with pytest.raises(LayerprobeError, match=r"'11' of label 'y' lives in 2 groups.*kind='regression'"):
        lp.linear_probe(a_store(grades), label="y")
    with pytest.raises(LayerprobeError, match=r"held_out=0.99 of 60 groups leaves \d+ to train on"):
        lp.linear_probe(a_store(np.arange(60) / 7), label="y", held_out=0.99, method="ridge")


def test_rows_without_a_group_are_not_lumped_together():
    groups = np.array([None if i % 7 == 0 else f"g{i // 2}" for i in range(40)], dtype=object)
    with pytest.raises(LayerprobeError, match="6 of 40 rows have no group, the first in row 0"):
        lp.linear_probe(a_store(np.arange(40) % 2), label="y", groups=groups)
    with pytest.raises(LayerprobeError, match="have no group"):
        lp.linear_probe(a_store(np.arange(40) % 2, groups), label="y")
    numbers = np.where(np.arange(40) % 7 == 0, np.nan, np.arange(40))
    with pytest.raises(LayerprobeError, match="have no group"):
        lp.linear_probe(a_store(np.arange(40) % 2, item=numbers), label="y", groups="item")


def test_exchanging_within_groups_where_nothing_varies_is_refused():
    groups = np.repeat(np.arange(30), 2)
    y = groups % 2
    with pytest.raises(LayerprobeError, match="permute='within' relabels nothing here"):
        lp.linear_probe(a_store(y, groups), label="y", permute="within")
    one, other = (
        lp.linear_probe(a_store(y, groups), label="y", permute=how, n_bootstrap=50, n_permutations=50).table
        for how in ("groups", "between")
    )
    assert one["p"].dropna().tolist() == other["p"].dropna().tolist()
    mixed = y.copy()
    mixed[::8] = 1 - mixed[::8]
    result = lp.linear_probe(
        a_store(mixed, groups), label="y", permute="within", n_bootstrap=50, n_permutations=50
    )
    assert any("held-out groups; in the others it is constant" in note for note in result.notes)
    with pytest.raises(LayerprobeError, match="permute='foo', expected 'auto', 'groups'"):
        lp.linear_probe(a_store(y, groups), label="y", permute="foo")
