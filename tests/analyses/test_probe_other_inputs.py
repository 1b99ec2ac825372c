"""Contrast, token and nested probes say what they cannot do with what they were given."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.hooks.errors import LayerprobeError

FEW = {"n_permutations": 0, "n_bootstrap": 20, "baselines": False}


def pair_store(**labels):
    n = 40
    x = np.random.default_rng(0).normal(size=(1, 2 * n, 4))
    truth = np.tile([0, 1], n)
    truth[::4] = 1
    truth[1::4] = 0
    return lp.from_arrays(
        {"resid_post": x},
        labels={"truth": truth, "side": np.tile([0, 1], n), **labels},
        groups=np.repeat(np.arange(n), 2),
        pairs=np.repeat([f"p{i}" for i in range(n)], 2),
    )


def test_contrast_probes_need_two_classes_and_labels_on_both_rows():
    store = pair_store(three=np.arange(80) // 2 % 3, torn=[None if i in (2, 7) else i % 2 for i in range(80)])
    with pytest.raises(LayerprobeError, match=r"label 'three' is multinomial.*label of two classes"):
        lp.contrast_probe(store, label="three", side="side", **FEW)
    with pytest.raises(
        LayerprobeError, match="2 pairs have a label on some of their rows only, such as pair 'p1'"
    ):
        lp.contrast_probe(store, label="torn", side="side", **FEW)
    assert len(lp.contrast_probe(store, label="truth", side="side", method="crc", **FEW).table)


def token_store(n=40):
    prompt = np.repeat(np.arange(n), 4)
    x = np.random.default_rng(0).normal(size=(1, 4 * n, 3))
    return lp.from_arrays(
        {"resid_post": x},
        labels={"y": np.arange(n) % 2},
        groups=np.arange(n),
        examples=prompt,
        positions=np.tile(np.arange(4), n),
    )


@pytest.mark.parametrize(
    "method, setting, expected",
    [
        ("rolling", 0, "a window of 1 or more tokens"),
        ("rolling", -2, "a window of 1 or more"),
        ("rolling", 2.5, "a window of 1 or more"),
        ("rolling", "wide", "a window of 1 or more"),
        ("exponential", 0, "a rate above 0 and at most 1"),
        ("exponential", 2, "a rate above 0 and at most 1"),
        ("attention", 3, "none: only rolling"),
        ("mean", 0.5, "none: only rolling"),
    ],
)
def test_settings_of_token_pools_are_checked(method, setting, expected):
    with pytest.raises(LayerprobeError, match=f"of method='{method}', expected {expected}"):
        lp.token_probe(token_store(), label="y", method=method, setting=setting, **FEW)


def test_settings_that_a_pool_can_have_are_taken():
    for method, setting in (("rolling", 2), ("rolling", 2.0), ("exponential", 1)):
        table = lp.token_probe(token_store(), label="y", method=method, setting=setting, steps=5, **FEW).table
        assert len(table)
    with pytest.raises(LayerprobeError, match="strengths="):
        lp.token_probe(token_store(), label="y", strengths=[-1], **FEW)


def rare(n, k):
    y = np.array(["no"] * (n - k) + ["yes"] * k)
    x = np.random.default_rng(0).normal(size=(1, n, 3))
    return lp.from_arrays({"resid_post": x}, labels={"y": y}, groups=np.arange(n))


def test_nested_folds_need_every_class_in_each():
    with pytest.raises(
        LayerprobeError, match=r"class 'yes' of label 'y' lives in 4 groups of 60, and each of 5"
    ):
        lp.nested_cv(rare(60, 4), label="y")
    row = lp.nested_cv(rare(60, 5), label="y", repeats=1, strengths=[0.1]).table.iloc[0]
    assert 0 <= row["estimate"] <= 1 and row["n"] == 60


def test_nested_folds_hold_nothing_out_besides():
    """Six groups fill five folds: nothing is set aside for scoring."""
    y = np.tile([0, 1], 6)
    x = np.random.default_rng(0).normal(size=(1, 12, 3))
    store = lp.from_arrays({"resid_post": x}, labels={"y": y}, groups=np.repeat(np.arange(6), 2))
    row = lp.nested_cv(store, label="y", repeats=1, strengths=[0.1]).table.iloc[0]
    assert np.isfinite(row["estimate"]) and row["n_groups"] == 6


def test_nested_options_are_checked_first():
    store = rare(60, 20)
    for options, said in (
        ({"seed": -1}, "seed=-1"),
        ({"level": 95}, "level=95, expected a coverage"),
        ({"strengths": [0]}, "numbers above 0"),
        ({"layers": 7}, "the last is 0"),
        ({"kind": "many"}, "kind='many', expected"),
    ):
        with pytest.raises(LayerprobeError, match=said):
            lp.nested_cv(store, label="y", **options)


def domain_store(**more):
    n = 90
    domain = np.array(["a", "b", "c"])[np.arange(n) % 3]
    y = np.where(domain == "a", 1, np.arange(n) // 3 % 2)
    x = np.random.default_rng(0).normal(size=(1, n, 3))
    return lp.from_arrays({"resid_post": x}, labels={"y": y, "domain": domain, **more}, groups=np.arange(n))


def test_a_domain_of_one_class_is_skipped_with_a_note_and_notes_are_kept():
    store = domain_store()
    options = {"label": "y", "domain": "domain", "n_permutations": 0, "n_bootstrap": 20}
    result = lp.leave_one_domain_out(store, **options)
    assert set(result.table["subset"]) == {"domain=b", "domain=c"}
    assert any("domain=a was skipped" in note and "'1'" in note for note in result.notes)
    assert any("bag of words: the store keeps no texts" in note for note in result.notes)
    with pytest.raises(LayerprobeError, match="held_out= is each domain in turn"):
        lp.leave_one_domain_out(store, held_out=0.3, **options)
    gaps = np.array([None if i % 10 == 0 else "ab"[i % 2] for i in range(90)], dtype=object)
    result = lp.leave_one_domain_out(domain_store(gaps=gaps), **{**options, "domain": "gaps"})
    assert set(result.table["subset"]) == {"gaps=a", "gaps=b"}
    assert any("9 rows without a value of 'gaps'" in note for note in result.notes)
    one = domain_store(only=np.repeat("x", 90))
    with pytest.raises(LayerprobeError, match="two domains or more"):
        lp.leave_one_domain_out(one, **{**options, "domain": "only"})
