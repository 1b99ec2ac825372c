"""Counting claims over draws of worlds: errors on null worlds, power on planted ones."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from worlds.calls import CALLS, NULLS, found
from worlds.world import World

from layerprobe.analyses.statistics.intervals import exact_binomial_bound

LEVEL = 0.05
"""Written out, so that a library with another ALPHA is noticed."""


@dataclass(frozen=True)
class Count:
    """How often an analysis claimed anything in a world."""

    kind: str
    world: str
    draws: int
    hits: int
    claims: tuple[str, ...]
    """The claims that were made, each as often as it was."""

    @property
    def bound(self) -> int:
        """The most that the level allows, at 0.1 %."""
        return most(self.draws)


def most(draws: int) -> int:
    """Hits that an error of LEVEL exceeds with probability 0.1 % or less.

    >>> most(20), most(200)
    (5, 21)
    """
    return exact_binomial_bound(draws, LEVEL, alpha=0.001)[1]


def count(kind: str, world: World, draws: int, *, first: int = 0) -> Count:
    """Claims of one analysis over draws of one null world.

    Args:
        kind: of the analysis.
        world: a null world that it reads.
        draws: how many.
        first: the first seed.
    """
    claims: Counter[str] = Counter()
    hits = 0
    for seed in range(first, first + draws):
        made = {finding.claim.name for finding in found(CALLS[kind].run(world.make(seed), seed=seed))}
        hits += bool(made)
        claims.update(made)
    return Count(kind, world.name, draws, hits, tuple(f"{name} {n}" for name, n in claims.items()))


def spread(kind: str, draws: int) -> Iterator[tuple[World, int]]:
    """So many draws of an analysis, dealt out over its null worlds: world, seed."""
    worlds = CALLS[kind].worlds(NULLS)
    start = sorted(CALLS).index(kind)  # so that every analysis begins elsewhere
    for i in range(draws if worlds else 0):
        yield worlds[(start + i) % len(worlds)], i


def hits_over_worlds(kind: str, draws: int) -> list[str]:
    """The worlds in which an analysis claimed something, one entry a draw."""
    return [
        world.name
        for world, seed in spread(kind, draws)
        if found(CALLS[kind].run(world.make(seed), seed=seed))
    ]
