"""What Model refuses, what run gives, and that no more is run than was asked for."""

import pytest
import torch
from tiny_models import VOCAB, tiny_model

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.sites import SITES, SiteAt
from layerprobe.hooks.weights.load import load_model
from layerprobe.hooks.weights.outline import outline_model


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False, allow_hooks=True)  # spies of our own


BATCH = pad([[8, 9, 10, 11], [12, 13]])


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (["resid"], "unknown site"),
        (["resid_post[3]"], "out of range"),
        (["router_logits[0]"], "dense"),
    ],
)
def test_sites_are_refused_before_the_pass(model, sites, message):
    handle = model.hf.model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    try:
        with pytest.raises(LayerprobeError, match=message):
            model.forward(*BATCH, sites=sites)
    finally:
        handle.remove()


def test_sites_that_an_architecture_lacks():
    with pytest.raises(LayerprobeError, match="parallel block"):
        load_model(tiny_model("gpt_neox"), check=False).parse_sites("resid_mid")
    with pytest.raises(LayerprobeError, match="mixture of experts"):
        load_model(tiny_model("mixtral"), check=False).parse_sites("mlp_act[0]")
    with pytest.raises(LayerprobeError, match="no final norm"):
        load_model(tiny_model("bert"), check=False).parse_sites("final_norm")


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([[5, VOCAB]], [[1, 1]], "outside the vocabulary"),
        ([[5, -1]], [[1, 1]], "outside the vocabulary"),
        ([[5] * 65], [[1] * 65], "more than the context"),
        ([[5, 6]], [[1]], "must both be"),
        ([5, 6], [1, 1], "must both be"),
    ],
)
def test_bad_input_is_refused(model, ids, mask, message):
    with pytest.raises(LayerprobeError, match=message):
        model.forward(torch.tensor(ids), torch.tensor(mask), sites=["embed"])


def test_run_refusals(model):
    with pytest.raises(LayerprobeError, match="no texts"):
        model.run([], sites=["embed"])
    with pytest.raises(LayerprobeError, match="capture has more rules"):
        model.run("the cat", sites=["embed"], tokens="mean")
    with pytest.raises(LayerprobeError, match="left padding"):
        model.generate_ids(*BATCH)
    with pytest.raises(LayerprobeError, match="positions has shape"):
        model.logits(*BATCH, positions=torch.tensor([0, 1, 2]))


def test_the_pass_stops_at_the_last_site(model):
    ran = []
    modules = {
        "block 1": model.hf.model.layers[1],
        "final norm": model.hf.model.norm,
        "head": model.hf.lm_head,
    }
    mlp = model.hf.model.layers[0].mlp
    handles = [m.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, m in modules.items()]
    handles.append(mlp.register_forward_hook(lambda *_: ran.append("mlp 0")))
    try:
        model.forward(*BATCH, sites=["attn_out[0]"])
        assert ran == []
        model.forward(*BATCH, sites=["resid_post[0]"])
        assert ran == ["mlp 0"]
        ran.clear()
        model.forward(*BATCH, sites=["resid_post"])
        assert "head" not in ran
        assert "final norm" not in ran
    finally:
        for handle in handles:
            handle.remove()


def test_attention_stays_sdpa_unless_the_pattern_is_asked_for(model, monkeypatch):
    seen = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(*args, **kwargs):
        seen.append("sdpa")
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    model.forward(*BATCH, sites=["resid_post", "head_out", "q", "mlp_act"])
    assert len(seen) == model.n_layers
    seen.clear()
    model.forward(*BATCH, sites=["attn_pattern"])
    assert seen == []
    model.forward(*BATCH, sites=["resid_post"])
    assert len(seen) == model.n_layers


def test_select_sees_each_value_and_may_return_a_view(model):
    shapes = {}

    def last(at, value):
        shapes[at.site] = tuple(value.shape)
        return value[:, -1]

    sites = ["resid_post[1]", "mlp_out[1]", "k[1]"]
    out = model.forward(*BATCH, sites=sites, select=last)
    whole = model.forward(*BATCH, sites=sites)
    assert shapes == {"resid_post": (2, 4, 32), "mlp_out": (2, 4, 32), "k": (2, 4, 2, 8)}
    for at, value in out.items():
        assert torch.equal(value, whole[at][:, -1])


def test_a_view_survives_what_the_model_does_next():
    """Falcon adds the attention output to the MLP's in place; a view that select returned must not follow."""
    model = load_model(tiny_model("falcon"), check=False)
    at = SiteAt("mlp_out", 0)
    view = model.forward(*BATCH, sites=[at, "resid_post[2]"], select=lambda _, value: value[:, 0])[at]
    copy = model.forward(*BATCH, sites=[at])[at][:, 0]
    assert torch.equal(view, copy)


def test_run_gives_each_text_its_own_tokens(model):
    acts = model.run(
        ["the cat was late", "yes", [{"role": "user", "content": "who ?"}]],
        sites=["resid_post[-1]", "attn_pattern[0]"],
    )
    assert [len(t) for t in acts.tokens] == [5, 2, 8]
    assert [tuple(v.shape) for v in acts["resid_post[2]"]] == [(5, 32), (2, 32), (8, 32)]
    assert [tuple(v.shape) for v in acts["attn_pattern[0]"]] == [(5, 4, 5), (2, 4, 2), (8, 4, 8)]
    assert torch.allclose(acts["attn_pattern[0]"][0].sum(-1), torch.ones(5, 4))
    # another batch shape sums in another order: entries near zero are only as exact as the rest is large
    last = model.run(["the cat was late"], sites="resid_post[2]", tokens="last")["resid_post[2]"][0]
    assert torch.allclose(last, acts["resid_post[2]"][0][-1], atol=1e-5)
    first = model.run(["the cat was late"], sites="resid_post[2]", tokens="first")["resid_post[2]"][0]
    assert torch.allclose(first, acts["resid_post[2]"][0][1], atol=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "falcon_new", "qwen3_moe", "bert", "gemma3_multimodal"])
def test_site_shapes_are_what_comes(name):
    model = load_model(tiny_model(name), check=False)
    for site, info in SITES.items():
        at = SiteAt(site, 1 if info.layered else None)
        if model.engine.available(at) is None and site not in ("lens", "attn_pattern"):
            assert model.forward(*BATCH, sites=[at])[at].shape[2:] == model.site_shape(site), site


def test_outline_knows_the_model_without_its_weights():
    whole, outline = load_model(tiny_model("qwen2"), check=False), outline_model(str(tiny_model("qwen2")))
    assert outline.identity == whole.identity
    assert outline.parse_sites(["resid_post", "head_out[-1]"]) == whole.parse_sites(
        ["resid_post", "head_out[-1]"]
    )
    assert outline.encode("the cat").input_ids == whole.encode("the cat").input_ids
    assert next(outline.hf.parameters()).device.type == "meta"
