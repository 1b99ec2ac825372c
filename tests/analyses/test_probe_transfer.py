"""Between datasets nothing leaks that grouping keeps together within one."""

import numpy as np
import pytest
import torch

import layerprobe as lp
from layerprobe.analyses.statistics.metrics import Predicted
from layerprobe.analyses.validation.transfer import generalisation_matrix
from layerprobe.analyses.validation.transfer_targets import Target
from layerprobe.hooks.errors import LayerprobeError


def two_wordings(seed, n=120, shared=100, width=96, signal=0.0, **given):
    """The same items in two datasets, another text each; with no signal the labels are random."""
    rng = np.random.default_rng(seed)
    y, z = rng.integers(0, 2, n), rng.normal(size=(n, width))
    z[:, 0] += signal * y
    some = rng.permutation(n)[:shared]
    stores = {}
    for name, items in (("a", np.arange(n)), ("b", some)):
        x = z[items] + 0.05 * rng.normal(size=(len(items), width))
        stores[name] = lp.from_arrays(
            {"resid_post": x[None].repeat(given.get("layers", 1), axis=0)},
            labels={"y": y[items], "grade": z[items, 0] + 0.1 * rng.normal(size=len(items))},
            groups=[f"item {item}" for item in items],
            texts=[f"{name} words of its own {item}" for item in items],
        )
    return stores


def matrix(result):
    return result.table.pivot(index="train_on", columns="test_on", values="estimate")


def test_items_with_a_wording_in_both_datasets_leak_nothing():
    found = [
        matrix(
            generalisation_matrix(
                two_wordings(s), label="y", method="mass_mean", n_bootstrap=20, baselines=False
            )
        )
        for s in range(12)
    ]
    away = [one.loc[i, j] for one in found for i, j in (("a", "b"), ("b", "a"))]
    assert abs(np.mean(away) - 0.5) < 0.06  # 0.80 where items are split anew in each dataset


def test_what_is_left_out_and_what_is_alike_is_said():
    stores = two_wordings(0, signal=3.0)
    a, b = stores["a"], stores["b"]
    rng = np.random.default_rng(0)
    words = " ".join(f"w{i}" for i in range(20))
    renamed = lp.from_arrays(
        {"resid_post": rng.normal(size=(1, 100, 96))},
        labels={"y": b.labels("y")},
        groups=[f"other {i}" for i in range(100)],
        texts=[a.texts[0] if i == 0 else f"{words} {i}" for i in range(100)],
    )
    longer = lp.from_arrays(
        {"resid_post": a.activations("resid_post")},
        labels={"y": a.labels("y")},
        groups=a.groups,
        texts=[a.texts[0], *(f"{words} {i} !" for i in range(1, 120))],
    )
    result = generalisation_matrix({"a": longer, "b": renamed}, label="y", n_bootstrap=20, method="mass_mean")
    rows = result.table.set_index(["train_on", "test_on"])
    assert rows["left_out"].sum() <= 1
    assert any("near-duplicates" in note and "in both" in note for note in result.notes)
    same = lp.from_arrays(
        {"resid_post": a.activations("resid_post")},
        labels={"y": a.labels("y")},
        groups=[f"other {i}" for i in range(120)],
        texts=a.texts,
    )
    moved = generalisation_matrix({"a": a, "same": same}, label="y", n_bootstrap=20, method="mass_mean")
    rows = moved.table.set_index(["train_on", "test_on"])
    assert (rows["left_out"] == 0).all()  # one text is one group in both, so nothing seen is held out
    assert rows.loc[("a", "same"), "estimate"] == rows.loc[("a", "a"), "estimate"]


def test_no_new_row_is_a_sentence_and_graded_labels_are_correlated():
    stores = two_wordings(1, signal=3.0)
    a = stores["a"]
    y, none = np.array([0, 0]), np.array([True, True])
    alone = Target(none, y, np.array([0, 1]), n_classes=2, left_out=3, alike=0)
    row = alone.scored("auroc", Predicted(np.zeros(2)), alone.draws(20, 0))
    assert np.isnan(row["estimate"]) and "left to be scored" in row["note"]
    graded = generalisation_matrix(stores, label="grade", method="ridge", n_bootstrap=100).table
    assert (graded["metric"] == "pearson").all() and graded["estimate"].min() > 0.8
    for bad in ([a, a], {"a": a}):
        with pytest.raises(LayerprobeError, match="a name for each"):
            generalisation_matrix(bad, label="y")


def test_words_that_travel_are_in_the_row():
    rng = np.random.default_rng(3)
    stores = {}
    for name in ("a", "b"):
        y = rng.integers(0, 2, 150)
        said = np.where(rng.random(150) < 0.9, y, 1 - y)
        stores[name] = lp.from_arrays(
            {"resid_post": rng.normal(size=(1, 150, 4)) + y[:, None]},
            labels={"y": y},
            groups=[f"{name}{i}" for i in range(150)],
            texts=[f"{'yes' if one else 'no'} {name} {i}" for i, one in enumerate(said)],
            lengths=rng.integers(4, 9, 150),
        )
    rows = generalisation_matrix(stores, label="y", n_bootstrap=50).table
    assert rows["baseline_text"].min() > 0.75 and (rows["baseline_majority"] == 0.5).all()
    assert (rows["baseline_length"] - 0.5).abs().max() < 0.25


def test_the_matrix_is_the_same_on_tensors(monkeypatch):
    stores = two_wordings(2, width=6, signal=2.0, layers=2)
    one = generalisation_matrix(stores, label="y", n_bootstrap=20).table
    monkeypatch.setattr(
        "layerprobe.analyses.validation.transfer.find_device", lambda given: torch.device("cpu")
    )
    other = generalisation_matrix(stores, label="y", n_bootstrap=20, device="stacked").table
    for column in ("estimate", "baseline_text"):
        np.testing.assert_allclose(one[column], other[column], atol=1e-6)
