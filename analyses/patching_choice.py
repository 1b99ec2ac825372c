"""Choosing a small set of components by what patching them brings back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .answer_task import AnswerTask
from .components import Component, all_components
from .patching import component_differences
from .patching_runs import Where, record, run_difference, set_difference
from .patching_source import Source

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Patcher:
    """A task with the source of its values; runs any set of components over all of its prompts."""

    model: Any
    task: AnswerTask
    source: Source
    batch_size: int
    where: Where

    def ends(self) -> tuple[Floats, Floats]:
        """[rows] LD as it is, and of the other run."""
        corrupt, clean = np.empty(len(self.task)), np.empty(len(self.task))
        for batch in self.task.batches(self.batch_size):
            corrupt[batch.rows] = run_difference(self.model, batch).cpu()
            clean[batch.rows] = self.source.run(batch, ())[1].cpu()
        return corrupt, clean

    def singles(self) -> Floats:
        """[rows, components] LD with each component patched alone."""
        out = np.empty((len(self.task), self.model.n_layers * (self.model.n_heads + 1)))
        for batch in self.task.batches(self.batch_size):
            out[batch.rows] = component_differences(
                self.model, batch, record(self.model, batch), self.source.run(batch)[0], self.where
            )
        return out

    def sets(self, sets: Sequence[Sequence[Component]]) -> Floats:
        """[rows, sets] LD with each set patched together."""
        out = np.empty((len(self.task), len(sets)))
        for batch in self.task.batches(self.batch_size):
            cache, values = (
                record(self.model, batch, ("resid_pre",)),
                self.source.run(batch, ("head_out", "mlp_out"))[0],
            )
            for column, chosen in enumerate(sets):
                out[batch.rows, column] = set_difference(
                    self.model, batch, chosen, cache, values, where=self.where
                ).cpu()
        return out

    def select(self, keep: NDArray[np.bool_]) -> "Patcher":
        source = Source(self.source.model, self.source.task.select(keep), self.source.name)
        return Patcher(self.model, self.task.select(keep), source, self.batch_size, self.where)


def choose(
    patcher: Patcher, *, enough: float, most: int, lookahead: int
) -> tuple[list[Component], pd.DataFrame]:
    """Add components one at a time, each the best of the few that do most alone, until enough has come
    back.
    """
    corrupt, clean = patcher.ends()
    gap = float((clean - corrupt).mean())
    names = all_components(patcher.model)
    order = np.argsort(-np.sign(gap) * (patcher.singles() - corrupt[:, None]).mean(axis=0), kind="stable")
    left = [names[i] for i in order]
    chosen: list[Component] = []
    path = []
    while left and len(chosen) < most:
        trial = left[:lookahead]
        reached = (
            patcher.sets([[*chosen, component] for component in trial]).mean(axis=0) - corrupt.mean()
        ) / gap
        best = int(np.argmax(reached))
        chosen.append(trial[best])
        left.remove(trial[best])
        path.append({"step": len(chosen), "component": str(trial[best]), "recovery": float(reached[best])})
        if reached[best] >= enough:
            break
    return chosen, pd.DataFrame(path)


def random_like(
    chosen: Sequence[Component], everything: Sequence[Component], rng: np.random.Generator
) -> list[Component]:
    """As many heads and MLPs as were chosen, from those that were not (as far as they last)."""
    out: list[Component] = []
    for kind in ("head", "mlp"):
        pool = [component for component in everything if component.kind == kind and component not in chosen]
        wanted = min(sum(component.kind == kind for component in chosen), len(pool))
        out += [pool[i] for i in rng.choice(len(pool), wanted, replace=False)] if wanted else []
    return out
