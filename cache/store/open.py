"""`open_store`: a store file, or an index of several, as one `ActivationStore`."""

from __future__ import annotations

from pathlib import Path

from .activations import ActivationStore
from .manifest import is_index, open_index
from .reader import open_file


def open_store(path: str | Path) -> ActivationStore:
    """Open a store, memory-mapped.

    Args:
        path: a file written by `capture`, or an index written by `layerprobe merge`.

    Raises:
        LayerprobeError: when there is no such file, it is no store, or its structure is damaged.
    """
    path = Path(path).expanduser()
    store = open_index(path) if is_index(path) else open_file(path)
    store._reopen = open_store
    return store
