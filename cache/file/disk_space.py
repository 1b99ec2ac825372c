"""Whether the disk can hold what a capture will write."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...hooks.errors import LayerprobeError
from .layout import ArraySpec

_UNITS = ("B", "kB", "MB", "GB", "TB")


def free_bytes(path: Path) -> int:
    """Bytes that the disk under a path, existing or not, has free."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


def bytes_of(arrays: Iterable[ArraySpec], n_rows: int) -> int:
    """Bytes of so many rows of every array."""
    return n_rows * sum(spec.n_layers * spec.row_bytes for spec in arrays)


def check_disk_space(path: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        LayerprobeError: with the bytes needed and the bytes free.
    """
    free = free_bytes(path)
    if needed > free:
        raise LayerprobeError(
            f"{path} needs {human_bytes(needed)} and its disk has {human_bytes(free)} free: choose fewer "
            f"sites or layers, tokens='last', dtype='bfloat16', or another disk"
        )


def human_bytes(count: float) -> str:
    """Bytes in a unit that fits.

    >>> human_bytes(1536000)
    '1.5 MB'
    """
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
