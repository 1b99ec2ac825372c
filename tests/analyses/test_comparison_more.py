import numpy as np
import pytest
import torch
from lens_worlds import FLAT, OVERRIDDEN, lens_table, tiny, tiny_store, world

import layerprobe as lp
from layerprobe.analyses.behaviour.checkpoints import known_pair, known_pairs
from layerprobe.analyses.causes.refusal import refusal_direction
from layerprobe.analyses.causes.refusal_runs import ablate_everywhere, stream_means
from layerprobe.analyses.comparison.factorial import two_by_two
from layerprobe.analyses.comparison.models import compare
from layerprobe.analyses.comparison.readout import mean_difference_readout
from layerprobe.analyses.result.analysis import read_result
from layerprobe.analyses.result.saving import to_svg
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model

FAST = {"n_bootstrap": 100, "n_permutations": 50}


def cell(tuned, chat, seed):
    """Tuning moves dimension 0 from layer 5 on, the template dimension 1, and both together the lens."""
    rng = np.random.default_rng(seed)
    x = (
        rng.normal(size=(8, 160, 6)).astype(np.float32)
        + np.random.default_rng(0).normal(size=(8, 160, 6)).astype(np.float32) * 3
    )
    x[5:, :, 0] += 6 * tuned
    x[:, :, 1] += 4 * chat
    options = {} if tuned and chat else {"sensitive": FLAT}
    return world(resid=x, seed=seed, name=f"{tuned}{chat}", **options)


def test_tuning_and_template_are_told_apart():
    stores = {
        (w, t): cell(w == "instruct", t == "chat", i)
        for i, (w, t) in enumerate(
            [("base", "plain"), ("base", "chat"), ("instruct", "plain"), ("instruct", "chat")]
        )
    }
    result = two_by_two(stores, by="sensitive", max_rows=40, **FAST)
    shift = (
        result.table[result.table["metric"] == "mean_shift"]
        .set_index(["effect", "layer"])["estimate"]
        .astype(float)
    )
    assert shift["instruct − base | plain", 6] > 0.5 > 0.2 > abs(shift["instruct − base | plain", 2])
    assert shift["chat − plain | base", 2] > 0.3
    assert abs(shift["interaction", 6]) < 0.3
    table = result.table
    index = table[(table["metric"] == "suppression_index") & (table["effect"] == "interaction")]
    index = (index[index["minus"].isna()] if "minus" in index else index).set_index("subset")
    assert index.loc["sensitive=sensitive", "lo"] > 0
    assert index.loc["sensitive=benign", "lo"] < 0 < index.loc["sensitive=benign", "hi"]
    leads = {f.model: f for f in result.findings if f.lead}
    assert set(leads) == {"instruct/plain", "base/chat", "instruct/chat"}
    together = [f for f in result.findings if f.claim.name == "tuning and template interact" and f.subset]
    assert {f.subset: f.verdict for f in together} == {
        "sensitive=sensitive": "found",
        "sensitive=benign": "not_found",
    }
    assert leads["instruct/chat"] in together
    moved = [f for f in result.findings if f.quantity == "mean_shift"]
    assert len(moved) == 5 and all(f.verdict == "not_tested" for f in moved)
    svg = to_svg(result.plot())
    assert "instruct − base | plain" in svg and "interaction" in svg and "NaN" not in svg


def test_a_two_by_two_may_be_named_by_weights_and_template():
    stores = {
        f"{w}-{t}": cell(w == "instruct", t == "chat", i)
        for i, (w, t) in enumerate((w, t) for w in ("base", "instruct") for t in ("plain", "chat"))
    }
    result = two_by_two(stores, max_rows=40, **FAST)
    assert "instruct − base | chat" in set(result.table["effect"]) and result.kind == "two_by_two"


def test_a_two_by_two_must_be_whole():
    with pytest.raises(LayerprobeError, match="two weights"):
        two_by_two({("base", "plain"): world(), ("base", "chat"): world(), ("it", "chat"): world()})
    with pytest.raises(LayerprobeError, match="keys"):
        two_by_two({"base": world(), "it": world()})


