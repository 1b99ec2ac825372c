"""Running a model with parts of another run in it: a set of components, or one path between two."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ...hooks.interventions import patch
from ...hooks.model import Model
from ...hooks.sites import SiteAt
from .answer_task import Batch
from .components import SITE_OF, Component

Cache = dict[SiteAt, Tensor]
Where = Literal["all", "last"]
SITES = ("resid_pre", "head_out", "mlp_out")


@torch.no_grad()
def record(model: Model, batch: Batch, sites: Sequence[str] = SITES) -> Cache:
    """Values [B, T, *shape] of some sites at every layer."""
    wanted = [SiteAt(site, layer) for site in sites for layer in range(model.n_layers)]
    return model.forward(batch.ids, batch.mask, sites=wanted) if wanted else {}


@torch.no_grad()
def run_difference(
    model: Model, batch: Batch, *, start: tuple[int, Tensor] | None = None, edits: Sequence[Any] = ()
) -> Tensor:
    """[B] logit difference, from the beginning or from a layer's input, with edits in force."""
    with model.edit(*edits):
        last = torch.full((len(batch.ids),), batch.ids.shape[1] - 1)
        return batch.difference(model.logits(batch.ids, batch.mask, positions=last, start=start).float())


def set_edits(
    components: Iterable[Component], values: Mapping[SiteAt, Tensor], *, where: Where = "all"
) -> list[Any]:
    """Interventions that replace all of these components at once."""
    heads: dict[int, list[int]] = {}
    edits = []
    positions = None if where == "all" else -1
    for component in components:
        if component.kind == "head":
            heads.setdefault(component.layer, []).append(component.head)
        else:
            site = SITE_OF[component.kind]
            edits.append(
                patch(
                    site,
                    layer=component.layer,
                    values=values[SiteAt(site, component.layer)],
                    positions=positions,
                )
            )
    edits += [
        patch(
            "head_out",
            layer=layer,
            values=values[SiteAt("head_out", layer)],
            heads=chosen,
            positions=positions,
        )
        for layer, chosen in heads.items()
    ]
    return edits


def set_difference(
    model: Model,
    batch: Batch,
    components: Iterable[Component],
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
    *,
    where: Where = "all",
) -> Tensor:
    """[B] LD with a whole set of components replaced together; nothing replaced is the run as it was."""
    chosen = list(components)
    first = min((component.layer for component in chosen), default=model.n_layers - 1)
    return run_difference(
        model,
        batch,
        start=(first, cache[SiteAt("resid_pre", first)]),
        edits=set_edits(chosen, values, where=where),
    )


def path_difference(
    model: Model,
    batch: Batch,
    sender: Component,
    receiver: Component | None,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
) -> Tensor:
    """The sender's new value reaches the receiver directly, and nothing else (Wang et al. 2022, 2211.00593).

    Between them every attention layer and MLP is held at the run's own values, so that only the stream
    carries the change; what the receiver then writes is put into an otherwise untouched run.

    Args:
        receiver: a later component; None for the logits (the sender's direct effect).
        cache: the run's own `resid_pre`, `head_out`, `attn_out` and `mlp_out`.
        values: the other run's `head_out` and `mlp_out`.

    Returns:
        [B] LD.
    """
    start = (sender.layer, cache[SiteAt("resid_pre", sender.layer)])
    last = model.n_layers if receiver is None else receiver.layer
    edits = set_edits([sender], values)
    for layer in range(sender.layer, min(last + 1, model.n_layers)):
        if layer > sender.layer and (receiver is None or layer < last or receiver.kind == "mlp"):
            edits.append(patch("attn_out", layer=layer, values=cache[SiteAt("attn_out", layer)]))
        reads = receiver is not None and receiver.kind == "mlp" and layer == last
        if not reads and not (sender.kind == "mlp" and layer == sender.layer):
            edits.append(patch("mlp_out", layer=layer, values=cache[SiteAt("mlp_out", layer)]))
    if receiver is None:
        return run_difference(model, batch, start=start, edits=edits)
    at = SiteAt("head_out" if receiver.kind == "head" else "mlp_out", receiver.layer)
    with torch.no_grad(), model.edit(*edits):
        got = model.forward(batch.ids, batch.mask, sites=[at], start=start)
    return set_difference(model, batch, [receiver], cache, {**values, **got})
