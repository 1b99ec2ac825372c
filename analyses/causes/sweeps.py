"""Patching one thing at a time, for every head, layer or position: many patched copies at once.

Each copy starts at the layer it patches, from the cached stream: nothing before that layer can have changed.
The patched layer's attention is not computed again either, since its heads are given; and in the last block
only the last token is read by anybody. That is where the speed over a plain loop comes from.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn

from ...hooks.interventions import patch
from ...hooks.model import Model
from ...hooks.sites import SiteAt
from .answer_task import Batch
from .edited_runs import Cache, Where, run_difference
from .given import given_heads, last_query

TOKENS_AT_ONCE = {"cpu": 2048}  # of patched copies: what stays in a processor's cache,
TOKENS_ELSEWHERE = 32768  # or what fills a GPU


@torch.no_grad()
def sweep_difference(
    model: Model, batch: Batch, *, start: tuple[int, Tensor], heads: Tensor | None = None
) -> Tensor:
    """[B] logit difference from the input of a layer before the last, and from that layer's heads if given.

    As `run_difference`, sparing most of the last block: there only the last token's stream is still read. The
    pass stops at the last block's heads; that block is then run for one token with those heads put in.
    """
    last = model.n_layers - 1
    resid, after = SiteAt("resid_pre", last), SiteAt("head_out", last)
    given = given_heads(model, start[0], heads) if heads is not None else nullcontext()
    with given, last_query(model, last):
        got = model.forward(
            batch.ids,
            batch.mask,
            sites=[resid, after],
            select=lambda at, value: value[:, -1:].clone(),
            start=start,
        )
    return last_block(model, batch, got[resid], got[after])


@torch.no_grad()
def last_block(model: Model, batch: Batch, resid: Tensor, heads: Tensor) -> Tensor:
    """[B] logit difference from the last block's input [B, 1, d] and heads [B, 1, H, d_head] at one token."""
    at = SiteAt("resid_post", model.n_layers - 1)
    ids = batch.ids[:, -1:]
    with given_heads(model, model.n_layers - 1, heads):
        got = model.forward(ids, torch.ones_like(ids), sites=[at], start=(model.n_layers - 1, resid))
    return candidate_difference(model, batch, got[at][:, 0])


def candidate_difference(model: Model, batch: Batch, resid: Tensor) -> Tensor:
    """[B] logit difference from the stream after the last block [B, d], by the candidates' rows of the
    unembedding alone (where it is a plain matrix).
    """
    head = model.lens.head
    used = torch.cat([batch.answers, batch.foils], dim=1)
    ids = used.unique()
    ids = ids[ids >= 0].to(head.unembed.weight.device)
    if type(head.unembed) is not nn.Linear or ids.device.type == "meta":
        return batch.difference(head(resid).float())
    few = nn.utils.skip_init(nn.Linear, resid.shape[1], len(ids), bias=head.unembed.bias is not None)
    few.weight = nn.Parameter(head.unembed.weight[ids], requires_grad=False)
    if few.bias is not None:
        few.bias = nn.Parameter(head.unembed.bias[ids], requires_grad=False)
    columns = torch.searchsorted(ids, used.to(ids.device).clamp(min=0)).masked_fill(
        used.to(ids.device) < 0, -1
    )
    answers, foils = columns.split([batch.answers.shape[1], batch.foils.shape[1]], dim=1)
    logits = replace(head, unembed=few)(resid).float()
    return replace(batch, answers=answers, foils=foils).difference(logits)


def at_positions(new: Tensor, old: Tensor, where: Where) -> Tensor:
    """New values at the chosen positions, old ones elsewhere; both [B, T, *shape]."""
    if where == "all":
        return new
    mixed = old.clone()
    mixed[:, -1] = new[:, -1]
    return mixed


def one_replaced(own: Tensor, new: Tensor, places: Sequence[int], axis: int) -> Tensor:
    """[places · B, …] copies of `own` [B, …], in each of which one index of an axis is taken from `new`.

    >>> own, new = torch.zeros(1, 3), torch.ones(1, 3)
    >>> one_replaced(own, new, [0, 2], 1).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    copies = own.repeat(len(places), *(1,) * (own.dim() - 1))
    for mixed, place in zip(copies.split(len(own)), places, strict=True):
        mixed.select(axis, place).copy_(new.select(axis, place))
    return copies


def _chunks(n: int, batch: Batch, model: Model, rows_at_once: int | None) -> Iterator[range]:
    """Indices 0 to n - 1, as many at a time as may run together."""
    size, width = batch.ids.shape
    if rows_at_once is None:
        rows_at_once = TOKENS_AT_ONCE.get(model.device.type, TOKENS_ELSEWHERE) // width
    together = max(1, rows_at_once // size)
    for first in range(0, n, together):
        yield range(first, min(first + together, n))


def head_sweep(
    model: Model,
    batch: Batch,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
    *,
    where: Where = "all",
    layers: Iterable[int] | None = None,
    rows_at_once: int | None = None,
) -> Tensor:
    """LD with one head at a time replaced.

    Args:
        model: the model being patched.
        batch: its prompts.
        cache: its own run: `resid_pre` and `head_out` at all layers.
        values: `head_out` to put in, [B, T, H, d_head] per layer.
        where: all positions, or the last alone.
        layers: which layers; the rest stays NaN.
        rows_at_once: patched copies run together; by default what suits the device.

    Returns:
        [B, L, H].
    """
    size = len(batch.ids)
    out = torch.full((size, model.n_layers, model.n_heads), float("nan"))
    for layer in range(model.n_layers) if layers is None else layers:
        own, resid = cache[SiteAt("head_out", layer)], cache[SiteAt("resid_pre", layer)]
        new = at_positions(values[SiteAt("head_out", layer)].to(own), own, where)
        final = layer == model.n_layers - 1
        if final:  # what other tokens' heads write in the last block is read by nobody
            own, new, resid = own[:, -1:], new[:, -1:], resid[:, -1:]
        for heads in _chunks(model.n_heads, batch, model, rows_at_once):
            mixed = one_replaced(own, new, heads, 2)
            many, stream = batch.repeat(len(heads)), resid.repeat(len(heads), 1, 1)
            if final:
                difference = last_block(model, many, stream, mixed)
            else:
                difference = sweep_difference(model, many, start=(layer, stream), heads=mixed)
            out[:, layer, heads.start : heads.stop] = rearrange(difference, "(h b) -> b h", b=size).cpu()
    return out


def site_sweep(
    model: Model,
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
    model: Model,
    batch: Batch,
    cache: Cache,
    values: Mapping[SiteAt, Tensor],
    *,
    rows_at_once: int | None = None,
) -> Tensor:
    """LD with the stream entering one layer replaced at one position.

    Args:
        values: `resid_pre` [B, T, d] per layer, of the other run.

    Returns:
        [B, L, T]; NaN at padding.
    """
    size, width = batch.ids.shape
    out = torch.full((size, model.n_layers, width), float("nan"))
    for layer in range(model.n_layers):
        own, new = cache[SiteAt("resid_pre", layer)], values[SiteAt("resid_pre", layer)]
        for places in _chunks(width, batch, model, rows_at_once):
            mixed = one_replaced(own, new.to(own), places, 1)
            difference = sweep_difference(model, batch.repeat(len(places)), start=(layer, mixed))
            out[:, layer, places.start : places.stop] = rearrange(difference, "(t b) -> b t", b=size).cpu()
    return out.masked_fill((batch.mask == 0)[:, None, :], float("nan"))