def test_the_mean_difference_is_read_as_the_token_that_was_added():
    model = tiny("llama")
    store = tiny_store(model)
    word = model.tokenizer.convert_tokens_to_ids("baker")
    x = np.array(store.activations("resid_post"))
    x[2] += 3 * model.lens.head.unembed.weight[word].detach().numpy()
    other = from_arrays({"resid_post": x}, ids=store.ids, model_name="instruct")
    result = mean_difference_readout({"base": store, "instruct": other}, model=model)
    tokens = result.frames["tokens"]
    assert tokens[tokens["layer"] == 2].iloc[0]["token"] == "baker"
    assert result.table.set_index("layer")["estimate"][2] == pytest.approx(1)
    (finding,) = result.findings
    assert finding.lead and finding.layer == 2 and "'baker'" in finding.caveats[0]
    assert "only noise" in to_svg(result.plot())
    same = mean_difference_readout({"base": store, "again": store}, model=model)
    assert [f.verdict for f in same.findings] == ["not_found"]


def test_ablating_everywhere_leaves_nothing_of_the_direction():
    model = tiny("llama")
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    with model.edit(*ablate_everywhere(model, vector)):
        seen = model.forward(ids, torch.ones_like(ids), sites=["resid_pre[1:]", "resid_post"])
    unit = vector / vector.norm()
    assert all(float((value @ unit).abs().max()) < 1e-4 for value in seen.values())
    assert isinstance(next(iter(seen)), SiteAt)


def test_a_refusal_direction_is_chosen_and_kept(tmp_path):
    model = tiny("llama")
    harmful = [f"the {a} was {b} ." for a in ("cat", "dog", "baker") for b in ("red", "blue")]
    harmless = [f"he said {a} {b}" for a in ("one", "two", "three") for b in ("yes", "no")]
    result = refusal_direction(
        model, harmful, harmless, refusal_tokens=["no"], max_kl=50.0, positions=(-1, -2)
    )
    layer = result.provenance["layer"]
    assert layer < 0.8 * model.n_layers
    assert np.linalg.norm(result.directions["resid_pre", layer]) == pytest.approx(1, abs=1e-5)
    assert "log-odds" in str(result.summary()) and result.plot().data
    again = read_result(result.to_parquet(tmp_path / "r.parquet"))
    assert str(again.summary()) == str(result.summary())
    with pytest.raises(LayerprobeError, match="at least 6"):
        refusal_direction(model, harmful[:3], harmless, refusal_tokens=["no"])
    with pytest.raises(LayerprobeError, match="smaller shares"):
        refusal_direction(model, harmful, harmless, refusal_tokens=["no"], test=0.6)
    with pytest.raises(LayerprobeError, match="larger max_kl"):
        refusal_direction(model, harmful, harmless, refusal_tokens=["no"], max_kl=-1.0)


def test_a_planted_refusal_direction_is_found_and_a_random_one_does_nothing():
    """Four words bring a direction into the stream that the unembedding of "no" reads; four others do not."""
    from tiny_models import build, tiny_tokenizer

    hf, tokenizer = build("llama"), tiny_tokenizer()
    planted = torch.randn(hf.config.hidden_size, generator=torch.Generator().manual_seed(1))
    planted /= planted.norm()
    words = {"harmful": ("cat", "dog", "red", "sad"), "harmless": ("house", "park", "blue", "happy")}
    ids = {name: tokenizer.convert_tokens_to_ids(list(part)) for name, part in words.items()}
    with torch.no_grad():
        table = hf.model.embed_tokens.weight
        table -= (table @ planted)[:, None] * planted
        table[ids["harmless"]] = 0.9 * table[ids["harmless"]].mean(0) + 0.1 * table[ids["harmless"]]
        table[ids["harmful"]] = table[ids["harmless"]] + 4 * table.std() * planted
        for block in hf.model.layers:  # so that the stream carries the words nearly as they came in
            block.self_attn.o_proj.weight *= 0.05
            block.mlp.down_proj.weight *= 0.05
        hf.lm_head.weight[tokenizer.convert_tokens_to_ids("no")] += 4 * planted / hf.model.norm.weight
    model = load_model(hf, tokenizer=tokenizer, check=False, name="planted")
    starts = ("the baker was", "he said the", "it was", "the pilot was late and the baker was")
    prompts = {name: [f"{start} {word}" for word in part for start in starts] for name, part in words.items()}
    result = refusal_direction(
        model, prompts["harmful"], prompts["harmless"], refusal_tokens=["no"], max_kl=0.2
    )
    chosen = torch.as_tensor(result.directions["resid_pre", result.provenance["layer"]])
    assert float(chosen @ planted) > 0.8
    test = result.table[result.table["split"] == "test prompts"].set_index("metric")["estimate"]
    gap = test["refusal_harmful"] - test["refusal_harmless"]
    assert gap > 2
    assert test["refusal_harmful"] - test["refusal_ablated"] > 0.7 * gap
    assert abs(test["random_refusal_ablated"] - test["refusal_harmful"]) < 0.3 * gap
    assert test["refusal_added"] - test["refusal_harmless"] > 0.5 * gap
    n = result.table[result.table["note"] == "unedited"].groupby("split")["n"].first()
    assert n.to_dict() == {"test prompts": 4, "validation prompts": 4}


