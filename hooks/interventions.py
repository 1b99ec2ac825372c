"""Edits of what passes through a model: add a vector, ablate, project out directions, patch in other values.

An intervention is a frozen description; `model.edit(...)` puts it in force on any engine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .errors import LayerprobeError
from .positions import EditContext, Positions
from .sites import site_info

HEADED = ("head_out", "q", "k", "v", "attn_pattern")


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
        given: all that its builder was given besides site and layer, tensors as tensors.
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
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
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

    Raises:
        LayerprobeError: a site without such a layer or head axis, or a vector that is not finite.

    >>> import layerprobe as lp
    >>> from layerprobe.probe.demo import models
    >>> model = lp.load_model(models()["base"], device="cpu")
    >>> with model.edit(lp.add("resid_post", layer=4, vector=[1.0] * 96, scale=2.0)):
    ...     after = model.run("who was late", sites="resid_post[4]", tokens="last")["resid_post[4]"][0]
    >>> before = model.run("who was late", sites="resid_post[4]", tokens="last")["resid_post[4]"][0]
    >>> bool(((after - before - 2.0).abs() < 1e-4).all())
    True
    """
    direction = as_tensor(vector, "vector")

    def change(value: Tensor, context: EditContext) -> Tensor:
        changed: Tensor = value + scale * direction.to(device=value.device, dtype=value.dtype)
        return changed

    given = {"vector": direction, "scale": scale, "positions": positions, "heads": heads}
    built = _build("add", site, layer, change, given, direction)
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
            result does not depend on the batch); "resample": `values` are other texts' values, [batch,
            tokens, *shape] or [batch, *shape].
        values: see `how`.
        heads: heads to ablate; None for all. This acts on the *input* of the output projection when the site
            is `head_out`.
        positions: tokens, as in `add`.

    Raises:
        LayerprobeError: another `how`, values missing or not wanted, a site without such a layer or heads.

    Source:
        "mean" and "resample": Wang et al. 2023 (2211.00593), Chan et al. 2022 (causal scrubbing).

    >>> import layerprobe as lp
    >>> from layerprobe.probe.demo import models
    >>> model = lp.load_model(models()["base"], device="cpu")
    >>> with model.edit(lp.ablate("head_out", layer=2, heads=[0, 1])):
    ...     out = model.run("who was late", sites="head_out[2]", tokens="last")["head_out[2]"][0]
    >>> [bool(head.any()) for head in out[:3]]
    [False, False, True]
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

    given = {"how": how, "values": other, "positions": positions, "heads": heads}
    return _build("ablate", site, layer, change, given, other if how == "mean" else None)


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

    Raises:
        LayerprobeError: directions that are all zero or not finite, a site without such a layer or heads.

    >>> import layerprobe as lp
    >>> from layerprobe.probe.demo import models
    >>> model = lp.load_model(models()["base"], device="cpu")
    >>> with model.edit(lp.project_out("resid_post", layer=4, directions=[1.0] * 96)):
    ...     out = model.run("who was late", sites="resid_post[4]", tokens="last")["resid_post[4]"][0]
    >>> bool(out.sum().abs() < 1e-3)
    True
    """
    several = as_tensor(directions, "directions")
    several = several.reshape(-1, several.shape[-1])
    rows = several.double()
    _, s, vt = torch.linalg.svd(rows, full_matrices=False)
    basis = vt[s > s.max() * 1e-10] if s.max() > 0 else vt[:0]
    if not len(basis):
        raise LayerprobeError("directions are all zero: there is nothing to project out")

    def change(value: Tensor, context: EditContext) -> Tensor:
        q = basis.to(device=value.device, dtype=torch.promote_types(value.dtype, torch.float32))
        x = value.to(q.dtype)
        changed: Tensor = (x - (x @ q.T) @ q).to(value.dtype)
        return changed

    given = {"directions": several, "positions": positions, "heads": heads}
    return _build("project_out", site, layer, change, given, several[0])


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

    Raises:
        LayerprobeError: values that are not finite, a site without such a layer or heads.

    Source:
        Activation patching: Meng et al. 2022 (2202.05262); how to, Heimersheim & Nanda 2024 (2404.15255).

    >>> import layerprobe as lp
    >>> from layerprobe.probe.demo import models
    >>> model = lp.load_model(models()["base"], device="cpu")
    >>> other = model.run("who was early", sites="resid_post[4]", tokens="last")["resid_post[4]"][0]
    >>> with model.edit(lp.patch("resid_post", layer=4, values=other, positions=-1)):
    ...     out = model.run("who was late", sites="resid_post[4]", tokens="last")["resid_post[4]"][0]
    >>> bool((out == other).all())
    True
    """
    new = as_tensor(values, "values")

    def change(value: Tensor, context: EditContext) -> Tensor:
        return _aligned(new.to(device=value.device, dtype=value.dtype), value, context)

    given = {"values": new, "positions": positions, "heads": heads}
    return _build("patch", site, layer, change, given, None)


def _aligned(new: Tensor, value: Tensor, context: EditContext) -> Tensor:
    """Values given per text and token, per text, or once, brought to [batch, tokens, *shape].

    Tokens generated beyond the values given keep their own.
    """
    if new.dim() < value.dim():
        return (new.unsqueeze(1) if new.dim() == value.dim() - 1 else new).expand_as(value)
    if new.shape[1] == 1:
        return new.expand_as(value)
    part = new[:, context.offset : context.offset + value.shape[1]]
    part = part.expand(len(value), -1, *value.shape[2:])
    beyond = value.shape[1] - part.shape[1]
    if not beyond:
        return part
    prompt = context.prompt_tokens or value.shape[1]
    if new.shape[1] < prompt:
        raise LayerprobeError(
            f"values are given for {new.shape[1]} tokens and the text has {prompt}: give one for each token "
            f"(those at other positions than asked for are not used)"
        )
    return torch.cat([part, value[:, part.shape[1] :]], dim=1)


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
    given: Mapping[str, Any],
    values: Tensor | None,
) -> Intervention:
    info = site_info(site)
    heads = given["heads"]
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
    return Intervention(
        kind, site, layer, change, given["positions"], chosen, values, {**given, "heads": chosen}
    )
