"""Families beyond the conformance table: hybrids, latent attention, layers that differ, unusual norms. They
pass the self-check, and every site they offer has the shape the model says; the rest is refused."""

import pytest
import torch
import transformers
from tiny_models import HEADS, KV, LAYERS, VOCAB, WIDTH, randomised, tiny_tokenizer

from layerprobe.hooks.comparisons import difference
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.sites import SITES, SiteAt
from layerprobe.hooks.weights.load import load_model

LLAMA = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
LATENT = {
    **LLAMA,
    "num_key_value_heads": HEADS,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
}
MIXED = ["linear_attention", "full_attention", "linear_attention"]
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
GRANITE_4 = {
    **{k: v for k, v in LLAMA.items() if k != "head_dim"},
    **MAMBA,
    "shared_intermediate_size": 48,
    "layer_types": ["mamba", "attention", "mamba"],
}
OLD = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64}
SCALED = {"residual_multiplier": 0.3, "logits_scaling": 4.0, "embedding_multiplier": 2.0}

FAMILIES = {
    "afmoe": (
        "AfmoeConfig",
        {
            **LLAMA,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "num_dense_layers": 1,
        },
    ),
    "apertus": ("ApertusConfig", LLAMA),
    "biogpt": ("BioGptConfig", {k: v for k, v in LLAMA.items() if "key" not in k and "head_dim" not in k}),
    "deepseek_v3": ("DeepseekV3Config", {**LATENT, "first_k_dense_replace": LAYERS}),
    "gemma4": (
        "Gemma4TextConfig",
        {
            **LLAMA,
            "global_head_dim": 16,
            "hidden_size_per_layer_input": 4,
            "vocab_size_per_layer_input": VOCAB,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    "gpt_bigcode": ("GPTBigCodeConfig", {**OLD, "multi_query": True}),
    "gpt_bigcode_heads": ("GPTBigCodeConfig", {**OLD, "multi_query": False}),
    "granite_hybrid": (
        "GraniteMoeHybridConfig",
        {**GRANITE_4, "num_local_experts": 0, "logits_scaling": 4.0},
    ),
    "hyperclovax": ("HyperCLOVAXConfig", {**LLAMA, **SCALED, "use_post_norm": True}),
    "lfm2": ("Lfm2Config", {**LLAMA, "layer_types": ["conv", "full_attention", "conv"], "block_ff_dim": 48}),
    "minicpm3": ("MiniCPM3Config", {**LATENT, "v_head_dim": 8, "scale_depth": 1.4, "scale_emb": 3}),
    "olmo_hybrid": ("OlmoHybridConfig", {**LLAMA, **LINEAR, "layer_types": MIXED}),
    "persimmon": ("PersimmonConfig", {k: v for k, v in LLAMA.items() if "key" not in k and k != "head_dim"}),
    "qwen3_5": ("Qwen3_5TextConfig", {**LLAMA, **LINEAR, "layer_types": MIXED}),
    "xglm": (
        "XGLMConfig",
        {"d_model": WIDTH, "ffn_dim": 48, "num_layers": LAYERS, "attention_heads": HEADS},
    ),
}
# families whose heads are exactly pattern times values
PLAIN = (
    "apertus",
    "biogpt",
    "gemma4",
    "gpt_bigcode",
    "gpt_bigcode_heads",
    "hyperclovax",
    "persimmon",
    "xglm",
)


def build(kind, settings):
    ids = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, kind)(**settings, **ids)
    torch.manual_seed(0)
    model = randomised(transformers.AutoModelForCausalLM.from_config(config).eval())
    return load_model(model, tokenizer=tiny_tokenizer(), check=False, allow_hooks=True)


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_self_check_passes_and_every_site_has_its_shape(name):
    model = build(*FAMILIES[name])
    model.check()
    ids = torch.randint(7, VOCAB, (2, 9), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    places = [SiteAt(s, x) for s, i in SITES.items() for x in (range(LAYERS) if i.layered else (None,))]
    places = [at for at in places if at.site != "lens" and model.engine.available(at) is None]
    assert {"resid_pre", "resid_post", "attn_out", "mlp_out"} <= {at.site for at in places}
    got = model.forward(ids, mask, sites=places)
    for at, value in got.items():
        width = model.site_shape(at)
        assert value.shape == (2, 9, *(9 if w == -1 else w for w in width)), at
    if name not in PLAIN:
        return
    for layer in range(LAYERS):
        pattern, values = got[SiteAt("attn_pattern", layer)], got[SiteAt("v", layer)]
        if name == "gemma4":
            values = values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + 1e-6)
        repeated = values.repeat_interleave(HEADS // values.shape[2], 2)
        want = torch.einsum("bqhk,bkhd->bqhd", pattern, repeated)
        assert difference(got[SiteAt("head_out", layer)], want) < 1e-5


def test_queries_are_told_from_the_gate_behind_them():
    model = build(*FAMILIES["qwen3_5"])
    projection = model.hf.get_submodule(model.anatomy.blocks[1].qkv[0])
    seen = []
    projection.register_forward_hook(lambda module, args, out: seen.append(out))
    ids = torch.full((1, 4), 9)
    at = SiteAt("q", 1)
    got = model.forward(ids, torch.ones_like(ids), sites=[at])[at]
    assert torch.equal(got, seen[0].unflatten(-1, (HEADS, 2, 8))[..., 0, :])


def test_a_block_without_attention_says_so():
    model = build(*FAMILIES["qwen3_5"])
    with pytest.raises(LayerprobeError, match=r"no head_out\[0\]: its block mixes tokens otherwise"):
        model.parse_sites("head_out")
    assert model.site_shape("head_out") == (HEADS, 8)
    assert [str(at) for at in model.parse_sites("head_out[1]")] == ["head_out[1]"]


@pytest.mark.parametrize(
    "kind, settings, lacks, has",
    [
        (
            "GraniteMoeHybridConfig",
            {**GRANITE_4, "num_experts_per_tok": 2, "num_local_experts": 4},
            "mlp",
            "attn",
        ),
        ("FalconH1Config", {**LLAMA, **MAMBA, "mamba_d_ssm": 64}, "attn", "mlp"),
    ],
)
def test_a_branch_of_two_modules_has_no_site(kind, settings, lacks, has):
    model = build(kind, settings)
    model.check()
    with pytest.raises(LayerprobeError, match=rf"no {lacks}_out\[0\]: the sum of .* is added, by no module"):
        model.parse_sites(f"{lacks}_out[0]")
    ids = torch.full((1, 6), 9)
    names = ("resid_pre", "resid_mid", "resid_post", f"{has}_out")
    sites = [SiteAt(name, 1) for name in names]
    pre, mid, post, out = model.forward(ids, torch.ones_like(ids), sites=sites).values()
    assert difference(out, mid - pre if has == "attn" else post - mid) < 1e-5


def test_several_streams_are_refused_by_name():
    settings = {**LATENT, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 24}
    model = build("DeepseekV4Config", {**settings, "o_lora_rank": 8, "o_groups": 2, "index_head_dim": 16})
    with pytest.raises(LayerprobeError, match=r"resid_post\[0\] has shape \[1, \d+, 4, 32\], expected"):
        model.check()