def test_the_registry_names_pairs_and_helps_with_typing_errors():
    assert known_pair("olmo2_1b").sources()["sft"].endswith("SFT")
    assert all(pair.base != pair.instruct and pair.bos and pair.template for pair in known_pairs().values())
    with pytest.raises(LayerprobeError, match="gemma2_2b"):
        known_pair("gemma2-2b")


def test_a_refusal_direction_averages_no_padding_and_batches_change_nothing():
    model = tiny("llama")
    prompts = ["the cat", "the baker was late", "the pilot was happy and the baker was sad", "who was sad ?"]
    found = [stream_means(model, prompts, (-1, -3), size) for size in (1, 2, 4)]
    for other in found[1:]:
        assert torch.allclose(found[0], other, atol=1e-5)
    short = stream_means(model, prompts[1:], (-3,), 1)
    reaches = len(model.encode("the cat").input_ids) >= 3
    assert reaches or torch.allclose(found[2][:, 1], short[:, 0], atol=1e-5)
    with pytest.raises(LayerprobeError, match="before the start"):
        stream_means(model, prompts, (-40,), 2)
    with pytest.raises(LayerprobeError, match="below 0"):
        stream_means(model, prompts, (0,), 2)


def deep(layers, width=6, seed=0):
    """A model of some depth whose class signal grows from a third of it on."""
    rng = np.random.default_rng(seed)
    y = np.arange(80) % 2
    x = np.random.default_rng(9).normal(size=(80, width))[None] + 0.3 * rng.normal(size=(layers, 80, width))
    for layer in range(layers):
        x[layer, :, 0] += 4 * y * max(0.0, layer / (layers - 1) - 0.3)
    curve = np.interp(np.linspace(0, 1, layers), np.linspace(0, 1, 8), OVERRIDDEN)
    return lp.from_arrays(
        {"resid_post": x},
        labels={"y": y},
        lens=lens_table(curve[:, None] + 0.3 * rng.normal(size=(layers, 80))),
    )


@pytest.mark.parametrize("layers", [(8, 6), (5, 4), (4, 5)])
def test_models_of_different_depth_meet_at_relative_depth(layers):
    one, other = layers
    result = compare(
        {"base": deep(one), "big": deep(other, seed=1)},
        label="y",
        groups=None,
        n_permutations=20,
        n_bootstrap=20,
    )
    rows = result.table[(result.table["metric"] == "cka_debiased") & (result.table["space"] == "raw")]
    assert rows["layer"].tolist() == list(range(other))
    assert rows["reference_layer"].iloc[0] == 0 and rows["reference_layer"].iloc[-1] == one - 1
    assert rows["depth"].tolist() == pytest.approx(np.arange(other) / (other - 1))
    assert ((rows["reference_layer"] / (one - 1) - rows["depth"]).abs() <= 0.5 / (one - 1) + 1e-9).all()
    ranks = result.table[result.table["metric"] == "effective_rank"]
    assert (ranks["model"] == "base").sum() == one and (ranks["model"] == "big").sum() == other
    curve = result.table[(result.table["metric"] == "logit_difference") & result.table["reference"].notna()]
    assert curve["layer"].tolist() == list(range(other)) and curve["estimate"].abs().max() < 7
    assert (result.table["metric"] == "lens_kl").sum() == other
    assert len(result.summary()) and result.plot().data
