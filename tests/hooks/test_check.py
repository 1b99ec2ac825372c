"""The self-check: each site is judged by itself. What is right stays usable; what is not says why."""

import dataclasses

import pytest
import torch
from tiny_models import VOCAB, build, tiny_model, tiny_tokenizer
from torch import nn

import layerprobe as lp
from layerprobe.hooks import check as checks
from layerprobe.hooks import comparisons
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma3", "bert", "qwen3_moe"])
def test_passes_and_is_remembered(name):
    first = load_model(tiny_model(name), check=False).check()
    assert not first.remembered
    assert load_model(tiny_model(name), check=False).check().remembered
    assert not load_model(tiny_model(name), check=False).check(again=True).remembered
    assert not load_model(tiny_model(name, seed=1), check=False).check().remembered
    found = {f.name: f.difference for f in first.findings}
    assert set(found) - {"final norm"} == {
        "shapes",
        "hidden states",
        "head sums",
        "additive blocks",
        "lens",
        "padding",
        "intervention",
    }
    assert first.unavailable == {}
    if name == "bert":
        assert found["additive blocks"] is None
        assert "post-norm" in str(first)


def test_a_pass_of_fewer_comparisons_is_not_remembered_as_one_of_all(monkeypatch):
    with monkeypatch.context() as fewer:
        fewer.setattr(checks, "COMPARISONS", checks.COMPARISONS[1:])
        load_model(tiny_model("llama"), check=False).check()
    assert not load_model(tiny_model("llama"), check=False).check().remembered


def broken(name="gemma2", **changes):
    """A model whose anatomy is wrong in one place, as a new architecture's might be."""
    model = load_model(tiny_model(name), check=False)
    blocks = tuple(
        dataclasses.replace(parts, **{k: v(parts) for k, v in changes.items()})
        for parts in model.anatomy.blocks
    )
    model.anatomy = model.engine.anatomy = dataclasses.replace(model.anatomy, blocks=blocks)
    return model


IDS, MASK = pad([[8, 9, 10, 11, 12]])


def still_right(model):
    """The stream equals transformers' own."""
    with torch.no_grad():
        states = model.hf.get_submodule(model.anatomy.body)(IDS, output_hidden_states=True).hidden_states
    got = model.forward(IDS, MASK, sites=["resid_pre"])
    return all(
        torch.allclose(got[SiteAt("resid_pre", i)], states[i], atol=1e-5) for i in range(model.n_layers)
    )


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"mlp_out": lambda parts: parts.mlp}, {"mlp_out"}),  # a post-norm that was missed
        ({"attn_out": lambda parts: parts.mlp_out}, {"attn_out", "head_out"}),
        ({"attn_out": lambda parts: parts.attention}, {"attn_out", "head_out"}),
        ({"mid_norm": lambda parts: parts.attn_out}, {"resid_mid"}),
        ({"o_proj": lambda parts: parts.down_proj}, {"head_out"}),
    ],
)
def test_what_is_wrong_is_lost_and_nothing_else(changes, lost):
    model = broken(**changes)
    report = model.check()
    assert set(model.unavailable) == set(report.unavailable)
    assert lost - {"head_out"} <= set(model.unavailable) <= lost
    assert still_right(model)
    for site in model.unavailable:
        with pytest.raises(
            LayerprobeError, match=rf"{site}\[0\] is not available, since its self-check failed"
        ):
            model.parse_sites(f"{site}[0]")
        assert "self-check failed" in model.sites[site]
        assert site in repr(model)
    assert model.sites["resid_post"] == (0, 1, 2)
    again = broken(**changes)
    assert again.check().remembered
    assert again.unavailable == model.unavailable


def test_a_lens_without_its_softcap_is_lost_with_the_logits():
    model = load_model(tiny_model("gemma2"), check=False)
    model.engine.head = dataclasses.replace(model.engine.head, softcap=None)
    model.check()
    assert set(model.unavailable) == {"lens"}
    with pytest.raises(LayerprobeError, match=r"lens is not available.*lens is off by"):
        model.logits(IDS, MASK)
    with pytest.raises(LayerprobeError, match="lens is not available"):
        _ = model.lens
    assert still_right(model)


