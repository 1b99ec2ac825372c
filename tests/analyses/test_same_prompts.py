"""Identical prompts share a group, whatever groups were given."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.behaviour.on_pairs import pair_groups
from layerprobe.analyses.reading.common_split import common_groups
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.statistics.resampling import resolve_groups
from layerprobe.analyses.statistics.same_prompts import merge_codes, same_prompts
from layerprobe.analyses.validation.transfer import generalisation_matrix

COPIES = np.tile(np.arange(50), 4)


def copies(seed=0, texts=True, width=64, noise=0.0, **given):
    """50 prompts in four copies each, with random labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, width))[COPIES] + noise * rng.normal(size=(200, width))
    return lp.from_arrays(
        {"resid_post": x[None]},
        labels={"y": rng.integers(0, 2, 50)[COPIES]},
        texts=[f"prompt {i} asks something" for i in COPIES] if texts else None,
        **given,
    )


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("given", [None, "own", "pairs of rows"])
def test_copies_are_one_group(texts, given):
    groups = {"own": np.arange(200), "pairs of rows": np.arange(200) // 2}.get(given)
    codes = resolve_groups(copies(texts=texts), groups)
    assert all(len(np.unique(codes[i == COPIES])) == 1 for i in range(50))
    # rows 2k and 2k + 1 are one group, and so are their copies: what is linked by a chain is one
    assert len(np.unique(codes)) == (25 if given == "pairs of rows" else 50)


def test_random_labels_of_copies_are_not_read():
    found = [
        lp.linear_probe(
            copies(seed, noise=0.01), label="y", groups=None, n_permutations=0, n_bootstrap=50, method="ridge"
        )
        .table["estimate"]
        .iloc[0]
        for seed in range(8)
    ]
    assert abs(np.mean(found) - 0.5) < 0.15  # 1.0 where copies straddle the split


def test_separation_and_unsupervised_resample_prompts_not_copies():
    result = lp.separation(copies(), label="y", groups=None, n_permutations=50, n_bootstrap=20)
    assert (result.table["n_groups"] == 50).all()


def test_a_token_store_compares_whole_prompts_and_what_is_constant_says_nothing():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(6, 5, 3))
    tokens[:, 0] = 1.0  # every prompt begins with the same token
    tokens[4] = tokens[1]
    x = tokens.reshape(1, 30, 3)
    store = lp.from_arrays(
        {"resid_post": x}, examples=np.repeat(np.arange(6), 5), positions=np.tile(range(5), 6)
    )
    assert same_prompts(store)[::5].tolist() == [0, 1, 2, 3, 1, 4]
    same = lp.from_arrays({"resid_post": np.zeros((1, 8, 3))}, texts=["one text"] * 8)
    assert len(np.unique(same_prompts(same))) == 8
    embedded = lp.from_arrays({"embed": np.array([[1.0, 2], [1, 2], [3, 4]])})
    assert len(np.unique(same_prompts(embedded))) == 3  # the same last token is not the same prompt


def test_groups_depend_on_neither_order_nor_names():
    store, rng = copies(), np.random.default_rng(1)
    groups, order = np.arange(200) // 2, rng.permutation(200)
    one = resolve_groups(store, groups)
    other = resolve_groups(store.select(order), np.array([f"g{g:03d}" for g in groups[order]]))
    assert (one[order] == other).all()


def test_links_join_and_keep_the_order():
    assert merge_codes([2, 0, 1, 3], [[0, 2]]).tolist() == [0, 0, 1, 2]
    assert pair_groups(np.array([0, 1, 2, 1, 4]), np.array([[0, 1], [2, 3], [4, 4]])).tolist() == [0, 0, 1]


def test_a_given_split_with_one_prompt_on_both_sides_is_refused():
    half = np.arange(200) < 100
    with pytest.raises(lp.LayerprobeError, match=r"both sides.*150 groups hold the same prompts"):
        make_task(copies(), "y", groups=None, held_out=half, n_folds=3, seed=0)


def test_prompts_are_one_group_across_datasets_too():
    a, b = copies(0), copies(1, groups=np.arange(200))
    groups = common_groups({"a": a, "b": b}, None)
    assert (groups["a"] == groups["b"]).all() and len(np.unique(groups["a"])) == 50
    rows = generalisation_matrix(
        {"a": a, "b": b}, label="y", groups=None, n_bootstrap=10, method="ridge"
    ).table
    assert (rows["left_out"] == 0).all()
    note = make_task(a, "y", groups=None, held_out=0.3, n_folds=3, seed=0).notes
    assert any("150 groups hold the same prompts" in one for one in note)
