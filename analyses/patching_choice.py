"""Choosing a small set of components by what patching them brings back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from .answer_task import AnswerTask
from .components import SITE_OF, Component, Parts, all_components, layer_parts
from .patching import component_differences
from .patching_runs import Where, record, run_difference, set_difference, site_sweep
from .patching_source import Source

Floats = NDArray[np.float64]
LEAST_GAIN = 0.01  # of recovery; parts that add less are no part of the cause


@dataclass(frozen=True)
class Patcher:
    """A task with the source of its values; runs any set of components over all of its prompts."""

    model: Any
    task: AnswerTask
    source: Source
    batch_size: int
    where: Where
    parts: Parts = "heads"

    @property
    def names(self) -> list[Component]:
        """What there is to patch."""
        return all_components(self.model) if self.parts == "heads" else layer_parts(self.model)

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(SITE_OF[component.kind] for component in self.names))

    def ends(self) -> tuple[Floats, Floats]:
        """[rows] LD as it is, and of the other run."""
        corrupt, clean = np.empty(len(self.task)), np.empty(len(self.task))
        for batch in self.task.batches(self.batch_size):
            corrupt[batch.rows] = run_difference(self.model, batch).cpu()
            clean[batch.rows] = self.source.run(batch, ())[1].cpu()
        return corrupt, clean

    def singles(self) -> Floats:
        """[rows, components] LD with each component patched alone."""
        out = np.empty((len(self.task), len(self.names)))
        for batch in self.task.batches(self.batch_size):
            cache = record(self.model, batch, ("resid_pre", *self.sites))
            values = self.source.run(batch, self.sites)[0]
            if self.parts == "heads":
                out[batch.rows] = component_differences(self.model, batch, cache, values, self.where)
            else:
                columns = [
                    site_sweep(self.model, batch, cache, values, site=site, where=self.where)
                    for site in self.sites
                ]
                out[batch.rows] = torch.stack(columns, dim=2).flatten(1).numpy()
        return out

    def sets(self, sets: Sequence[Sequence[Component]]) -> Floats:
        """[rows, sets] LD with each set patched together."""
        out = np.empty((len(self.task), len(sets)))
        for batch in self.task.batches(self.batch_size):
            cache, values = (
                record(self.model, batch, ("resid_pre",)),
                self.source.run(batch, self.sites)[0],
            )
            for column, chosen in enumerate(sets):
                out[batch.rows, column] = set_difference(
                    self.model, batch, chosen, cache, values, where=self.where
                ).cpu()
        return out

    def select(self, keep: NDArray[np.bool_]) -> "Patcher":
        source = Source(self.source.model, self.source.task.select(keep), self.source.name)
        return replace(self, task=self.task.select(keep), source=source)


def choose(
    patcher: Patcher, *, enough: float, most: int, lookahead: int
) -> tuple[list[Component], pd.DataFrame]:
    """Add components one at a time, each the best of the few that do most alone, until enough has come
    back or none of the few adds a hundredth.
    """
    corrupt, clean = patcher.ends()
    gap = float((clean - corrupt).mean())
    names = patcher.names
    order = np.argsort(-np.sign(gap) * (patcher.singles() - corrupt[:, None]).mean(axis=0), kind="stable")
    left = [names[i] for i in order]
    chosen: list[Component] = []
    path: list[dict[str, Any]] = []
    while left and len(chosen) < most:
        trial = left[:lookahead]
        reached = (
            patcher.sets([[*chosen, component] for component in trial]).mean(axis=0) - corrupt.mean()
        ) / gap
        best = int(np.argmax(reached))
        if path and reached[best] < path[-1]["recovery"] + LEAST_GAIN:
            break
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
    for kind in SITE_OF:
        pool = [component for component in everything if component.kind == kind and component not in chosen]
        wanted = min(sum(component.kind == kind for component in chosen), len(pool))
        out += [pool[i] for i in rng.choice(len(pool), wanted, replace=False)] if wanted else []
    return out
