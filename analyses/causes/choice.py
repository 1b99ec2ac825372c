"""Choosing a small set of components by what patching them brings back."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.model import Model
from ...hooks.sites import SiteAt
from .answer_task import AnswerTask
from .components import SITE_OF, Component, Parts, all_components, layer_parts
from .edited_runs import Where, record, run_difference, set_difference
from .patching import component_differences
from .source import Source
from .sweeps import site_sweep

Floats = NDArray[np.float64]
LEAST_GAIN = 0.01  # of recovery; parts that add less are no part of the cause
SAME = 1e-6  # relative; the same weights on the same tokens differ by rounding at most


@dataclass(frozen=True)
class Patcher:
    """A task with the source of its values; runs any set of components over all of its prompts."""

    model: Model
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

    def differing(self) -> list[Component]:
        """Components that the two runs differ in on some prompt; patching any other changes nothing.

        Between base and instruct these are the tuned blocks and whatever follows them: where early blocks
        are the same in both, so is all that they write.
        """
        seen: set[Component] = set()
        for batch in self.task.batches(self.batch_size):
            own, values = record(self.model, batch, self.sites), self.source.run(batch, self.sites)[0]
            real = batch.mask.bool().to(self.model.device)
            for component in self.names:
                at = SiteAt(SITE_OF[component.kind], component.layer)
                mine, theirs = own[at][real], values[at][real].to(own[at])
                if component.kind == "head":
                    mine, theirs = mine[:, component.head], theirs[:, component.head]
                if bool((mine - theirs).norm() > SAME * mine.norm()):
                    seen.add(component)
        return [component for component in self.names if component in seen]

    def random_directions(self, chosen: Sequence[Component], n: int, seed: int) -> Floats:
        """[rows, n] LD with the chosen components moved as far as patching moves them, in random directions.

        At every position (and head) the own value is displaced by a random vector as long as the difference
        that patching makes there: the control for having been disturbed at all.
        """
        out = np.empty((len(self.task), n))
        for batch in self.task.batches(self.batch_size):
            cache = record(self.model, batch, ("resid_pre", *self.sites))
            values = self.source.run(batch, self.sites)[0]
            for column in range(n):
                rng = torch.Generator().manual_seed(seed + 1000 * column + int(batch.rows[0]))
                moved = {at: _moved_as_far(cache[at], values[at], rng) for at in values}
                out[batch.rows, column] = set_difference(
                    self.model, batch, chosen, cache, moved, where=self.where
                ).cpu()
        return out

    def select(self, keep: NDArray[np.bool_]) -> "Patcher":
        source = Source(self.source.model, self.source.task.select(keep), self.source.name)
        return replace(self, task=self.task.select(keep), source=source)


def choose(
    patcher: Patcher, *, enough: float, most: int, lookahead: int
) -> tuple[list[Component], pd.DataFrame]:
    """Add components one by one, each the best of the few that do most alone, until enough has come back.

    It stops, too, where none of the few adds a hundredth. Only components that differ are tried.
    """
    corrupt, clean = patcher.ends()
    gap = float((clean - corrupt).mean())
    names = patcher.names
    order = np.argsort(-np.sign(gap) * (patcher.singles() - corrupt[:, None]).mean(axis=0), kind="stable")
    differing = set(patcher.differing())
    left = [names[i] for i in order if names[i] in differing]
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


def random_sets(
    chosen: Sequence[Component], pool: Sequence[Component], n: int, seed: int
) -> list[list[Component]]:
    """At most n different sets as large as the chosen one, of the components of a pool that were not chosen.

    As many of each kind as were chosen; where a kind runs out, others stand in for it. A pool with fewer left
    than were chosen gives one set: all of them.
    """
    rng = np.random.default_rng(seed)
    found = {tuple(_random_like(chosen, pool, rng)) for _ in range(20 * n)}
    sets = sorted(found - {()})
    return [list(sets[i]) for i in sorted(rng.permutation(len(sets))[:n])]


def _random_like(
    chosen: Sequence[Component], pool: Sequence[Component], rng: np.random.Generator
) -> list[Component]:
    free = [component for component in pool if component not in chosen]
    out: list[Component] = []
    for kind in SITE_OF:
        mine = [component for component in free if component.kind == kind]
        wanted = min(sum(component.kind == kind for component in chosen), len(mine))
        out += [mine[i] for i in rng.permutation(len(mine))[:wanted]]
    rest = [component for component in free if component not in out]
    out += [rest[i] for i in rng.permutation(len(rest))[: len(chosen) - len(out)]]
    return sorted(out)


def _moved_as_far(own: Tensor, other: Tensor, rng: torch.Generator) -> Tensor:
    """Values [B, T, …] displaced from `own` as far as `other` is, each vector in a random direction."""
    far = (other.to(own) - own).norm(dim=-1, keepdim=True)
    direction = torch.randn(own.shape, generator=rng, dtype=torch.float32).to(own)
    return own + far * direction / direction.norm(dim=-1, keepdim=True)
