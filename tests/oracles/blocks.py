"""Every site recomputed in float64 from the weights, without hooks: what the engines are held to.

The stream before each block and the attention probabilities are transformers' own outputs of a float64 eager
pass (`output_hidden_states`, `output_attentions`); the rest follows from the state dict by a plain formula.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerprobe.hooks.sites import SiteAt

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """Where an architecture keeps the weights of block {l}, and how it combines them; None where it has no
    such part."""

    block: str
    qkv: tuple[str, ...]
    out: str
    norm1: str | None
    norm2: str | None
    mlp: Callable[[Weights, str, Tensor, Any], tuple[Tensor | None, Tensor, Tensor | None]]
    post1: str | None = None
    post2: str | None = None
    norm: str = "rms"
    order: str = "blocks"
    parallel: bool = False
    encoder: bool = False
    transposed: bool = False
    scale: str | None = None  # the setting that each branch is multiplied by before it is added


def norm(kind: str, weights: Weights, name: str | None, x: Tensor, eps: float) -> Tensor:
    """The norm of that name; x where there is none."""
    if name is None or (f"{name}.weight") not in weights:
        return x
    weight = weights[f"{name}.weight"]
    if kind == "layer":
        return F.layer_norm(x, x.shape[-1:], weight, weights.get(f"{name}.bias"), eps)
    scaled = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return scaled * (1 + weight if kind == "rms1" else weight)


def linear(weights: Weights, name: str, x: Tensor, transposed: bool = False) -> Tensor:
    """x Wᵀ + b; GPT-2 keeps W transposed."""
    weight = weights[f"{name}.weight"]
    y = x @ (weight if transposed else weight.T)
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def activation(config: Any) -> Callable[[Tensor], Tensor]:
    """The MLP's non-linearity by the name in the configuration."""
    names = ("hidden_act", "hidden_activation", "activation_function", "activation")
    unnamed = "gelu" if config.model_type == "mpt" else "gelu_tanh"
    name = next((getattr(config, n) for n in names if isinstance(getattr(config, n, None), str)), unnamed)
    tanh = partial(F.gelu, approximate="tanh")
    table = {"silu": F.silu, "relu": F.relu, "gelu": F.gelu, "gelu_new": tanh, "gelu_pytorch_tanh": tanh}
    return table.get(name, tanh)


def two_layer(up: str, down: str, transposed: bool = False) -> Callable[..., Any]:
    def mlp(w: Weights, block: str, x: Tensor, config: Any) -> tuple[Tensor, Tensor, None]:
        act = activation(config)(linear(w, f"{block}{up}", x, transposed))
        return act, linear(w, f"{block}{down}", act, transposed), None

    return mlp


def gated(w: Weights, block: str, x: Tensor, config: Any) -> tuple[Tensor, Tensor, None]:
    if f"{block}mlp.gate_up_proj.weight" in w:  # Phi-3
        gate, up = linear(w, f"{block}mlp.gate_up_proj", x).chunk(2, -1)
    else:
        gate, up = linear(w, f"{block}mlp.gate_proj", x), linear(w, f"{block}mlp.up_proj", x)
    act = activation(config)(gate) * up
    return act, linear(w, f"{block}mlp.down_proj", act), None


def modernbert_mlp(w: Weights, block: str, x: Tensor, config: Any) -> tuple[Tensor, Tensor, None]:
    value, gate = linear(w, f"{block}mlp.Wi", x).chunk(2, -1)
    act = F.gelu(value) * gate
    return act, linear(w, f"{block}mlp.Wo", act), None


def experts(
    w: Weights, block: str, x: Tensor, config: Any, moe: str = "mlp", router: str = "gate"
) -> tuple[None, Tensor, Tensor]:
    """Mixture of experts, one token and expert at a time."""
    logits = x @ w[f"{block}{moe}.{router}.weight"].T
    shares, chosen = logits.softmax(-1).topk(config.num_experts_per_tok, -1)
    if getattr(config, "norm_topk_prob", True):
        shares = shares / shares.sum(-1, keepdim=True)
    gate_up, down = w[f"{block}{moe}.experts.gate_up_proj"], w[f"{block}{moe}.experts.down_proj"]
    out = torch.zeros_like(x)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:2])).tolist():
        b, t = index
        for share, expert in zip(shares[b, t], chosen[b, t], strict=True):
            gate, up = (gate_up[expert] @ x[b, t]).chunk(2)
            out[b, t] += share * (down[expert] @ (activation(config)(gate) * up))
    return None, out, logits


