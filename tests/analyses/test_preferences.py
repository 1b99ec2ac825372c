"""Planted preference directions and graded scores come back; joins go by id."""

import numpy as np
import pandas as pd
import pytest
import torch

import layerprobe as lp
from layerprobe.analyses.preferences import preference_dimensions, reward_decomposition, reward_head
from layerprobe.analyses.score_heads import score_heads
from layerprobe.hooks.errors import LayerprobeError

NAMES = ["harmlessness", "helpfulness", "correctness", "coherence", "complexity", "verbosity"]


def preference_store(n=500, width=24, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(width, 6)))[0].T
    y = rng.integers(0, 2, (n, 6))
    x = rng.normal(size=(n, width)) + 3 * (y - 0.5) @ axes
    labels = {name: y[:, i] for i, name in enumerate(NAMES)}
    labels["three"] = np.digitize(x @ axes[0], [-1, 1])
    return lp.from_arrays({"final_norm": x}, labels=labels, groups=np.arange(n)), axes


def test_six_planted_directions_are_found_and_the_reward_is_taken_apart():
    store, axes = preference_store()
    probes = preference_dimensions(store, dimensions=NAMES, n_permutations=100, n_bootstrap=200)
    rows = probes.table[probes.table["metric"] == "balanced_accuracy"]
    assert (rows["lo"] > 0.75).all() and (rows["baseline_majority"] == 0.5).all()
    assert set(probes.table["metric"]) >= {"balanced_accuracy", "accuracy"}
    found = probes.directions["final_norm", None]
    found = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert (np.abs((found * axes).sum(axis=1)) > 0.8).all()
    reward = 2 * axes[0] + axes[1]
    parts = reward_decomposition(store, probes, reward=reward, site="final_norm")
    unique = parts.table[parts.table["metric"] == "unique_r2"].set_index("target")["estimate"]
    assert unique.idxmax() == "harmlessness" and unique.nlargest(2).index[1] == "helpfulness"
    table = parts.table.set_index("metric")
    assert table.loc["r2", "estimate"] > 0.85 and table.loc["unexplained_norm", "estimate"] < 0.5
    away = reward_decomposition(
        store, probes, reward=np.linalg.qr(np.vstack([axes, np.ones(24)]).T)[0][:, 6], site="final_norm"
    )
    assert away.table.set_index("metric").loc["unexplained_norm", "estimate"] > 0.8
    assert "explain R²" in parts.summary()[0]
    distances = parts.frames["cluster_distances"]
    near = distances[(distances["dimension"] == "harmlessness") & ~distances["fitted"]]
    nearest = near.loc[near.groupby("id")["distance"].idxmin()].set_index("id")["class"]
    truth = pd.Series(store.labels("harmlessness"), index=store.ids).astype(str)
    assert (nearest == truth.loc[nearest.index]).mean() > 0.7


def test_the_published_recipe_is_there_by_name_and_says_it_did_not_converge():
    store, _ = preference_store()
    options = {"dimensions": ["harmlessness", "three"], "n_permutations": 0, "n_bootstrap": 100}
    published = preference_dimensions(store, recipe="published", **options).table
    converged = preference_dimensions(store, **options).table
    assert not published["converged"].any() and converged["converged"].all()
    pick = converged["metric"] == "balanced_accuracy"
    assert (converged[pick]["estimate"].to_numpy() > published[pick]["estimate"].to_numpy() + 0.05).all()


def test_reward_heads_of_sequence_classifiers():
    class Reward(torch.nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.score = torch.nn.Linear(8, outputs, bias=False)

    weight, bias = reward_head(Reward(1))
    assert weight.shape == (8,) and bias == 0.0
    with pytest.raises(LayerprobeError, match="2 outputs"):
        reward_head(Reward(2))
    with pytest.raises(LayerprobeError, match="no scalar head"):
        reward_head(torch.nn.Identity())


def test_graded_scores_are_joined_by_id_and_read_within_tolerance():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 300, 10))
    grades = (
        np.stack([x[1, :, 0], x[1, :, 1] - x[1, :, 2]], axis=1) * 1.0 + 0.2 * rng.normal(size=(300, 2)) + 3
    )
    store = lp.from_arrays(
        {"resid_post": x}, groups=np.arange(300), ids=[f"chunk_{10 * i}" for i in range(300)]
    )
    targets = pd.DataFrame(
        grades, columns=["clarity", "style"], index=store.ids
    ).sort_index()  # another order
    result = score_heads(store, scores=["clarity", "style"], targets=targets, n_permutations=100)
    rows = result.table.set_index(["target", "layer", "metric"])["estimate"]
    for name in ("clarity", "style"):
        assert rows[name, 1, "r2"] > 0.8 and rows[name, 0, "r2"] < 0.2
        assert rows[name, 1, "accuracy_within_0.5"] > 0.9 > rows[name, 0, "accuracy_within_0.5"]
        assert rows[name, 1, "spearman"] > 0.85 and rows[name, 1, "kendall"] > 0.7
    with pytest.raises(LayerprobeError, match="index targets by the ids"):
        score_heads(store, scores=["clarity"], targets=targets.reset_index(drop=True))
    with pytest.raises(LayerprobeError, match="lacks columns"):
        score_heads(store, scores=["tone"], targets=targets)
