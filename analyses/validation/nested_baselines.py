"""What the prompts alone would score through the divisions of a nested cross-validation."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ..probes.baselines import fit_baselines
from ..reading.task import Task
from ..statistics.metrics import score

DIVISIONS = 2
"""How many of the divisions baselines go through: they have no interval, and cost as much as a layer."""


def nested_baselines(
    store: ActivationStore,
    task: Task,
    folds: NDArray[np.int64],
    metric: str,
    *,
    words: bool = True,
    device: torch.device | None = None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Cross-validated scores of every baseline, and why one is absent.

    Args:
        store: for texts and lengths.
        task: its labels and groups.
        folds: [repeats, rows] fold of each row.
        metric: its name.
        words: whether to fit the bag of words.
        device: that the bag of words is fitted on.
    """
    found: dict[str, list[float]] = {}
    missing: tuple[str, ...] = ()
    for fold in folds[:DIVISIONS]:
        single: dict[str, list[float]] = {}
        sizes = np.bincount(fold) / len(fold)
        for k in range(len(sizes)):
            test = fold == k
            inner = np.where(test, -1, fold - (fold > k))
            base = fit_baselines(store, replace(task, test=test, fold=inner), words=words, device=device)
            missing = base.missing
            for name, predicted in base.predicted.items():
                value = float(score(metric, task.y[test], predicted.rows(test))[0])
                single.setdefault(name, []).append(value)
        for name, values in single.items():
            found.setdefault(name, []).append(float(sizes @ np.array(values)))
    return {f"baseline_{name}": float(np.mean(values)) for name, values in found.items()}, missing
