"""The parts of one block, found by the names they go by. A new family usually needs one more word at the top
of this file."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from ..errors import LayerprobeError

# Names that the parts of a block go by, in order of preference. A new family usually needs one more word
# here.
ATTENTION = ("self_attn", "self_attention", "attn", "attention", "self_attention_layer")
# What some blocks of a hybrid have in attention's place: their heads, if any, are not softmax attention's
MIXER = ("linear_attn", "mamba", "conv")
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "mixer_mlp", "ff", "shared_mlp")
# Two modules whose sum is one branch: no module's output is what is added, so the branch has no site
MIXER_BESIDE = ("self_attn", "mamba")  # Falcon-H1
MLP_BESIDE = ("block_sparse_moe", "shared_mlp")  # Granite's shared experts
OUTPUT_PROJECTION = ("o_proj", "out_proj", "c_proj", "dense", "Wo", "wo")
DOWN_PROJECTION = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "Wo", "wo", "output_linear")
QUERY = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("wq", "wk", "wv"))
FUSED_QUERY = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv")
ROUTER = ("gate", "router")
FINAL_NORM = (
    "norm",
    "ln_f",
    "final_layer_norm",
    "final_layernorm",
    "final_norm",
    "norm_f",
    "ln_final",
    "layer_norm",
    "embedding_norm",
)
# The attribute of a block by which it multiplies what its sublayers return before adding it (Granite)
BRANCH_SCALE = ("residual_multiplier", "residual_scale")
# The norm before the MLP; `post_attention_layernorm` may be one too, see `_mid_norm`
MID_NORM = (
    "pre_feedforward_layernorm",
    "ln_2",
    "mlp_norm",
    "ffn_norm",
    "norm2",
    "norm_2",
    "feedforward_layernorm",
    "pre_ff_layernorm",
    "pre_mlp_layernorm",
)
# How a fused query-key-value projection orders its output, by config.model_type:
# blocks: all queries, all keys, all values; per_head: q, k, v of head 0, then of head 1, ...;
# per_group: the queries of one key/value head, its key, its value, then the next group.
FUSED_ORDER = {
    "gpt2": "blocks",
    "gpt_bigcode": "blocks",  # with one key/value head; per_head without
    "phi3": "blocks",
    "modernbert": "blocks",
    "openai-gpt": "blocks",
    "mpt": "blocks",
    "gpt_neox": "per_head",
    "bloom": "per_head",
    "persimmon": "per_head",
    "falcon": "per_group",
}


@dataclass(frozen=True)
class BlockParts:
    """The parts of one block, as module paths from the root; None where the block has no such part.

    Attributes:
        block: the block itself.
        attention, mlp: the two sublayers; attention is None where a hybrid has another mixer in its place.
        attn_out, mlp_out: the module whose output, times `branch_scale`, is what the sublayer adds to the
            stream (a post-norm where there is one); None where the sum of two modules is.
        mid_norm: the module whose *input* is the stream between the sublayers (resid_mid), or, for
            `mid_is_output`, whose output is it. None for parallel blocks.
        o_proj, down_proj: the output projections of attention and MLP.
        qkv: (query, key, value) projections, or the one fused projection.
        router: the mixture-of-experts router.
        branch_scale: factor on what either sublayer returns.
        shapes: (heads, width of a head) of `head_out`, `q`, `k` and `v`.
    """

    block: str
    attention: str | None = None
    mlp: str | None = None
    attn_out: str | None = None
    mlp_out: str | None = None
    mid_norm: str | None = None
    mid_is_output: bool = False
    o_proj: str | None = None
    down_proj: str | None = None
    qkv: tuple[str, ...] = ()
    router: str | None = None
    branch_scale: float = 1.0
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)


def child(module: nn.Module, names: tuple[str, ...], prefix: str) -> str | None:
    """Path of the first of these children that the module has."""
    for name in names:
        if isinstance(getattr(module, name, None), nn.Module):
            return f"{prefix}.{name}" if prefix else name
    return None


def find_parts(block: nn.Module, path: str, parallel: bool) -> BlockParts:
    """The parts of the block at `path`.

    Raises:
        LayerprobeError: it holds neither attention nor another mixer of tokens.
    """
    attention = child(block, ATTENTION, path)
    mixer = attention or child(block, MIXER, path)
    if mixer is None:
        looked = ", ".join((*ATTENTION, *MIXER))
        raise LayerprobeError(f"no attention or other mixer in block {path}: looked for {looked}")
    if attention is not None and hasattr(block, "intermediate") and hasattr(block, "output"):
        return _encoder_parts(block, path, attention)
    attn = block.get_submodule(mixer[len(path) + 1 :])
    inner = child(attn, ("attention", "attn"), mixer)  # GPT-Neo keeps the projections one level down
    holder, holder_path = (attn.get_submodule(inner[len(mixer) + 1 :]), inner) if inner else (attn, mixer)
    mlp = child(block, MLP, path)
    down_holder, down_prefix = (block.get_submodule(mlp[len(path) + 1 :]), mlp) if mlp else (block, path)
    down = child(down_holder, DOWN_PROJECTION, down_prefix)
    o_proj = child(holder, OUTPUT_PROJECTION, holder_path) if attention else None
    post_attn, post_mlp = _post_norms(block, path)
    attn_out = post_attn or (o_proj if _takes_residual(attn) else mixer)
    mlp_out = post_mlp or (down if mlp is None or _takes_residual(down_holder) else mlp)
    # BLOOM's sublayers, and MPT's MLP, return the stream itself: they add the output of their last projection
    normed_after = getattr(block, "do_layer_norm_before", True) is False  # OPT-350m
    return BlockParts(
        block=path,
        attention=attention,
        mlp=mlp,
        attn_out=None if _both(block, MIXER_BESIDE) else attn_out,
        mlp_out=None if _both(block, MLP_BESIDE) else mlp_out,
        mid_norm=f"{path}.self_attn_layer_norm" if normed_after else _mid_norm(block, path, post_attn, mlp),
        mid_is_output=normed_after,
        o_proj=o_proj,
        down_proj=down,
        qkv=_find_qkv(holder, holder_path) if attention else (),
        router=child(down_holder, ROUTER, down_prefix) if hasattr(down_holder, "experts") else None,
        branch_scale=_branch_scale(block),
    )


def _branch_scale(block: nn.Module) -> float:
    """1 where branches are added as they are; a scale of 0 or one per channel is left to the self-check."""
    found = (getattr(block, name, None) for name in BRANCH_SCALE)
    return next((float(scale) for scale in found if isinstance(scale, (int, float)) and scale), 1.0)


def _both(block: nn.Module, names: tuple[str, str]) -> bool:
    return all(isinstance(getattr(block, name, None), nn.Module) for name in names)


def _takes_residual(module: nn.Module) -> bool:
    return "residual" in inspect.signature(type(module).forward).parameters


def _encoder_parts(block: nn.Module, path: str, attention: str) -> BlockParts:
    """BERT's block: attention.self, attention.output.dense, intermediate, output.dense; norms after each
    sum."""
    inner = block.get_submodule(f"{attention[len(path) + 1 :]}.self")
    return BlockParts(
        block=path,
        attention=f"{attention}.self",
        mlp=f"{path}.output",
        attn_out=f"{attention}.output.dense",
        mlp_out=f"{path}.output.dense",
        mid_norm=attention,
        mid_is_output=True,
        o_proj=f"{attention}.output.dense",
        down_proj=f"{path}.output.dense",
        qkv=_find_qkv(inner, f"{attention}.self"),
    )


def _post_norms(block: nn.Module, path: str) -> tuple[str | None, str | None]:
    """Norms on what the sublayers return: Gemma-2/3 and OLMo-2 call the one of attention
    `post_attention_layernorm`, a name that in Llama belongs to the norm before the MLP (and in GLM-4 beside
    both); a norm on what the MLP returns tells them apart.
    """
    post_mlp = child(block, ("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2"), path)
    names = ("post_self_attn_layernorm", "post_norm1", "post_attention_layernorm")
    return (child(block, names, path), post_mlp) if post_mlp else (None, None)


def _mid_norm(block: nn.Module, path: str, post_attn: str | None, mlp: str | None) -> str | None:
    names: tuple[str, ...] = MID_NORM
    if hasattr(block, "fc1"):
        names = (*names, "final_layer_norm")  # OPT
    if post_attn != f"{path}.post_attention_layernorm":
        names = (*names, "post_attention_layernorm")
    found = child(block, names, path)
    if found is None and post_attn is not None:
        return mlp  # OLMo-2: nothing stands before the MLP
    return found


def _find_qkv(attn: nn.Module, path: str) -> tuple[str, ...]:
    for names in QUERY:
        if all(isinstance(getattr(attn, name, None), nn.Module) for name in names):
            return tuple(f"{path}.{name}" for name in names)
    fused = child(attn, FUSED_QUERY, path)
    return (fused,) if fused else ()
