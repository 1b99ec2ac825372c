"""What a world is: a way to draw data of which it is known whether anything is there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Draw:
    """One draw of a world, as analyses are handed it."""

    stores: Mapping[str, Any]
    """Two models of the same prompts, `base` and `instruct`; only the last where an analysis takes one."""
    model: Any = None
    """What `instruct` was captured from, where the world has a model."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What a store does not hold: word types, a reward, a base model, prompts."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that belong to the world, such as `groups=None`."""

    @property
    def store(self) -> Any:
        """The store of `instruct`."""
        return self.stores["instruct"]


@dataclass(frozen=True)
class World:
    """A null world (nothing that an analysis may find) or a planted one."""

    name: str
    shape: str
    """What kind of data it is, which says who can read it: `rows`, `pairs`, `lens`, `model`, …"""
    make: Callable[[int], Draw]
    """seed → draw."""
    power: Callable[[int, float], Draw] | None = None
    """seed, strength → draw, where the effect can be made larger and smaller."""
