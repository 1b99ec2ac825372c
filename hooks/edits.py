"""Checks of an intervention, or of a start in the middle, against a model: everything is refused before
anything runs."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .architecture.anatomy import Anatomy
from .architecture.points import find_point
from .edit_texts import n_texts
from .errors import LayerprobeError
from .interventions import HEADED, Intervention
from .selections import check_layer
from .sites import SiteAt

if TYPE_CHECKING:
    from .model import Model


def checked(model: "Model", edit: Intervention) -> Intervention:
    """The intervention with its layer counted from 0.

    Raises:
        LayerprobeError: not an intervention, or the model has no such layer, site, head, or width.
    """
    if not isinstance(edit, Intervention):
        raise LayerprobeError(
            f"model.edit takes what add, ablate, project_out or patch return, got {type(edit).__name__}"
        )
    layer = (
        None if edit.layer is None else check_layer(edit.layer, model.n_layers, f"{edit.kind} at {edit.site}")
    )
    at = SiteAt(edit.site, layer)
    model.check_sites([at])
    reason = model.engine.editable(at)
    if reason is not None:
        raise LayerprobeError(f"{model.name}, engine {model.engine.name}: {reason}")
    shape = model.site_shape(at)
    if edit.heads is not None:
        bad = [h for h in edit.heads if not 0 <= h < shape[0]]
        if bad:
            raise LayerprobeError(
                f"{edit.kind} at {at}: head {bad[0]} is out of range, it has heads 0 to {shape[0] - 1}"
            )
    _check_shape(edit, at, shape)
    n_texts(edit)
    return replace(edit, layer=layer)


def _check_shape(edit: Intervention, at: SiteAt, shape: tuple[int, ...]) -> None:
    if edit.values is None or at.site == "attn_pattern":
        return
    given = tuple(edit.values.shape)
    fits = len(given) <= len(shape) and all(
        g in (1, s) for g, s in zip(given[::-1], shape[::-1], strict=False)
    )
    if not fits or (given and given[-1] != shape[-1]):
        allowed = f"{list(shape)}" + (f" or [{shape[-1]}]" if at.site in HEADED else "")
        raise LayerprobeError(
            f"{edit.kind} at {at}: the tensor has shape {list(given)}, the site has {allowed} per token"
        )


def inner_width(root: nn.Module, anatomy: Anatomy, site: str, layer: int | None) -> int:
    """Width of `mlp_act`, or number of experts of `router_logits` (of the first layer that has it, unless one
    is named)."""
    layers = range(anatomy.n_layers) if layer is None else [layer]
    reason: LayerprobeError | None = None
    for index in layers:
        try:
            module: Any = root.get_submodule(find_point(anatomy, root, SiteAt(site, index)).path)
        except LayerprobeError as error:
            reason = reason or error
            continue
        if site == "router_logits":
            return _experts(module)
        return int(getattr(module, "in_features", 0) or module.weight.shape[0])  # Conv1D keeps [in, out]
    raise reason or LayerprobeError(f"this model has no {site}")


def _experts(router: Any) -> int:
    """Number of scores of a router: its own weight's rows, or those of the projection inside it."""
    for module in router.modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2:
            return int(weight.shape[0])
    raise LayerprobeError(f"router_logits: no scores are projected in {type(router).__name__}")


def before(at: SiteAt, layer: int) -> bool:
    """Whether a site lies before the input of block `layer`."""
    return (at.site == "embed" and layer > 0) or (at.layer is not None and at.layer < layer)


def check_start(model: "Model", start: tuple[int, Tensor] | None, ids: Tensor) -> None:
    """Refuse a start at a layer that is not there, or with a stream of another shape."""
    if start is None:
        return
    layer, resid = start
    check_layer(layer, model.n_layers, f"start=({layer}, ...)")
    if layer < 0:
        raise LayerprobeError(f"start=({layer}, ...): count the layer from 0")
    want = (*ids.shape, model.d_model)
    if tuple(resid.shape) != want:
        raise LayerprobeError(
            f"start: the stream has shape {tuple(resid.shape)}, expected {want} (batch, tokens, d_model)"
        )
