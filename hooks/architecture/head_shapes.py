"""How many heads, and how wide, each headed site of a block has: read off the projections, since a
configuration names one width where a family has several (multi-head latent attention, layers that differ)."""

from typing import Any

from torch import nn

from .block_parts import BlockParts

Shape = tuple[int, int]


def head_shapes(parts: BlockParts, root: nn.Module, usual: dict[str, Shape]) -> dict[str, Shape]:
    """(heads, width of a head) of `head_out`, `q`, `k` and `v` in one block; empty without attention.

    Args:
        parts: of the block.
        root: the model.
        usual: what the configuration says, kept where a projection does not tell its width.
    """
    if parts.attention is None:
        return {}
    heads = usual["q"][0]
    shapes = dict(usual)
    inner = _width(root, parts.o_proj, "in")
    if inner and inner % heads == 0:
        shapes["head_out"] = heads, inner // heads
    if len(parts.qkv) != 3:
        return shapes
    query, key, value = (_width(root, path, "out") for path in parts.qkv)
    if not query or not key or not value or query % heads:
        return shapes
    # a gate that rides behind each head's query makes the projection twice as wide (Qwen3-Next)
    gated = query == 2 * inner and shapes["head_out"] == usual["q"]
    width = usual["q"][1] if gated else query // heads
    if key % width == 0 and value % (key // width) == 0:
        shapes |= {"q": (heads, width), "k": (key // width, width), "v": (key // width, value * width // key)}
    return shapes


def _width(root: nn.Module, path: str | None, side: str) -> int:
    """Features into or out of a projection; 0 where it does not say."""
    if path is None:
        return 0
    module: Any = root.get_submodule(path)
    named = getattr(module, f"{side}_features", None)
    if named is None and hasattr(module, "nf"):  # GPT-2's Conv1D keeps [in, out]
        named = module.weight.shape[0 if side == "in" else 1]
    return int(named or 0)