_LLAMA = Family(
    "model.layers.{l}.",
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj",
    "input_layernorm",
    "post_attention_layernorm",
    gated,
)


def like_llama(**changes: Any) -> Family:
    return Family(**{**_LLAMA.__dict__, **changes})


_SANDWICH = {"post1": "post_attention_layernorm", "post2": "post_feedforward_layernorm"}
_GEMMA = like_llama(norm2="pre_feedforward_layernorm", norm="rms1", **_SANDWICH)
_NEOX = Family(
    "gpt_neox.layers.{l}.",
    ("attention.query_key_value",),
    "attention.dense",
    "input_layernorm",
    "post_attention_layernorm",
    two_layer("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    norm="layer",
    order="per_head",
    parallel=True,
)
_FALCON = Family(
    "transformer.h.{l}.",
    ("self_attention.query_key_value",),
    "self_attention.dense",
    "input_layernorm",
    "input_layernorm",
    two_layer("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    norm="layer",
    order="per_group",
    parallel=True,
)
_OPT = Family(
    "model.decoder.layers.{l}.",
    _LLAMA.qkv,
    "self_attn.out_proj",
    "self_attn_layer_norm",
    "final_layer_norm",
    two_layer("fc1", "fc2"),
    norm="layer",
)
_BERT = Family(
    "encoder.layer.{l}.",
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "attention.output.LayerNorm",
    "output.LayerNorm",
    two_layer("intermediate.dense", "output.dense"),
    norm="layer",
    encoder=True,
)

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    **dict.fromkeys(("mixtral", "qwen3_moe"), like_llama(mlp=experts)),
    **dict.fromkeys(("gemma2", "gemma3"), _GEMMA),
    "granite": like_llama(scale="residual_multiplier"),
    "granite_moe": like_llama(
        mlp=partial(experts, moe="block_sparse_moe", router="router"), scale="residual_multiplier"
    ),
    "phi3": like_llama(qkv=("self_attn.qkv_proj",)),
    "stablelm": like_llama(norm="layer"),
    "cohere2": like_llama(norm="layer", norm2="input_layernorm", parallel=True),
    "glm4": like_llama(post1="post_self_attn_layernorm", post2="post_mlp_layernorm"),
    "mpt": Family(
        "transformer.blocks.{l}.",
        ("attn.Wqkv",),
        "attn.out_proj",
        "norm_1",
        "norm_2",
        two_layer("ffn.up_proj", "ffn.down_proj"),
        norm="layer",
    ),
    "olmo2": like_llama(norm1=None, norm2=None, **_SANDWICH),
    "gpt2": Family(
        "transformer.h.{l}.",
        ("attn.c_attn",),
        "attn.c_proj",
        "ln_1",
        "ln_2",
        two_layer("mlp.c_fc", "mlp.c_proj", transposed=True),
        norm="layer",
        transposed=True,
    ),
    "gpt_neox": _NEOX,
    "gpt_neox_sequential": Family(**{**_NEOX.__dict__, "parallel": False}),
    "opt": _OPT,
    "opt_350m": Family(**{**_OPT.__dict__, "encoder": True}),
    "bloom": Family(
        **{**_FALCON.__dict__, "norm2": "post_attention_layernorm", "order": "per_head", "parallel": False}
    ),
    "falcon": _FALCON,
    "falcon_new": Family(**{**_FALCON.__dict__, "norm1": "ln_attn", "norm2": "ln_mlp"}),
    "bert": _BERT,
    "roberta": _BERT,
    "modernbert": Family(
        "layers.{l}.",
        ("attn.Wqkv",),
        "attn.Wo",
        "attn_norm",
        "mlp_norm",
        modernbert_mlp,
        norm="layer",
    ),
    "gemma3_multimodal": Family(**{**_GEMMA.__dict__, "block": "model.language_model.layers.{l}."}),
    "qwen2_5_vl": like_llama(block="model.language_model.layers.{l}."),
}


def split_qkv(family: Family, w: Weights, block: str, x: Tensor, sizes: tuple[int, int, int]) -> list[Tensor]:
    """Queries, keys and values [B, T, heads, d_head] out of their projections, as each family orders them."""
    n, kv, d = sizes
    if len(family.qkv) == 3:
        return [linear(w, block + name, x).unflatten(-1, (-1, d)) for name in family.qkv]
    fused = linear(w, block + family.qkv[0], x, family.transposed)
    if family.order == "blocks":
        return [part.unflatten(-1, (-1, d)) for part in fused.split([n * d, kv * d, kv * d], -1)]
    per = 1 if family.order == "per_head" else n // kv
    groups = fused.unflatten(-1, (-1, per + 2, d))
    return [groups[..., :per, :].flatten(2, 3), groups[..., per, :], groups[..., per + 1, :]]


def reference(name: str, folder: Path, ids: Tensor, mask: Tensor) -> dict[SiteAt, Tensor]:
    """Every site of every layer, float64, for a tiny model of `tiny_models.ARCHITECTURES`."""
    model = load_double(folder)
    family, config = FAMILIES[name], model.config.get_text_config(decoder=True)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    w = {key: value.detach() for key, value in model.state_dict().items()}
    states = out.hidden_states
    n_layers, n = len(states) - 1, out.attentions[0].shape[1]
    values = {SiteAt("embed"): states[0]}
    for layer in range(n_layers):
        block = family.block.format(l=layer)
        at = partial(SiteAt, layer=layer)
        found = _block(family, w, block, states[layer], out.attentions[layer], config, n)
        values |= {at(site): value for site, value in found.items()}
        # transformers' last hidden state is after the final norm (of OPT-350m, after a projection)
        if layer < n_layers - 1 or name in ("bert", "roberta"):
            values[at("resid_post")] = states[layer + 1]
    if "logits" in out:
        values[SiteAt("logits")] = out.logits
    if name not in ("bert", "roberta", "opt_350m"):
        values[SiteAt("final_norm")] = states[-1]
    return values


def load_double(folder: Path) -> Any:
    """The model in float64, eager, in whichever class the folder names."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    # the fast mixture-of-experts kernel has no float64
    experts = (
        {"experts_implementation": "eager"}
        if "moe" in config.model_type or "mixtral" in config.model_type
        else {}
    )
    return kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", **experts).eval()


def _block(
    family: Family, w: Weights, block: str, x: Tensor, pattern: Tensor, config: Any, n: int
) -> dict[str, Tensor]:
    eps = next(
        getattr(config, e)
        for e in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "model_type")
        if hasattr(config, e)
    )
    eps = 1e-5 if isinstance(eps, str) else eps  # OPT keeps torch's default
    normed = partial(norm, family.norm, w, eps=eps)
    name = {k: v and block + v for k, v in vars(family).items() if k in ("norm1", "norm2", "post1", "post2")}
    h = x if family.encoder else normed(name["norm1"], x)
    kv, d = _kv_and_width(family, w, block, config, n)
    q, k, v = split_qkv(family, w, block, h, (n, kv, d))
    heads = torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(n // kv, 2))
    attn = linear(w, block + family.out, heads.flatten(2), family.transposed)
    attn = normed(name["post1"], attn) if name["post1"] else attn
    scale = getattr(config, family.scale) if family.scale else 1.0
    attn = scale * attn
    mid = normed(name["norm1"], x + attn) if family.encoder else x + attn
    mlp_in = mid if family.encoder else normed(name["norm2"], x if family.parallel else mid)
    act, mlp, router = family.mlp(w, block, mlp_in, config)
    mlp = scale * (normed(name["post2"], mlp) if name["post2"] else mlp)
    post = normed(name["norm2"], mid + mlp) if family.encoder else x + attn + mlp
    found = {
        "resid_pre": x,
        "q": q,
        "k": k,
        "v": v,
        "attn_pattern": pattern.transpose(1, 2),
        "head_out": heads,
    }
    found |= {"attn_out": attn, "mlp_out": mlp, "resid_post": post}
    if not family.parallel:
        found["resid_mid"] = mid
    return found | {
        key: value for key, value in (("mlp_act", act), ("router_logits", router)) if value is not None
    }


def _kv_and_width(family: Family, w: Weights, block: str, config: Any, n: int) -> tuple[int, int]:
    out = w[f"{block}{family.out}.weight"]
    d = (out.shape[0] if family.transposed else out.shape[1]) // n
    if len(family.qkv) == 3:
        return w[f"{block}{family.qkv[1]}.weight"].shape[0] // d, d
    rows = w[f"{block}{family.qkv[0]}.weight"].shape[1 if family.transposed else 0]
    return (rows // d - n) // 2, d
