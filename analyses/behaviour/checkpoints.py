"""Well-known base and instruct checkpoints, with what their templates do that a comparison must know."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from ...hooks.errors import LayerprobeError

FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class CheckpointPair:
    """One family member with its tuned version, by hub id. The notes are for people: nothing acts on them."""

    name: str
    base: str
    instruct: str
    template: str
    """What the chat template is built of."""
    bos: str
    """Who writes the begin-of-sequence token."""
    system: str
    """What becomes of system messages."""
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    """Public checkpoints between the two, in training order."""

    def sources(self) -> dict[str, str]:
        """Name -> hub id in training order, as `load_model` takes them one by one."""
        return {"base": self.base, **self.checkpoints, "instruct": self.instruct}


@cache
def known_pairs() -> dict[str, CheckpointPair]:
    """All registered pairs by name.

    >>> known_pairs()["gemma2_2b"].sources()
    {'base': 'google/gemma-2-2b', 'instruct': 'google/gemma-2-2b-it'}
    """
    return {
        name: CheckpointPair(name, **entry) for name, entry in tomllib.loads(FILE.read_text("utf-8")).items()
    }


def known_pair(name: str) -> CheckpointPair:
    """One pair by its name.

    Raises:
        LayerprobeError: an unknown name; the nearest are listed.
    """
    pairs = known_pairs()
    if name not in pairs:
        near = get_close_matches(name, pairs, n=3, cutoff=0.3) or sorted(pairs)
        raise LayerprobeError(
            f"no registered pair {name!r}; did you mean {', '.join(near)}? Any two hub ids or folders work "
            "too, "
            "without the registry"
        )
    return pairs[name]
