"""Probes without labels find truth that flips within pairs, and not the word that names the side."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.probes.contrast import contrast_probe
from layerprobe.analyses.probes.duplicates import near_duplicates
from layerprobe.hooks.errors import LayerprobeError


def pairs_store(n_pairs=120, strength=2.0, seed=0):
    rng = np.random.default_rng(seed)
    answer = np.tile([0, 1], n_pairs)
    item = np.repeat(np.arange(n_pairs), 2)
    true = answer == rng.integers(0, 2, n_pairs)[item]
    x = rng.normal(size=(2, n_pairs, 10))[:, item] + 0.5 * rng.normal(size=(2, 2 * n_pairs, 10))
    x[:, :, 0] += 8 * answer  # the side itself, louder than truth
    x[1, :, 1] += strength * (2 * true - 1)
    labels = {"true": true, "answer": np.where(answer, "yes", "no")}
    return lp.from_arrays({"resid_post": x}, labels=labels, groups=item, pairs=item)


@pytest.mark.parametrize("method", ["ccs", "crc"])
def test_truth_is_found_without_labels(method):
    result = contrast_probe(pairs_store(), label="true", side="answer", method=method, n_permutations=200)
    rows = result.table[result.table["metric"] == "auroc"].set_index("layer")
    assert rows.loc[1, "lo"] > 0.9 and rows.loc[0, "hi"] < 0.75
    direction = result.directions["resid_post", 1]
    assert direction.shape == (10,) and abs(direction[1]) / np.linalg.norm(direction) > 0.9


def test_pairs_must_be_pairs():
    store = pairs_store(10)
    with pytest.raises(LayerprobeError, match="exactly two rows"):
        contrast_probe(store, label="true", side="true", pair=np.arange(20) // 4)
    with pytest.raises(LayerprobeError, match="expected two"):
        contrast_probe(store, label="true", side=np.arange(20))


def test_multi_label_is_corrected_over_everything():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 200, 6))
    labels = {"a": rng.integers(0, 2, 200), "b": rng.integers(0, 2, 200)}
    x[1, :, 0] += 3 * labels["a"]
    store = lp.from_arrays({"resid_post": x}, labels=labels, groups=np.arange(200))
    result = lp.linear_probe(store, label=["a", "b"])
    rows = result.table[result.table["metric"] == "auroc"].set_index(["target", "layer"])
    assert rows.loc[("a", 1), "p_familywise"] < 0.01 and (rows.drop(("a", 1))["p_familywise"] > 0.05).all()
    assert result.directions["resid_post", 1].shape == (2, 6) and result.directions.names == ("a", "b")
    leads = [finding for finding in result.findings if finding.lead]
    assert [(one.target, one.verdict) for one in leads] == [("a", "found"), ("b", "not_found")]
    assert len(result.frames["best_layer"]) == 2 and leads[0].layers == (1,) and leads[0].test.looks == 4


def test_near_duplicates_across_groups_are_reported():
    base = [
        f"the {w} of item {i} is standing near the old wooden bridge today"
        for i, w in enumerate("abcdefgh" * 5)
    ]
    texts = base + [text + " again" for text in base]
    groups = np.arange(80)
    pairs = near_duplicates(texts, groups)
    assert {(i, i + 40) for i in range(40)} <= set(map(tuple, pairs.tolist()))
    assert not len(near_duplicates(texts, np.zeros(80)))
    rng = np.random.default_rng(0)
    store = lp.from_arrays(
        {"resid_post": rng.normal(size=(1, 80, 4))},
        labels={"y": np.arange(80) % 2},
        groups=groups,
        texts=texts,
    )
    assert any(
        "near-duplicates" in note for note in lp.linear_probe(store, label="y", n_permutations=0).notes
    )
