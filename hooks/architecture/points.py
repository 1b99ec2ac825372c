"""Which module's input or output carries a site, and how its tensor is read as [batch, tokens, *shape]."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import LayerprobeError
from ..sites import SiteAt
from .anatomy import Anatomy
from .block_parts import BlockParts

View = Callable[[Tensor, tuple[int, int]], Tensor]


@dataclass(frozen=True)
class Point:
    """One side of one module, and the part of it that is the site.

    Attributes:
        path: the module, from the root.
        side: "in" (first argument), "out" (first or only output), or "inside": computed within the module's
            own forward and caught there (attention probabilities; router logits, which the router itself goes
            on to use).
        view: (module tensor, (batch, tokens)) -> the site's values [batch, tokens, *shape].
        in_place: the model keeps a second reference to this tensor (the residual), so that an edit must
            change it in place.
        put: (module tensor, (batch, tokens), values) writes values into the tensor; None where `view` shares
            its memory.
        scale: the site's values are this times what `view` shows: the model multiplies by it further on.
    """

    path: str
    side: str
    view: View
    in_place: bool = False
    put: Callable[[Tensor, tuple[int, int], Tensor], object] | None = None
    scale: float = 1.0

    def values(self, tensor: Tensor, tokens: tuple[int, int]) -> Tensor:
        """The site's values out of the module's tensor."""
        seen = self.view(tensor, tokens)
        return seen if self.scale == 1.0 else seen * self.scale

    def replaced(self, tensor: Tensor, tokens: tuple[int, int], values: Tensor) -> Tensor:
        """The module's tensor with the site's part replaced: a new tensor, or the same one for `in_place`."""
        if self.scale != 1.0:
            seen = self.view(tensor, tokens)
            # what an edit leaves alone must not be rounded by a division and a multiplication
            values = torch.where(values == seen * self.scale, seen, values / self.scale)
        target = tensor if self.in_place else tensor.clone()
        if self.put is not None:
            self.put(target, tokens, values)
        else:
            self.view(target, tokens).copy_(values)
        return target


def _stream(tensor: Tensor, tokens: tuple[int, int]) -> Tensor:
    return tensor.view(*tokens, tensor.shape[-1]) if tensor.dim() == 2 else tensor


def _heads(tensor: Tensor, tokens: tuple[int, int], *, n: int) -> Tensor:
    return rearrange(_stream(tensor, tokens), "... (heads d_head) -> ... heads d_head", heads=n)


def _queries(tensor: Tensor, tokens: tuple[int, int], *, n: int, d: int) -> Tensor:
    return _heads(tensor, tokens, n=n)[..., :d]  # a gate may ride behind each head's query


def _pattern(tensor: Tensor, tokens: tuple[int, int]) -> Tensor:
    if tensor.dim() == 3:  # XGLM folds the heads into the batch
        tensor = rearrange(tensor, "(batch heads) query key -> batch heads query key", batch=tokens[0])
    if tensor.dim() != 4:
        raise LayerprobeError(
            f"attn_pattern: the first softmax within this attention has shape {tuple(tensor.shape)}, not "
            "[batch, heads, query, key], so the pattern of this architecture cannot be read"
        )
    return rearrange(tensor, "batch heads query key -> batch query heads key")


def _pattern_without_sink(tensor: Tensor, tokens: tuple[int, int]) -> Tensor:
    return _pattern(tensor[..., :-1], tokens)


def _blocks(tensor: Tensor, tokens: tuple[int, int], *, start: int, width: int, d: int) -> Tensor:
    heads = rearrange(tensor, "batch token (heads d_head) -> batch token heads d_head", d_head=d)
    return heads[:, :, start : start + width]


def _per_head(tensor: Tensor, tokens: tuple[int, int], *, part: int, n: int) -> Tensor:
    heads = rearrange(
        tensor, "batch token (heads qkv d_head) -> batch token heads qkv d_head", heads=n, qkv=3
    )
    return heads[:, :, :, part]


def _group(tensor: Tensor, tokens: tuple[int, int], *, part: int, n: int, n_kv: int) -> Tensor:
    groups = _grouped(tensor, n, n_kv)
    return groups[:, :, :, part - 3] if part else groups[:, :, :, :-2].flatten(2, 3)


def _put_queries(tensor: Tensor, tokens: tuple[int, int], values: Tensor, *, n: int, n_kv: int) -> None:
    # queries of several groups are not one strided view, so they are written group by group
    new = rearrange(values, "batch token (groups head) d_head -> batch token groups head d_head", groups=n_kv)
    _grouped(tensor, n, n_kv)[:, :, :, :-2].copy_(new)


def _grouped(tensor: Tensor, n: int, n_kv: int) -> Tensor:
    """[batch, tokens, groups, queries + key + value, d_head] as a view of the fused projection's output."""
    return rearrange(
        tensor, "... (groups part d_head) -> ... groups part d_head", groups=n_kv, part=n // n_kv + 2
    )


