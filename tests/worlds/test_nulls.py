"""Nothing is found where nothing is: every analysis on null worlds, as often as its level allows."""

import pytest
from worlds.calls import CALLS, NULLS, PLANTED
from worlds.measure import count, hits_over_worlds, most, spread

from layerprobe.analyses.result.registry import all_analyses

MANY = 200


def test_every_registered_analysis_has_a_call():
    """A new analysis says in `worlds/calls.py` how it is called, and is then held to everything below."""
    assert sorted(CALLS) == sorted(one.kind for one in all_analyses())


def test_every_world_is_read():
    read = {world.name for kind, call in CALLS.items() for world, _ in spread(kind, call.few)}
    assert read == {world.name for world in NULLS}
    shapes = {shape for call in CALLS.values() for shape in call.reads}
    assert {world.shape for world in PLANTED} <= shapes
    assert len({world.name for world in (*NULLS, *PLANTED)}) == len(NULLS) + len(PLANTED)


@pytest.mark.parametrize("kind", CALLS)
def test_what_is_found_by_chance_stays_within_its_level(kind):
    """Up to twenty draws of each analysis, dealt out over the null worlds that it reads."""
    draws = CALLS[kind].few
    hits = hits_over_worlds(kind, draws)
    assert len(hits) <= most(draws), hits


@pytest.mark.soak
@pytest.mark.parametrize("kind", [kind for kind, call in CALLS.items() if call.worlds(NULLS)])
def test_so_it_does_over_many_draws_of_every_world(kind):
    for world in CALLS[kind].worlds(NULLS):
        seen = count(kind, world, MANY)
        assert seen.hits <= seen.bound, seen
