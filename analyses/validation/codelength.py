"""Online codelength: what it costs to transmit labels to somebody who holds the activations."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..probes.fit import fit_layer
from ..probes.methods import Method
from ..reading.task import Task
from ..solvers.arrays import Array
from ..statistics.metrics import row_log_loss
from ..statistics.resampling import grouped_folds

BLOCKS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)

Features = Callable[[NDArray[np.bool_]], Array]
"""[rows, width] features, given which rows may be learnt from."""


def online_codelength(
    x: Array | Features, task: Task, method: Method, *, blocks: tuple[float, ...] = BLOCKS, seed: int = 0
) -> dict[str, float]:
    """Bits to transmit the labels block by block, each coded by a probe fitted on the blocks before it.

    Args:
        x: [rows, width], or a function that gives them when told which rows may be learnt from.
        task: all of its rows are transmitted, groups whole, in random order.
        method: probabilistic, or calibrated by Platt's sigmoid.
        blocks: ends of the blocks as shares of the groups; the first is coded uniformly.
        seed: of the order.

    Returns:
        `estimate` bits, `uniform` bits (log₂ classes per row), `baseline_majority` bits (the same game with
        class frequencies alone) and `compression` = uniform / estimate.

    Raises:
        LayerprobeError: fewer groups than the first blocks need.

    >>> from layerprobe import from_arrays
    >>> from layerprobe.analyses.probes.methods import find_method
    >>> from layerprobe.analyses.reading.task import make_task
    >>> y = np.arange(120) % 2
    >>> x = np.random.default_rng(0).normal(size=(1, 120, 4)); x[0, :, 0] += 6 * y
    >>> store = from_arrays({"resid_post": x}, labels={"y": y})
    >>> task = make_task(store, label="y", groups=None, held_out=None, n_folds=5, seed=0)
    >>> bits = online_codelength(x[0][task.rows], task, find_method("logistic", "binary"))
    >>> bits["estimate"] < bits["uniform"] == 120.0
    True
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
        if len(np.unique(task.groups[past])) < 10 or not enough_rows(task.y[past], task):
            bits += float(prior)
            continue
        kept = past | block
        rows = x(past) if callable(x) else x
        part = replace(task, test=block, fold=np.where(past, 0, -1)).keep(kept)
        part = replace(part, fold=repaired_folds(part, np.where(part.train, rank[kept] % 3, -1)))
        fit = fit_layer(rows[kept], part, method, strengths=method.strengths)
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


def enough_rows(y: NDArray[Any], task: Task) -> bool:
    """Whether every class has three rows, one for each inner fold."""
    return task.kind == "regression" or bool((np.bincount(y, minlength=task.n_classes) >= 3).all())


def repaired_folds(task: Task, fold: NDArray[Any]) -> NDArray[Any]:
    """Balanced folds where classes allow them; else the random ones, provided each trains on every class."""
    train = task.train
    try:
        fold[train] = grouped_folds(task.groups[train], task.y[train], n_folds=3)
    except LayerprobeError:
        fold[train] = np.unique(fold[train], return_inverse=True)[1]
    return fold