def _fused_point(path: str, part: int, order: str, n: int, n_kv: int, d: int) -> Point:
    """Queries (part 0), keys (1) or values (2) out of a fused projection, see `anatomy.FUSED_ORDER`."""
    if order == "blocks":
        start, width = ((0, n), (n, n_kv), (n + n_kv, n_kv))[part]
        return Point(path, "out", partial(_blocks, start=start, width=width, d=d))
    if order == "per_head":
        return Point(path, "out", partial(_per_head, part=part, n=n))
    put = partial(_put_queries, n=n, n_kv=n_kv) if part == 0 else None
    return Point(path, "out", partial(_group, part=part, n=n, n_kv=n_kv), put=put)


def find_point(anatomy: Anatomy, model: nn.Module, at: SiteAt) -> Point:
    """Where a site is found.

    Raises:
        LayerprobeError: the model has no such site, saying why.
    """
    if at.site == "embed":
        return Point(anatomy.blocks[0].block, "in", _stream)
    if at.site == "final_norm":
        return Point(_need(anatomy.final_norm, at, "it has no final norm"), "out", _stream)
    if at.layer is None:
        raise LayerprobeError(f"site {at.site} needs a layer: write {at.site}[0]")
    return _block_point(anatomy, model, anatomy.blocks[at.layer], at)


def _block_point(anatomy: Anatomy, model: nn.Module, parts: BlockParts, at: SiteAt) -> Point:
    site = at.site
    if site in ("resid_pre", "resid_post", "lens"):
        return Point(parts.block, "in" if site == "resid_pre" else "out", _stream)
    if site == "resid_mid":
        why = (
            "attention and MLP of a parallel block read the same stream"
            if anatomy.parallel
            else "no norm before the MLP was found"
        )
        path = _need(parts.mid_norm, at, why)
        return (
            Point(path, "out", _stream) if parts.mid_is_output else Point(path, "in", _stream, in_place=True)
        )
    if site == "attn_out":
        why = "the sum of attention and another mixer is added, by no module"
        why = why if parts.attention or not parts.mixer_out else "it has no attention: read mixer_out"
        path = _need(parts.attn_out, at, why)
        return Point(path, "out", _stream, scale=parts.branch_scale)
    if site == "mixer_out":
        path = _need(parts.mixer_out, at, "its block mixes tokens by attention: read attn_out")
        return Point(path, "out", _stream, scale=parts.branch_scale)
    if site == "mlp_out":
        why = "the sum of two modules is added, by no module" if parts.mlp else "no MLP was found"
        path = _need(parts.mlp_out, at, why)
        return Point(path, "out", _stream, scale=parts.branch_scale)
    if site == "mlp_act":
        why = (
            "a mixture of experts has no single down projection"
            if parts.router
            else "no down projection was found"
        )
        return Point(_need(parts.down_proj, at, why), "in", _stream)
    if site == "head_out":
        path = _need(parts.o_proj, at, _no_heads(parts) or "no attention output projection was found")
        return Point(path, "in", partial(_heads, n=parts.shapes["head_out"][0]))
    if site == "router_logits":
        return Point(_need(parts.router, at, "it is dense (no mixture-of-experts router)"), "inside", _stream)
    if site == "attn_pattern":
        path = _need(parts.attention, at, _no_heads(parts))
        # GPT-OSS: one more column, of what is attended to nothing, which the model leaves off again
        sink = isinstance(getattr(model.get_submodule(path), "sinks", None), Tensor)
        return Point(path, "inside", _pattern_without_sink if sink else _pattern)
    return _qkv_point(anatomy, parts, at)


def _qkv_point(anatomy: Anatomy, parts: BlockParts, at: SiteAt) -> Point:
    part = "qkv".index(at.site)
    if len(parts.qkv) == 3:
        n, d = parts.shapes[at.site]
        view = partial(_heads, n=n) if part else partial(_queries, n=n, d=d)
        return Point(parts.qkv[part], "out", view)
    why = _no_heads(parts) or "no query, key and value projections were found"
    path = _need(parts.qkv[0] if parts.qkv else None, at, why)
    order = _need(
        anatomy.fused_order,
        at,
        "the order of its fused projection is not known: pass names=Names(fused_order=...)",
    )
    return _fused_point(path, part, order, anatomy.n_heads, anatomy.n_kv_heads, anatomy.d_head)


def _no_heads(parts: BlockParts) -> str:
    return "" if parts.attention else "its block mixes tokens otherwise than by attention"


def _need(path: str | None, at: SiteAt, why: str) -> str:
    if path is None:
        raise LayerprobeError(f"this model has no {at}: {why}")
    return path


def first(value: Any) -> Tensor:
    """The tensor of a module's output, which may be a tuple around it."""
    found: Tensor = value[0] if isinstance(value, (tuple, list)) else value
    return found


def with_first(value: Any, tensor: Tensor) -> Any:
    """The same output with its tensor replaced."""
    return (tensor, *value[1:]) if isinstance(value, (tuple, list)) else tensor