def test_a_stream_that_is_off_is_refused():
    with pytest.raises(LayerprobeError, match="hidden states is off by"):
        broken(block=lambda parts: parts.mlp).check()


def test_a_masked_head_of_several_layers_leaves_the_stream():
    import transformers
    from tiny_models import randomised, tiny_config

    module = randomised(transformers.AutoModelForMaskedLM.from_config(tiny_config("bert")).eval())
    model = load_model(module, tokenizer=tiny_tokenizer())
    assert set(model.unavailable) == {"lens"}
    assert still_right(model)
    assert model.run("the cat", sites="resid_post[0]")


def test_positions_that_depend_on_padding_are_named():
    good = load_model(tiny_model("gpt2"), check=False)
    assert max(f.difference for f in checks._padding(good)) < 1e-5
    learned = load_model(tiny_model("gpt2"), check=False)
    # transformers then numbers the columns, padding and all
    learned.engine._accepts.discard("position_ids")
    right, left = checks._padding(learned)
    assert right.good
    assert left.difference > 1e-3
    learned.check()
    assert set(learned.unavailable) == {"generate"}
    assert learned.generate("the cat", max_new_tokens=1)
    with pytest.raises(LayerprobeError, match=r"generate is not available.*left padding"):
        learned.generate(["the cat", "who was it"], max_new_tokens=1)


def test_values_that_are_not_finite_fail():
    assert comparisons.difference(torch.tensor([float("nan")]), torch.tensor([1.0])) != 0.0
    model = load_model(tiny_model("llama"), check=False)
    report = checks.CheckReport((checks.Finding("hidden states", float("nan"), 1e-4, sites=("resid_post",)),))
    with pytest.raises(LayerprobeError, match="hidden states is off by nan"):
        checks._refuse(model, report)


@pytest.mark.parametrize("alphabet", ["0123456789", "ACDEFGHIKLMNPQRSTVWY"])
def test_a_tokenizer_of_other_things_than_words_loads(alphabet):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {letter: i for i, letter in enumerate(["<pad>", *alphabet])}
    own = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    own.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>")
    if alphabet[0] == "0":  # and what it does not know it drops
        own.model = models.BPE(ids, [])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=own, pad_token="<pad>")
    model = load_model(build("llama"), tokenizer=tokenizer)
    assert model.unavailable == {}
    chosen = comparisons._tokens(model)
    assert len(set(chosen)) > 3
    assert all(0 <= i < VOCAB for i in chosen)


def test_attention_with_a_sink_has_as_many_keys_as_tokens():
    import transformers
    from tiny_models import randomised

    config = transformers.GptOssConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        head_dim=8, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, vocab_size=VOCAB,
        sliding_window=8, max_position_embeddings=64, pad_token_id=0,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    module = randomised(transformers.AutoModelForCausalLM.from_config(config).eval())
    model = load_model(module, tokenizer=tiny_tokenizer())
    got = model.forward(IDS, MASK, sites=["attn_pattern"])[SiteAt("attn_pattern", 1)]
    module.set_attn_implementation("eager")
    with torch.no_grad():
        want = module(IDS, output_attentions=True).attentions[1]
    assert got.shape == (1, 5, 4, 5)
    assert torch.allclose(got.transpose(1, 2), want[..., :5], atol=1e-6)
    assert bool((got.sum(-1) < 1).all())  # the rest goes to the sink
    store = lp.capture(
        model, ["the cat was late", "who"], sites="attn_pattern[1]", tokens="last", progress=False
    )
    assert store.activations("attn_pattern", 1).shape[0] == 2


class EightBits(nn.Linear):
    """What an 8-bit kernel computes: activations rounded to 1/127 of each row's largest."""

    def forward(self, x):
        scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 127
        return super().forward((x / scale).round() * scale)


def test_quantised_models_are_judged_at_their_kernels_tolerance():
    module = build("llama")
    for layer in module.model.layers:
        for child in layer.modules():
            if type(child) is nn.Linear:
                child.__class__ = EightBits
    model = load_model(module, tokenizer=tiny_tokenizer())
    assert "head_out" in model.unavailable
    module.is_quantized = True
    assert load_model(module, tokenizer=tiny_tokenizer(), check=False).check(again=True).unavailable == {}
