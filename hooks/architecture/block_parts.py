"""The parts of one block, found by the names they go by (names.py)."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from ..errors import LayerprobeError
from .names import MIXER_BESIDE, MLP_BESIDE, Names, Words


@dataclass(frozen=True)
class BlockParts:
    """The parts of one block, as module paths from the root; None where the block has no such part.

    Attributes:
        block: the block itself.
        attention, mlp: the two sublayers; attention is None where a hybrid has another mixer in its place.
        attn_out, mlp_out: the module whose output, times `branch_scale`, is what the sublayer adds to the
            stream (a post-norm where there is one); None where the sum of two modules is.
        mixer_out: the same of a mixer that is no attention, where the block has one.
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
    mixer_out: str | None = None
    mid_norm: str | None = None
    mid_is_output: bool = False
    o_proj: str | None = None
    down_proj: str | None = None
    qkv: tuple[str, ...] = ()
    router: str | None = None
    branch_scale: float = 1.0
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)


def child(module: nn.Module, names: Words, prefix: str) -> str | None:
    """Path of the first of these children that the module has."""
    for name in names:
        if isinstance(getattr(module, name, None), nn.Module):
            return f"{prefix}.{name}" if prefix else name
    return None


def find_parts(block: nn.Module, path: str, names: Names) -> BlockParts:
    """The parts of the block at `path`.

    Raises:
        LayerprobeError: it holds neither attention nor another mixer of tokens.
    """
    attention = child(block, names.words("attention"), path)
    mixer = attention or child(block, names.words("mixer"), path)
    if mixer is None:
        looked = ", ".join((*names.words("attention"), *names.words("mixer")))
        raise LayerprobeError(f"no attention or other mixer in block {path}: looked for {looked}")
    if attention is not None and hasattr(block, "intermediate") and hasattr(block, "output"):
        return _encoder_parts(block, path, attention, names)
    attn = block.get_submodule(mixer[len(path) + 1 :])
    inner = child(attn, ("attention", "attn"), mixer)  # GPT-Neo keeps the projections one level down
    holder, holder_path = (attn.get_submodule(inner[len(mixer) + 1 :]), inner) if inner else (attn, mixer)
    mlp = child(block, names.words("mlp"), path)
    down_holder, down_prefix = (block.get_submodule(mlp[len(path) + 1 :]), mlp) if mlp else (block, path)
    down = child(down_holder, names.words("down_projection"), down_prefix)
    o_proj = child(holder, names.words("output_projection"), holder_path) if attention else None
    post_attn, post_mlp = _post_norms(block, path, names)
    attn_out = post_attn or (o_proj if _takes_residual(attn) else mixer)
    mlp_out = post_mlp or (down if mlp is None or _takes_residual(down_holder) else mlp)
    # BLOOM's sublayers, and MPT's MLP, return the stream itself: they add the output of their last projection
    normed_after = getattr(block, "do_layer_norm_before", True) is False  # OPT-350m
    only_mixer = attention is None and mlp is None and down is None  # Mamba: one branch, and no attention
    return BlockParts(
        block=path,
        attention=attention,
        mlp=mlp,
        mixer_out=None if attention else attn_out,
        attn_out=None if only_mixer or _both(block, MIXER_BESIDE) else attn_out,
        mlp_out=None if _both(block, MLP_BESIDE) else mlp_out,
        mid_norm=f"{path}.self_attn_layer_norm"
        if normed_after
        else _mid_norm(block, path, post_attn, mlp, names),
        mid_is_output=normed_after,
        o_proj=o_proj,
        down_proj=down,
        qkv=_find_qkv(holder, holder_path, names) if attention else (),
        router=child(down_holder, names.words("router"), down_prefix)
        if hasattr(down_holder, "experts")
        else None,
        branch_scale=_branch_scale(block, names.words("branch_scale")),
    )


def _branch_scale(block: nn.Module, names: Words) -> float:
    """1 where branches are added as they are; a scale of 0 or one per channel is left to the self-check."""
    found = (getattr(block, name, None) for name in names)
    return next((float(scale) for scale in found if isinstance(scale, (int, float)) and scale), 1.0)


def _both(block: nn.Module, names: Words) -> bool:
    return all(isinstance(getattr(block, name, None), nn.Module) for name in names)


def _takes_residual(module: nn.Module) -> bool:
    return "residual" in inspect.signature(type(module).forward).parameters


def _encoder_parts(block: nn.Module, path: str, attention: str, names: Names) -> BlockParts:
    """BERT's block: attention.self, attention.output.dense, intermediate, output.dense; norms after each
    sum."""
    holder = block.get_submodule(attention[len(path) + 1 :])
    inner = child(holder, ("self", *names.words("attention")), attention) or attention
    module = block.get_submodule(inner[len(path) + 1 :])
    beside = f"{attention}.output.dense" if hasattr(holder, "output") else None  # MPNet keeps it within
    return BlockParts(
        block=path,
        attention=inner,
        mlp=f"{path}.output",
        attn_out=beside or inner,
        mlp_out=f"{path}.output.dense",
        mid_norm=attention,
        mid_is_output=True,
        o_proj=beside or child(module, names.words("output_projection"), inner),
        down_proj=f"{path}.output.dense",
        qkv=_find_qkv(module, inner, names),
    )


def _post_norms(block: nn.Module, path: str, names: Names) -> tuple[str | None, str | None]:
    """Norms on what the sublayers return: Gemma-2/3 and OLMo-2 call the one of attention
    `post_attention_layernorm`, a name that in Llama belongs to the norm before the MLP (and in GLM-4 beside
    both); a norm on what the MLP returns tells them apart.
    """
    post_mlp = child(block, names.words("post_mlp_norm"), path)
    return (child(block, names.words("post_attention_norm"), path), post_mlp) if post_mlp else (None, None)


def _mid_norm(
    block: nn.Module, path: str, post_attn: str | None, mlp: str | None, names: Names
) -> str | None:
    words = names.words("mid_norm")
    if hasattr(block, "fc1"):
        words = (*words, "final_layer_norm")  # OPT
    if post_attn != f"{path}.post_attention_layernorm":
        words = (*words, "post_attention_layernorm")
    found = child(block, words, path)
    if found is None and post_attn is not None:
        return mlp  # OLMo-2: nothing stands before the MLP
    return found


def _find_qkv(attn: nn.Module, path: str, names: Names) -> Words:
    for triple in names.triples():
        if all(isinstance(getattr(attn, name, None), nn.Module) for name in triple):
            return tuple(f"{path}.{name}" for name in triple)
    fused = child(attn, names.words("fused_query"), path)
    return (fused,) if fused else ()
