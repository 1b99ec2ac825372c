"""Running a model with parts of another run in it, many at once.

Every sweep runs many patched copies of a batch together, and starts each at the layer it patches, from the
cached stream: nothing before that layer can have changed. That is where its speed over a plain loop comes
from.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..hooks.interventions import patch
from ..hooks.sites import SiteAt
from .answer_task import Batch
from .components import SITE_OF, Component

Cache = dict[SiteAt, Tensor]
Where = Literal["all", "last"]
ROWS_AT_ONCE = 512
SITES = ("resid_pre", "head_out", "mlp_out")


@torch.no_grad()
def record(model: Any, batch: Batch, sites: Sequence[str] = SITES) -> Cache:
    """Values [B, T, *shape] of some sites at every layer."""
    wanted = [SiteAt(site, layer) for site in sites for layer in range(model.n_layers)]
    return model.forward(batch.ids, batch.mask, sites=wanted) if wanted else {}


@torch.no_grad()
def run_difference(
    model: Any, batch: Batch, *, start: tuple[int, Tensor] | None = None, edits: Sequence[Any] = ()
) -> Tensor:
    """[B] logit difference, from the beginning or from a layer's input, with edits in force."""
    with model.edit(*edits):
        last = torch.full((len(batch.ids),), batch.ids.shape[1] - 1)
        return batch.difference(model.logits(batch.ids, batch.mask, positions=last, start=start).float())


@torch.no_grad()
def sweep_difference(
    model: Any, batch: Batch, *, start: tuple[int, Tensor], edits: Sequence[Any] = ()
) -> Tensor:
    """As `run_difference`, sparing most of the last block: there only the last token's stream is still read.

    The pass stops at the last block's heads; that block is then run for one token with those heads put in.
    Edits must lie before the last block.
    """
    last = model.n_layers - 1
    with model.edit(*edits):
        got = model.forward(
            batch.ids,
            batch.mask,
            sites=[SiteAt("resid_pre", last), SiteAt("head_out", last)],
            select=lambda at, value: value[:, -1:].clone(),
            start=start,
        )
    return last_block(model, batch, got[SiteAt("resid_pre", last)], got[SiteAt("head_out", last)])


@torch.no_grad()
def last_block(model: Any, batch: Batch, resid: Tensor, heads: Tensor) -> Tensor:
    """[B] logit difference from the last block's input [B, 1, d] and heads [B, 1, H, d_head] at the last
    token.
    """
    layer = model.n_layers - 1
    ids = batch.ids[:, -1:]
    with model.edit(patch("head_out", layer=layer, values=heads)):
        logits = model.logits(
            ids, torch.ones_like(ids), positions=torch.zeros(len(ids)), start=(layer, resid)
        )
    return batch.difference(logits.float())


def at_positions(new: Tensor, old: Tensor, where: Where) -> Tensor:
    """New values at the chosen positions, old ones elsewhere; both [B, T, *shape]."""
    if where == "all":
        return new
    mixed = old.clone()
    mixed[:, -1] = new[:, -1]
    return mixed


def head_sweep(
    model: Any,
    batch: Batch,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
    *,
    where: Where = "all",
    layers: Iterable[int] | None = None,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Tensor:
    """LD with one head at a time replaced.

    Args:
        model: the model being patched.
        batch: its prompts.
        cache: its own run: `resid_pre` and `head_out` at all layers.
        values: `head_out` to put in, [B, T, H, d_head] per layer.
        where: all positions, or the last alone.
        layers: which layers; the rest stays NaN.
        rows_at_once: patched copies run together.

    Returns:
        [B, L, H].
    """
    size, n_heads = len(batch.ids), model.n_heads
    out = torch.full((size, model.n_layers, n_heads), float("nan"))
    together = max(1, rows_at_once // size)
    for layer in range(model.n_layers) if layers is None else layers:
        own, resid = cache[SiteAt("head_out", layer)], cache[SiteAt("resid_pre", layer)]
        new = at_positions(values[SiteAt("head_out", layer)].to(own), own, where)
        final = layer == model.n_layers - 1
        if final:  # what other tokens' heads write in the last block is read by nobody
            own, new, resid = own[:, -1:], new[:, -1:], resid[:, -1:]
        for first in range(0, n_heads, together):
            heads = range(first, min(first + together, n_heads))
            mixed = own.repeat(len(heads), 1, 1, 1)
            for copy, head in enumerate(heads):
                mixed[copy * size : (copy + 1) * size, :, head] = new[:, :, head]
            many, stream = batch.repeat(len(heads)), resid.repeat(len(heads), 1, 1)
            if final:
                difference = last_block(model, many, stream, mixed)
            else:
                edits = [patch("head_out", layer=layer, values=mixed)]
                difference = sweep_difference(model, many, start=(layer, stream), edits=edits)
            out[:, layer, first : first + len(heads)] = difference.reshape(len(heads), size).T.cpu()
    return out


def site_sweep(
    model: Any,
    batch: Batch,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
    *,
    site: str = "mlp_out",
    where: Where = "all",
) -> Tensor:
    """[B, L] LD with a whole site (`mlp_out`, `attn_out`) of one layer at a time replaced."""
    columns = []
    for layer in range(model.n_layers):
        at = SiteAt(site, layer)
        new = values[at] if where == "all" else at_positions(values[at], cache[at], where)
        columns.append(
            run_difference(
                model,
                batch,
                start=(layer, cache[SiteAt("resid_pre", layer)]),
                edits=[patch(site, layer=layer, values=new)],
            ).cpu()
        )
    return torch.stack(columns, dim=1)


def position_sweep(
    model: Any,
    batch: Batch,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
    *,
    rows_at_once: int = ROWS_AT_ONCE,
) -> Tensor:
    """LD with the stream entering one layer replaced at one position.

    Args:
        values: `resid_pre` [B, T, d] per layer, of the other run.

    Returns:
        [B, L, T]; NaN at padding.
    """
    size, width = batch.ids.shape
    out = torch.full((size, model.n_layers, width), float("nan"))
    together = max(1, rows_at_once // size)
    for layer in range(model.n_layers):
        own, new = cache[SiteAt("resid_pre", layer)], values[SiteAt("resid_pre", layer)]
        for first in range(0, width, together):
            places = range(first, min(first + together, width))
            mixed = own.repeat(len(places), 1, 1)
            for copy, place in enumerate(places):
                mixed[copy * size : (copy + 1) * size, place] = new[:, place].to(own)
            difference = sweep_difference(model, batch.repeat(len(places)), start=(layer, mixed))
            out[:, layer, first : first + len(places)] = difference.reshape(len(places), size).T.cpu()
    return out.masked_fill((batch.mask == 0)[:, None, :], float("nan"))


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
    model: Any,
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
    model: Any,
    batch: Batch,
    sender: Component,
    receiver: Component | None,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
) -> Tensor:
    """Path patching (Wang et al. 2022, 2211.00593): the sender's new value reaches the receiver directly,
    and nothing else.

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
