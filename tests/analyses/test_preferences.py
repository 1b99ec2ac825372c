"""Planted preference directions and graded scores come back; joins go by id."""

import numpy as np
import pandas as pd
import pytest
import torch
from chart_support import values_of
from tiny_models import WORDS, tiny_model, tiny_reward_model, tiny_tokenizer

import layerprobe as lp
from layerprobe.analyses.result.charts import to_svg
from layerprobe.analyses.rewards.decomposition import reward_decomposition
from layerprobe.analyses.rewards.preferences import preference_dimensions
from layerprobe.analyses.rewards.scalar_head import reward_head
from layerprobe.analyses.rewards.score_heads import score_heads
from layerprobe.cache.prompts.table import PromptTable
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
    assert [(one.claim.name, one.verdict) for one in parts.findings if one.lead] == [("explained", "found")]
    known = parts.table[parts.table["metric"] == "unique_r2"]
    assert (known["lo"] <= known["estimate"]).all() and (known["estimate"] <= known["hi"]).all()
    assert known.set_index("target").loc["harmlessness", "lo"] > 0.2
    assert [one.target for one in parts.findings][1:3] == ["harmlessness", "helpfulness"]
    assert parts.findings[1].verdict == "found" and to_svg(parts.plot()).startswith("<svg")
    distances = parts.frames["cluster_distances"]
    near = distances[(distances["dimension"] == "harmlessness") & ~distances["fitted"]]
    nearest = near.loc[near.groupby("id")["distance"].idxmin()].set_index("id")["class"]
    truth = pd.Series(store.labels("harmlessness"), index=store.ids).astype(str)
    assert (nearest == truth.loc[nearest.index]).mean() > 0.7


def test_nothing_is_explained_by_unrelated_scores_and_distances_come_from_the_fitted_half():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 30)) * np.linspace(1, 5, 30)
    names = [f"d{i}" for i in range(25)]
    labels = {name: rng.permutation(np.arange(80) % 2) for name in names}
    store = lp.from_arrays({"final_norm": x}, labels=labels, groups=np.arange(80))
    probes = preference_dimensions(
        store, dimensions=names, n_permutations=0, n_bootstrap=50, strengths=[0.1], baselines=False
    )
    # a reward read off rows that its own direction does not score: 25 coefficients fit 40 rows, and fail
    head = np.linalg.svd(np.atleast_2d(probes.directions["final_norm", None]))[2][-1]
    parts = reward_decomposition(store, probes, reward=head, site="final_norm")
    assert parts.table.set_index("metric").loc["r2", "estimate"] < 0.2
    frame = parts.frames["cluster_distances"]
    fitted = frame.drop_duplicates("id")["fitted"].to_numpy()
    assert 0.4 < fitted.mean() < 0.6
    z = (x - x[fitted].mean(axis=0)) / x[fitted].std(axis=0)
    for value in (0, 1):
        centre = z[fitted & (labels["d0"] == value)].mean(axis=0)
        mine = frame[(frame["dimension"] == "d0") & (frame["class"] == str(value))]
        np.testing.assert_allclose(mine["distance"], np.sqrt(((z - centre) ** 2).mean(axis=1)))


def test_the_published_recipe_is_there_by_name_and_says_it_did_not_converge():
    store, _ = preference_store()
    options = {"dimensions": ["harmlessness", "three"], "n_permutations": 0, "n_bootstrap": 100}
    published = preference_dimensions(store, recipe="published", **options).table
    converged = preference_dimensions(store, **options).table
    assert not published["converged"].any() and converged["converged"].all()
    pick = converged["metric"] == "balanced_accuracy"
    assert (converged[pick]["estimate"].to_numpy() > published[pick]["estimate"].to_numpy() + 0.05).all()


