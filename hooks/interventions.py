"""Edits of what passes through a model: add a vector, ablate, project out directions, patch in other values.

An intervention is a frozen description; `model.edit(...)` puts it in force on any engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .errors import LayerprobeError
from .sites import site_info

HEADED = ("head_out", "q", "k", "v", "attn_pattern")
Positions = int | slice | Sequence[int] | Tensor | None


@dataclass(frozen=True)
class EditContext:
    """Where in the texts the value being edited lies.

    Attributes:
        attention_mask: bool [batch, T], the real tokens of everything seen so far (prompt, then generated
            tokens).
        offset: tokens before the ones at hand (those in the cache, while generating).
        prompt_tokens: width of the prompt; spans and negative positions count within it.
    """

    attention_mask: Tensor
    offset: int = 0
    prompt_tokens: int | None = None

    def chosen(self, positions: Positions, tokens: int, device: torch.device) -> Tensor | None:
        """Bool [batch, tokens]: which tokens the positions name; None for all of them.

        Positions count real tokens of each row, whatever the padding side; negative ones count from the last
        prompt token.
        """
        if positions is None:
            return None
        mask = self.attention_mask.to(device=device, dtype=torch.bool)
        if isinstance(positions, Tensor) and positions.dtype == torch.bool:
            return _padded(positions.to(device), self.offset, tokens)
        width = self.prompt_tokens or mask.shape[1]
        order = mask.long().cumsum(1) - 1  # index of each real token in its own text
        lengths = mask[:, :width].sum(1, keepdim=True)
        named = _named(positions, order, lengths) & mask
        return named[:, self.offset : self.offset + tokens]


def _padded(chosen: Tensor, offset: int, tokens: int) -> Tensor:
    part = chosen[:, offset : offset + tokens]
    return torch.nn.functional.pad(part, (0, tokens - part.shape[1]))


def _named(positions: Positions, order: Tensor, lengths: Tensor) -> Tensor:
    if isinstance(positions, slice):
        start, stop = positions.start or 0, positions.stop
        if positions.step not in (None, 1):
            raise LayerprobeError(
                f"positions={positions}: a slice with a step is not supported, give a list of positions"
            )
        low = order >= (lengths + start if start < 0 else start)
        return low if stop is None else low & (order < (lengths + stop if stop < 0 else stop))
    if isinstance(positions, Tensor):  # one position per row
        wanted = positions.to(order.device).long().reshape(-1, 1)
        if len(wanted) != len(order):
            raise LayerprobeError(
                f"positions has {len(wanted)} entries for {len(order)} texts: give one position per text"
            )
        return order == torch.where(wanted < 0, lengths + wanted, wanted)
    several = [positions] if isinstance(positions, int) else list(positions or ())
    named = torch.zeros_like(order, dtype=torch.bool)
    for position in several:
        named |= order == (lengths + position if position < 0 else position)
    return named


@dataclass(frozen=True, eq=False)
class Intervention:
    """One edit at one site of one layer.

    Attributes:
        kind: "add", "ablate", "project_out" or "patch".
        site, layer: where; layer None for `embed` and `final_norm`.
        change: (value [batch, tokens, *shape], context) -> the value that every position and head would get.
        positions: which tokens: None (all), int, list of ints, slice, LongTensor [batch] or BoolTensor
            [batch, tokens].
        heads: which heads, for sites with a head axis; None for all.
        values: the tensor given, for checking its shape before a run; None where there is none.
        inert: it changes nothing (scale 0) and is left out of runs, so that not even the attention
            implementation is touched for it.
    """

    kind: str
    site: str
    layer: int | None
    change: Callable[[Tensor, EditContext], Tensor]
    positions: Positions = None
    heads: tuple[int, ...] | None = None
    values: Tensor | None = None
    inert: bool = False

    def apply(self, value: Tensor, context: EditContext) -> Tensor:
        """The edited value; where nothing is chosen the numbers are untouched, bit for bit.

        Args:
            value: [batch, tokens, *shape].
            context: where those tokens lie.
        """
        keep = self._mask(value, context)
        changed = self.change(value, context).to(value.dtype)
        return changed if keep is None else torch.where(keep, changed, value)

    def _mask(self, value: Tensor, context: EditContext) -> Tensor | None:
        chosen = context.chosen(self.positions, value.shape[1], value.device)
        shape = (1,) * (value.dim() - 2)
        mask = None if chosen is None else chosen.reshape(*chosen.shape, *shape)
        if self.heads is None:
            return mask
        heads = torch.zeros(value.shape[2], dtype=torch.bool, device=value.device)
        heads[list(self.heads)] = True
        per_head = heads.reshape(1, 1, -1, *shape[1:])
        return per_head if mask is None else mask & per_head


def add(
    site: str,
    *,
    layer: int | None = None,
    vector: Any,
    scale: float = 1.0,
    positions: Positions = None,
    heads: Sequence[int] | int | None = None,
) -> Intervention:
    """Add `scale * vector` to a site.

    Args:
        site: any site but `lens`.
        layer: block, counted from 0 (negative from the end); omitted for `embed` and `final_norm`.
        vector: array of the site's per-token shape (or broadcastable to it, e.g. [d_head] at `head_out`).
        scale: factor; 0 leaves the model unedited bit for bit.
        positions: tokens of each text: None (all, and each generated one), int, list, slice, LongTensor
            [batch], BoolTensor.
        heads: heads, for `head_out`, `q`, `k`, `v` and `attn_pattern`.
    """
    direction = as_tensor(vector, "vector")

    def change(value: Tensor, context: EditContext) -> Tensor:
        return value + scale * direction.to(device=value.device, dtype=value.dtype)

    built = _build("add", site, layer, change, positions, heads, direction)
    return built if scale else replace(built, inert=True)


def ablate(
    site: str,
    *,
    layer: int | None = None,
    how: str = "zero",
    values: Any = None,
    heads: Sequence[int] | int | None = None,
    positions: Positions = None,
) -> Intervention:
    """Replace a site's values by zero, by a mean, or by those of another text.

    Args:
        site: any site but `lens`.
        layer: block.
        how: "zero"; "mean": `values` is the mean, of the site's per-token shape (over a data set, so that the
            result does not
            depend on the batch); "resample": `values` are other texts' values, [batch, tokens, *shape] or
            [batch, *shape].
        values: see `how`.
        heads: heads to ablate; None for all. This acts on the *input* of the output projection when the site
            is `head_out`.
        positions: tokens, as in `add`.
    """
    if how not in ("zero", "mean", "resample"):
        raise LayerprobeError(f"how={how!r}: choose 'zero', 'mean' or 'resample'")
    if (values is None) != (how == "zero"):
        need = "takes no values" if how == "zero" else "needs values= (the mean, or the other texts' values)"
        raise LayerprobeError(f"how={how!r} {need}")
    other = None if values is None else as_tensor(values, "values")

    def change(value: Tensor, context: EditContext) -> Tensor:
        if other is None:
            return torch.zeros_like(value)
        new = other.to(device=value.device, dtype=value.dtype)
        return _aligned(new, value, context) if how == "resample" else new.expand_as(value)

    return _build("ablate", site, layer, change, positions, heads, other if how == "mean" else None)


def project_out(
    site: str,
    *,
    layer: int | None = None,
    directions: Any,
    positions: Positions = None,
    heads: Sequence[int] | int | None = None,
) -> Intervention:
    """Remove a direction, or the subspace that several span: x − Q Qᵀ x, Q orthonormal (Arditi et al. 2024,
    2406.11717).

    Args:
        site: any site but `lens` and `attn_pattern`.
        layer: block.
        directions: [width] or [k, width]; they need be neither normalised nor orthogonal.
        positions: tokens, as in `add`.
        heads: heads, where the site has them (directions then have the width of a head).
    """
    given = as_tensor(directions, "directions")
    rows = given.reshape(-1, given.shape[-1]).double()
    _, s, vt = torch.linalg.svd(rows, full_matrices=False)
    basis = vt[s > s.max() * 1e-10] if s.max() > 0 else vt[:0]
    if not len(basis):
        raise LayerprobeError("directions are all zero: there is nothing to project out")

    def change(value: Tensor, context: EditContext) -> Tensor:
        q = basis.to(device=value.device, dtype=torch.promote_types(value.dtype, torch.float32))
        x = value.to(q.dtype)
        return (x - (x @ q.T) @ q).to(value.dtype)

    return _build("project_out", site, layer, change, positions, heads, given.reshape(-1, given.shape[-1])[0])


def patch(
    site: str,
    *,
    layer: int | None = None,
    values: Any,
    positions: Positions = None,
    heads: Sequence[int] | int | None = None,
) -> Intervention:
    """Put in values from another run or from a store.

    Args:
        site: any site but `lens`.
        layer: block.
        values: [batch, tokens, *shape] (aligned token by token), [batch, *shape] (one value per text) or
            [*shape].
        positions: tokens to patch, as in `add`; with values for one token per text, say which.
        heads: heads to patch.
    """
    new = as_tensor(values, "values")

    def change(value: Tensor, context: EditContext) -> Tensor:
        return _aligned(new.to(device=value.device, dtype=value.dtype), value, context)

    return _build("patch", site, layer, change, positions, heads, None)


def _aligned(new: Tensor, value: Tensor, context: EditContext) -> Tensor:
    """Values given per text and token, per text, or once, brought to [batch, tokens, *shape]."""
    if new.dim() == value.dim():
        if new.shape[:2] == value.shape[:2] or new.shape[1] == 1:
            return new.expand_as(value)
        part = new[:, context.offset : context.offset + value.shape[1]]
        if part.shape[1] == value.shape[1]:
            return part.expand_as(value)
        return value  # generated tokens, beyond what was given
    if new.dim() == value.dim() - 1:
        return new.unsqueeze(1).expand_as(value)
    return new.expand_as(value)


def as_tensor(values: Any, name: str) -> Tensor:
    """A detached float tensor of an array, list or tensor.

    Raises:
        LayerprobeError: it is not numeric, or holds NaN or infinity.
    """
    try:
        tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise LayerprobeError(
            f"{name} is a {type(values).__name__}, not an array of numbers: {error}"
        ) from None
    tensor = tensor if tensor.is_floating_point() else tensor.float()
    if not torch.isfinite(tensor).all():
        raise LayerprobeError(f"{name} holds NaN or infinity: check where it came from")
    return tensor


def _build(
    kind: str,
    site: str,
    layer: int | None,
    change: Callable[[Tensor, EditContext], Tensor],
    positions: Positions,
    heads: Sequence[int] | int | None,
    values: Tensor | None,
) -> Intervention:
    info = site_info(site)
    if site == "lens":
        raise LayerprobeError("lens is a reading of resid_post, not a place in the model: edit resid_post")
    if info.layered and layer is None:
        raise LayerprobeError(f"{kind} at {site} needs layer=, for example layer=0")
    if not info.layered and layer is not None:
        raise LayerprobeError(f"{site} has no layers: leave layer out")
    if heads is not None and site not in HEADED:
        raise LayerprobeError(
            f"heads= given at {site}, which has no head axis: the sites with heads are {', '.join(HEADED)}"
        )
    chosen = None if heads is None else (heads,) if isinstance(heads, int) else tuple(int(h) for h in heads)
    return Intervention(kind, site, layer, change, positions, chosen, values)
