"""How much data a probe needs: learning curves, and the online codelength of the labels given the
activations.

A probe that reaches its score on a tenth of the data has found something simpler than one that needs all of
it. The codelength puts that in bits: what it costs to transmit the labels to somebody who holds the
activations.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..hooks.errors import LayerprobeError
from .layer_threads import over_layers
from .linear_probe_fit import fit_layer
from .linear_probe_methods import Method, find_method
from .linear_probe_places import list_places, rows_at
from .linear_probe_problem import Floats
from .linear_probe_task import Task, make_task
from .metrics import DEFAULT_METRICS, row_log_loss, score
from .resampling import STORED, grouped_folds
from .result import AnalysisResult, tidy

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)
BLOCKS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def learning_curve(
    store: Any,
    *,
    label: str | ArrayLike,
    method: str = "logistic",
    sites: str | list[str] | None = None,
    layers: list[int] | None = None,
    groups: Any = STORED,
    shares: tuple[float, ...] = SHARES,
    n_draws: int = 3,
    codelength: bool = True,
    seed: int = 0,
    threads: int | None = None,
) -> AnalysisResult:
    """Held-out score against the share of training groups used, and the online codelength in bits.

    Args:
        store: an activation store.
        label: as `linear_probe`.
        method: as `linear_probe`; the codelength needs a probabilistic one.
        sites: as `linear_probe`.
        layers: as `linear_probe`.
        groups: as `linear_probe`.
        shares: of the training groups.
        n_draws: random subsets of groups per share; the spread over them is in column `sd`.
        codelength: whether to compute it too.
        seed: of splits, subsets and the order of transmission.
        threads: layers at a time.

    Returns:
        Rows of the task's first metric with `share` and `n_train`; rows of metric `codelength` (bits for all
        labels, Voita & Titov 2003.12298) with `uniform` and `baseline_majority` (bits without activations)
        and `compression`.
    """
    task = make_task(store, label, groups=groups, held_out=0.3, n_folds=5, seed=seed)
    found = find_method(method, task.kind)
    if codelength and task.kind == "regression":
        raise LayerprobeError("codelength needs classes; pass codelength=False for a regression label")
    metric = DEFAULT_METRICS[task.kind][0]
    subsets = _subsets(task, shares, n_draws, seed)

    def work(place: Any) -> list[dict[str, Any]]:
        x = rows_at(store, place, task)
        where = {"site": place.site, "layer": place.layer, "head": place.head}
        rows = []
        for share, draws in subsets.items():
            values = [_held_out_score(x, task, rows_kept, found, metric) for rows_kept in draws]
            n_train = float(np.mean([(kept & task.train).sum() for kept in draws]))
            row = {"metric": metric, "share": share, "n_train": n_train, "estimate": float(np.mean(values))}
            rows.append({**where, **row, "sd": float(np.std(values)), "n": int(task.test.sum())})
        if codelength:
            rows.append({**where, "metric": "codelength", **online_codelength(x, task, found, seed=seed)})
        return rows

    per_place = over_layers(work, list_places(store, sites, layers), threads=threads)
    common = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "method": method,
        "target": task.name,
        "seed": seed,
    }
    table = tidy({**common, **row} for rows in per_place for row in rows)
    return AnalysisResult(kind="linear_probe_curves", table=table, provenance={"label": task.name})


def _subsets(task: Task, shares: tuple[float, ...], n_draws: int, seed: int) -> dict[float, list[NDArray]]:
    names = np.unique(task.groups[task.train])
    rng = np.random.default_rng(seed + 7)
    orders = [rng.permutation(names) for _ in range(n_draws)]
    out: dict[float, list[NDArray]] = {}
    for share in shares:
        count = max(10, round(share * len(names)))
        draws = [
            np.isin(task.groups, order[:count]) | task.test for order in orders[: 1 if share == 1 else None]
        ]
        usable = [kept for kept in draws if _enough(task.y[kept & task.train], task)]
        if usable:
            out[share] = usable
    return out


def _enough(y: NDArray, task: Task) -> bool:
    return task.kind == "regression" or bool((np.bincount(y, minlength=task.n_classes) >= 3).all())


def _held_out_score(x: Floats, task: Task, kept: NDArray[np.bool_], method: Method, metric: str) -> float:
    part = task.keep(kept)
    fold = np.full(len(part.y), -1)
    train = part.train
    fold[train] = np.random.default_rng(0).permutation(int(task.groups.max()) + 1)[part.groups[train]] % 3
    part = replace(part, fold=_repaired(part, fold))
    fit = fit_layer(x[kept], part, method, strengths=method.strengths)
    return float(score(metric, part.y[part.test], fit.predicted.rows(part.test))[0])


def _repaired(task: Task, fold: NDArray) -> NDArray:
    """Balanced folds where classes allow them; else the random ones, provided each trains on every class."""
    train = task.train
    try:
        fold[train] = grouped_folds(task.groups[train], task.y[train], n_folds=3)
    except LayerprobeError:
        fold[train] = np.unique(fold[train], return_inverse=True)[1]
    return fold


def online_codelength(
    x: Floats, task: Task, method: Method, *, blocks: tuple[float, ...] = BLOCKS, seed: int = 0
) -> dict[str, float]:
    """Bits to transmit the labels block by block, each coded by a probe fitted on the blocks before it.

    Args:
        x: [rows, width].
        task: all of its rows are transmitted, groups whole, in random order.
        method: probabilistic, or calibrated by Platt's sigmoid.
        blocks: ends of the blocks as shares of the groups; the first is coded uniformly.
        seed: of the order.

    Returns:
        `estimate` bits, `uniform` bits (log₂ classes per row), `baseline_majority` bits (the same game with
        class frequencies alone) and `compression` = uniform / estimate.
    """
    n_groups = int(task.groups.max()) + 1
    rank = np.random.default_rng(seed + 11).permutation(n_groups)[task.groups]
    per_row = np.log2(task.n_classes)
    first = rank < blocks[0] * n_groups
    bits = prior_bits = float(first.sum() * per_row)
    for start, end in pairwise(blocks):
        past, block = rank < start * n_groups, (rank >= start * n_groups) & (rank < end * n_groups)
        if not block.any():
            continue
        counts = np.bincount(task.y[past], minlength=task.n_classes) + 0.5
        prior = -np.log2(counts / counts.sum())[task.y[block]].sum()
        prior_bits += float(prior)
        if len(np.unique(task.groups[past])) < 10 or not _enough(task.y[past], task):
            bits += float(prior)
            continue
        kept = past | block
        part = replace(task, test=block, fold=np.where(past, 0, -1)).keep(kept)
        part = replace(part, fold=_repaired(part, np.where(part.train, rank[kept] % 3, -1)))
        fit = fit_layer(x[kept], part, method, strengths=method.strengths)
        seen = fit.predicted.rows(part.test)
        assert seen.probability is not None
        bits += float(row_log_loss(part.y[part.test], seen.probability).sum() / np.log(2))
    uniform = float(len(task.y) * per_row)
    return {
        "estimate": bits,
        "uniform": uniform,
        "baseline_majority": prior_bits,
        "compression": uniform / bits,
        "n": len(task.y),
    }