def worded_prompts(n=160, seed=0):
    """Prompts of random words; two dimensions are whether a word is among them."""
    rng = np.random.default_rng(seed)
    plain = [word for word in WORDS if word.isalpha() and word not in ("happy", "park")]
    rows = []
    for index in range(n):
        words = list(rng.choice(plain, 6)) + ["happy"] * (index % 2) + ["park"] * (index // 2 % 2)
        rows.append({"prompt": " ".join(rng.permutation(words)), "happy": index % 2, "park": index // 2 % 2})
    return PromptTable.from_frame(pd.DataFrame(rows), text="prompt", labels=["happy", "park"])


def test_a_real_reward_model_is_probed_and_its_reward_taken_apart():
    from transformers import AutoModelForSequenceClassification

    folder = tiny_reward_model()
    whole = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    weight, bias = reward_head(folder)
    prompts = worded_prompts()
    for source in (lp.load_model(folder), lp.load_model(whole, tokenizer=tiny_tokenizer())):
        own, offset = reward_head(source)
        np.testing.assert_array_equal(own, weight)
        assert offset == bias == 0.0
        store = lp.capture(source, prompts, sites=["resid_post", "final_norm"], tokens="last", progress=False)
        # the head reads what was stored: its product is the model's own reward
        batch = [tiny_tokenizer()(text, return_tensors="pt")["input_ids"] for text in store.texts[:20]]
        rewards = [whole(ids).logits.item() for ids in batch]
        np.testing.assert_allclose(
            store.activations("final_norm")[:20] @ weight + bias, rewards, rtol=1e-3, atol=1e-4
        )
        probes = preference_dimensions(
            store,
            dimensions=["happy", "park"],
            groups=None,
            sites="final_norm",
            n_permutations=100,
            n_bootstrap=100,
        )
        parts = reward_decomposition(store, probes, reward=weight, site="final_norm", groups=None)
        table = parts.table.set_index("metric")
        assert 0 < table.loc["unexplained_norm", "estimate"] <= 1 and table.loc["r2", "estimate"] < 1
        unit = probes.directions["final_norm", None].astype(float)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        rows = parts.table[parts.table["metric"] == "unique_r2"]
        rest = weight - rows["coefficient"].to_numpy() @ unit  # what is left is orthogonal to every dimension
        np.testing.assert_allclose(unit @ rest, 0, atol=1e-5)
        left = np.linalg.norm(rest) / np.linalg.norm(weight)
        assert left == pytest.approx(table.loc["unexplained_norm", "estimate"], abs=1e-4)
        assert set(parts.frames["cluster_distances"]["dimension"]) == {"happy", "park"}


def test_a_plain_decoder_is_probed_alike_and_has_no_reward_head():
    model = lp.load_model(tiny_model("llama"))
    store = lp.capture(model, worded_prompts(), sites="resid_post", tokens="last", progress=False)
    result = preference_dimensions(
        store, dimensions=["happy", "park"], groups=None, n_permutations=0, n_bootstrap=100
    )
    assert result.table["layer"].nunique() == model.n_layers and result.directions.names == ("happy", "park")
    with pytest.raises(LayerprobeError, match="no scalar head"):
        reward_head(model)


def test_grades_are_read_by_ridge_beside_classes():
    store, axes = preference_store()
    graded = lp.from_arrays(
        {"final_norm": store.activations("final_norm")},
        labels={"yes": store.labels("harmlessness"), "graded": store.activations("final_norm") @ axes[1]},
        groups=store.groups,
    )
    options = {"dimensions": ["yes", "graded"], "n_permutations": 50, "n_bootstrap": 100}
    table = preference_dimensions(graded, **options).table.set_index(["target", "metric"])["estimate"]
    assert table["graded", "r2"] > 0.9 and table["yes", "balanced_accuracy"] > 0.75
    assert ("graded", "accuracy") not in table and ("yes", "r2") not in table
    with pytest.raises(LayerprobeError, match="recipe='converged'"):
        preference_dimensions(graded, recipe="published", **options)


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
    chart = result.plot()
    assert "2 labels" in chart.to_dict()["title"]["text"]
    assert {row["f"] for row in values_of(chart)[0]} >= {"clarity", "style"}
    assert [(one.target, one.verdict) for one in result.findings if one.lead] == [
        ("clarity", "found"),
        ("style", "found"),
    ]
    with pytest.raises(LayerprobeError, match="index targets by the ids"):
        score_heads(store, scores=["clarity"], targets=targets.reset_index(drop=True))
    with pytest.raises(LayerprobeError, match="lacks columns"):
        score_heads(store, scores=["tone"], targets=targets)
