"""What a probe fitted on one store may be scored on in another, and what the prompts alone would score."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ..probes.baselines import bag_of_words, majority, prompt_length
from ..probes.duplicates import alike_between
from ..probes.inference import CI_METHOD
from ..reading.task import Task
from ..statistics.metrics import Predicted, score
from ..statistics.resampling import cluster_bootstrap_weights
from ..statistics.score_intervals import deciding_groups, interval


@dataclass(frozen=True)
class Target:
    """Held-out rows of one store that are new to what was fitted on another."""

    test: NDArray[np.bool_]
    """[rows of the store's task] those that are scored."""
    y: NDArray[Any]
    """[scored rows]."""
    groups: NDArray[np.int64]
    """[scored rows]."""
    n_classes: int
    left_out: int
    """Held-out rows whose text the fit has seen."""
    alike: int
    """Scored prompts that are near-duplicates of prompts that the fit has seen."""

    def notes(self, source: str, name: str) -> list[str]:
        """What was left out, and what should be grouped otherwise."""
        found = []
        if self.left_out:
            found.append(
                f"{self.left_out} held-out rows of {name!r} are not scored by what was fitted on {source!r}, "
                "which has seen their text."
            )
        if self.alike:
            found.append(
                f"{self.alike} held-out prompts of {name!r} are near-duplicates (80 % of their word triples) "
                f"of training prompts of {source!r} in other groups: if they are variants of one item, give "
                "them one group name in both."
            )
        return found

    def draws(self, n: int, seed: int) -> NDArray[Any] | None:
        """[draws, scored rows] bootstrap multiplicities."""
        return cluster_bootstrap_weights(self.groups, n, seed) if len(self.y) else None

    def score(self, metric: str, predicted: Predicted) -> float:
        """NaN where no two rows with different labels are left."""
        several = len(np.unique(self.y)) > 1
        return float(score(metric, self.y, predicted)[0]) if several else float("nan")

    def scored(self, metric: str, predicted: Predicted, weights: Any) -> dict[str, Any]:
        """Estimate, interval and counts of the table's row."""
        counts = {"n": len(self.y), "n_groups": len(np.unique(self.groups))}
        estimate = self.score(metric, predicted)
        row = {"estimate": estimate, "lo": np.nan, "hi": np.nan, "ci_method": None, **counts}
        if weights is None or not np.isfinite(estimate):
            return row | {"note": "not defined: no two rows with different labels are left to be scored"}
        units = deciding_groups(metric, self.y, self.groups, self.n_classes)
        draws = score(metric, self.y, predicted, weights)
        lo, hi, note = interval(estimate, draws, units, metric)
        return row | {"lo": lo, "hi": hi, "ci_method": None if note else CI_METHOD, "note": note}


def new_rows(store: ActivationStore, task: Task, other: Any, target: Task) -> Target:
    """Held-out rows of the other store's task whose text no fit on this one has seen."""
    test, left_out, alike = target.test.copy(), 0, 0
    if store.texts is not None and other.texts is not None:
        trained = np.unique(np.asarray(store.examples)[task.rows[task.train]])
        seen = [store.texts[example] for example in trained]
        known = set(seen)
        texts = [other.texts[example] for example in np.asarray(other.examples)[target.rows]]
        several = len(known.union(texts)) > 1  # else the text says nothing of the row
        new = np.array([not several or text not in known for text in texts])
        left_out = int((test & ~new).sum())
        test &= new
        scored = dict.fromkeys(text for text, mine in zip(texts, test, strict=True) if mine)
        if store is not other:  # within one, near-duplicates are said of its split
            alike = len(np.unique(alike_between(seen, list(scored))[:, 1]))
    return Target(test, target.y[test], target.groups[test], target.n_classes, left_out, alike)


def prompts_alone(
    stores: Mapping[str, Any],
    tasks: Mapping[str, Task],
    source: str,
    targets: Mapping[str, Target],
    device: torch.device | None,
) -> dict[str, dict[str, Predicted]]:
    """By target what baselines fitted on the source's training rows say of the rows that are scored."""
    task, names = tasks[source], list(targets)
    rows = [np.flatnonzero(targets[name].test) for name in names]
    parts = [(source, np.arange(len(task.rows))), *zip(names, rows, strict=True)]
    new = sum(map(len, rows))
    joined = replace(
        task,
        rows=np.concatenate([tasks[name].rows[mine] for name, mine in parts]),
        y=np.concatenate([tasks[name].y[mine] for name, mine in parts]),
        groups=np.concatenate([task.groups, np.zeros(new, dtype=np.int64)]),
        test=np.concatenate([task.test, np.ones(new, dtype=bool)]),
        fold=np.concatenate([task.fold, np.full(new, -1)]),
    )
    found = {"majority": majority(joined)}
    if all(store.texts is not None for store in stores.values()):
        texts = [
            stores[name].texts[example]
            for name, mine in parts
            for example in np.asarray(stores[name].examples)[tasks[name].rows[mine]]
        ]
        found["text"] = bag_of_words(texts, joined, device=device)
    if all(store.lengths is not None for store in stores.values()):
        lengths = [np.asarray(stores[name].lengths)[tasks[name].rows[mine]] for name, mine in parts]
        found["length"] = prompt_length(np.concatenate(lengths), joined)
    ends = len(task.rows) + np.cumsum([0, *map(len, rows)])
    return {
        name: {key: one.rows(np.arange(ends[index], ends[index + 1])) for key, one in found.items()}
        for index, name in enumerate(names)
    }
