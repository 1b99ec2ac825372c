"""The journal: which blocks are on disk, with what checksums."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .guarded import read_exactly
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


def journal_bytes(layout: FileLayout, descriptor: int) -> bytes:
    """All entries as they are on disk.

    Raises:
        LayerprobeError: the disk refuses.
    """
    raw = np.empty(layout.journal.itemsize * layout.plan.n_blocks, dtype=np.uint8)
    read_exactly(layout.path, descriptor, raw, layout.offsets["journal"])
    return raw.tobytes()


def fingerprint(layout: FileLayout, descriptor: int) -> str:
    """Changes with any committed byte and any label: the journal's checksum, then that of all checksums."""
    return f"{checksum(journal_bytes(layout, descriptor)):016x}{layout.fingerprint}"


def read_journal(layout: FileLayout, descriptor: int) -> Journal:
    """Read every entry straight from the file's bytes.

    Raises:
        LayerprobeError: the disk refuses.
    """
    kind, n_blocks = layout.journal, layout.plan.n_blocks
    raw = journal_bytes(layout, descriptor)
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


def write_at(descriptor: int, data: memoryview | bytes, offset: int) -> None:
    """All bytes at an offset; the kernel may take them in several parts."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(descriptor, view[: 1 << 30], offset)
        view = view[written:]
        offset += written
