"""The journal: which blocks are on disk, with what checksums."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .layout import checksum
from .opening import MAGIC, FileLayout

State = Literal["committed", "empty", "damaged"]


@dataclass(frozen=True)
class Entry:
    """A committed block."""

    rows: int
    statistics: int
    """Checksum of the running statistics after this block."""
    data: tuple[int, ...]
    """Checksum of the block's rows, per array and layer, in the order of the header's arrays."""


@dataclass(frozen=True)
class Journal:
    """All entries of a file at one moment."""

    entries: tuple[Entry | None, ...]
    states: tuple[State, ...]

    @property
    def complete(self) -> bool:
        """Whether every block is committed."""
        return all(state == "committed" for state in self.states)

    @property
    def damaged(self) -> list[int]:
        """Blocks whose entry is neither empty nor whole: torn by a crash, or changed since."""
        return [block for block, state in enumerate(self.states) if state == "damaged"]


def pack_entry(layout: FileLayout, block: int, entry: Entry) -> bytes:
    """An entry's bytes; the last field is a checksum of all before it."""
    record = np.zeros(1, dtype=layout.journal)
    record["magic"], record["block"], record["rows"] = MAGIC, block, entry.rows
    record["statistics"], record["data"] = entry.statistics, entry.data
    record["entry"] = checksum(record.tobytes()[:-8])
    return record.tobytes()


def read_journal(layout: FileLayout, descriptor: int) -> Journal:
    """Read every entry straight from the file's bytes."""
    kind, n_blocks = layout.journal, layout.plan.n_blocks
    raw = read_at(descriptor, layout.offsets["journal"], kind.itemsize * n_blocks)
    entries: list[Entry | None] = []
    states: list[State] = []
    for block in range(n_blocks):
        piece = raw[block * kind.itemsize : (block + 1) * kind.itemsize]
        record = np.frombuffer(piece, dtype=kind)[0]
        whole = (
            record["magic"] == MAGIC
            and record["block"] == block
            and int(record["entry"]) == checksum(piece[:-8])
            and int(record["rows"]) == layout.plan.n_rows_of(block)
        )
        if whole:
            data = tuple(int(value) for value in record["data"])
            entries.append(Entry(int(record["rows"]), int(record["statistics"]), data))
            states.append("committed")
        else:
            entries.append(None)
            states.append("damaged" if any(piece) else "empty")
    return Journal(tuple(entries), tuple(states))


def read_at(descriptor: int, offset: int, size: int) -> bytes:
    """`size` bytes at an offset, zeros beyond the end of the file."""
    parts = []
    while size > 0:
        part = os.pread(descriptor, min(size, 1 << 30), offset)
        if not part:
            parts.append(bytes(size))
            break
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)


def read_into(descriptor: int, data: memoryview, offset: int) -> None:
    """Fill memory from an offset, with zeros beyond the end of the file."""
    while len(data):
        count = os.preadv(descriptor, [data[: 1 << 30]], offset)
        if not count:
            data[:] = bytes(len(data))
            return
        data = data[count:]
        offset += count


def write_at(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """All bytes at an offset; the kernel may take them in several parts."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view[: 1 << 30], offset)
        view = view[written:]
        offset += written
