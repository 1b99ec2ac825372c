"""Writing blocks of rows by offset, each committed by one journal entry once its bytes are on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from ...hooks.errors import LayerprobeError
from .atomic import remove_leftovers
from .creation import Contents, create_file
from .disk_space import bytes_of
from .faults import cannot_write
from .guarded import open_for_reading, read_exactly
from .journal import Entry, Journal, pack_entry, read_journal, write_at
from .layout import ArraySpec, checksum
from .locks import lock_exclusively
from .opening import FileLayout, has_statistics, read_layout
from .statistics import RunningStatistics

Buffers = Mapping[str, np.ndarray]
"""Array key -> [layers, rows of the block, *shape] in the stored type; no layer axis is an axis of one."""

_sync = getattr(os, "fdatasync", os.fsync)


class StoreWriter:
    """The one writer of a file. Blocks are written in order; what is committed survives anything but the
    disk.

    Running statistics have two slots, used in turn: the slot of the last committed block is never written to,
    so a crash in the middle of an update cannot count a block twice.
    """

    def __init__(self, descriptor: int, layout: FileLayout) -> None:
        self._descriptor = descriptor
        self.layout = layout
        self.journal: Journal = read_journal(layout, descriptor)
        self._statistics = {
            spec.key: RunningStatistics(spec.n_layers, spec.shape)
            for spec in layout.arrays
            if has_statistics(spec)
        }
        self._aside = ThreadPoolExecutor(1, thread_name_prefix="layerprobe-statistics")
        self.next_block = 0
        """The first block that is not yet in the running statistics."""

    @classmethod
    def create(cls, path: Path, contents: Contents, *, called: Path | None = None) -> StoreWriter:
        """Make the file and open it for its rows.

        Args:
            path: where.
            contents: what is known of it.
            called: what errors call it, where it gets its own name later.

        Raises:
            LayerprobeError: as `create_file`.
        """
        descriptor = create_file(path, contents)
        try:
            return cls(descriptor, replace(read_layout(path), path=called or path))
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def resume(cls, path: Path) -> StoreWriter:
        """Open an incomplete file, check what is committed and resume after it.

        Raises:
            LayerprobeError: another writer, a damaged structure, or a file that cannot be written.
        """
        layout = read_layout(path)
        remove_leftovers(path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            lock_exclusively(descriptor, path)
            writer = cls(descriptor, layout)
            writer._recover()
        except BaseException:
            os.close(descriptor)
            raise
        return writer

    @classmethod
    def reading(cls, path: Path) -> StoreWriter:
        """Open a file for its blocks alone, without the writer's lock."""
        layout = read_layout(path)
        return cls(open_for_reading(path), layout)

    # recovery
    def _recover(self) -> None:
        """Drop committed blocks whose bytes have changed; take the statistics up where they hold."""
        states = list(self.journal.states)
        for block, entry in enumerate(self.journal.entries):
            if entry is not None and self.block_checksums(block) != entry.data:
                states[block] = "damaged"
        entries = tuple(
            e if s == "committed" else None for e, s in zip(self.journal.entries, states, strict=True)
        )
        self.journal = Journal(entries, tuple(states))
        leading = next((block for block, entry in enumerate(entries) if entry is None), len(entries))
        if leading and self._load_statistics(leading - 1):
            self.next_block = leading

    def _load_statistics(self, block: int) -> bool:
        entry = self.journal.entries[block]
        for dataset, key, shape in self.layout.statistics_specs():
            name = dataset.rsplit("/", 1)[-1]
            kind = getattr(self._statistics[key], name).dtype
            values = np.empty(shape, dtype=kind)
            offset = self.layout.offsets[dataset] + (block % 2) * values.nbytes
            read_exactly(self.path, self._descriptor, values, offset)
            self._statistics[key].load(name, values)
        if entry is not None and self._statistics_checksum() == entry.statistics:
            return True
        for spec in self.layout.arrays:  # start over; `replay` reads the blocks again
            if has_statistics(spec):
                self._statistics[spec.key] = RunningStatistics(spec.n_layers, spec.shape)
        return False

    @property
    def path(self) -> Path:
        """The file."""
        return self.layout.path

    def bytes_left(self) -> int:
        """Bytes of the blocks that are not committed: they may take room that the file does not have yet."""
        open_blocks = [block for block in range(self.layout.plan.n_blocks) if not self.committed(block)]
        return bytes_of(self.layout.arrays, sum(map(self.layout.plan.n_rows_of, open_blocks)))

    def committed(self, block: int) -> bool:
        """Whether a block's bytes are on disk and whole."""
        return self.journal.entries[block] is not None

    def replay(self, block: int) -> None:
        """Take a block that is already on disk into the statistics, unless it is in there."""
        if block < self.next_block:
            return
        buffers = {
            spec.key: self.read_block(spec, block) for spec in self.layout.arrays if has_statistics(spec)
        }
        entry = self.journal.entries[block]
        assert entry is not None
        self._take_in(buffers)
        self._write_statistics(block)
        _sync(self._descriptor)
        self._commit(block, entry.data)

    def read_block(self, spec: ArraySpec, block: int) -> np.ndarray:
        """[layers, rows of the block, *shape] as stored."""
        runs = self.layout.plan.runs_of(block)
        rows = np.empty((spec.n_layers, self.layout.plan.n_rows_of(block), *spec.shape), dtype=spec.storage)
        for layer in range(spec.n_layers):
            done = 0
            for start, stop in runs:
                part = rows[layer, done : done + stop - start]
                read_exactly(self.path, self._descriptor, part, self._offset(spec, layer, start))
                done += stop - start
        return rows

    def expected(self, block: int) -> tuple[int, ...]:
        """Checksums that a committed block's entry holds."""
        entry = self.journal.entries[block]
        return () if entry is None else entry.data

    def block_checksums(self, block: int) -> tuple[int, ...]:
        """Checksums of a block's bytes as they are on disk now."""
        return tuple(checksum(layer) for spec in self.layout.arrays for layer in self.read_block(spec, block))

    # writing
    def write(self, block: int, buffers: Buffers) -> None:
        """Write a block's rows and commit them.

        Args:
            block: the next one.
            buffers: the rows in ascending order, for every array of the file.

        Raises:
            LayerprobeError: the disk is full or refuses; the block is then not committed.
        """
        if block != self.next_block:
            raise LayerprobeError(f"block {block} was written where block {self.next_block} is next")
        runs = self.layout.plan.runs_of(block)
        sums: list[int] = []
        # statistics need the processor, writing waits for the disk: both at once
        taking_in = self._aside.submit(self._take_in, buffers)
        try:
            for spec in self.layout.arrays:
                for layer, rows in enumerate(buffers[spec.key]):
                    sums.append(checksum(rows))
                    self._write_runs(spec, layer, rows, runs)
            if (
                block == self.layout.plan.n_blocks - 1
            ):  # nobody resumes after it: its statistics must last too
                taking_in.result()
                self._write_statistics(block)
            _sync(self._descriptor)
            taking_in.result()
            self._commit(block, tuple(sums))
        except OSError as error:
            raise cannot_write(self.layout.path, error) from None

    def _write_runs(self, spec: ArraySpec, layer: int, rows: np.ndarray, runs: list[tuple[int, int]]) -> None:
        data = memoryview(np.ascontiguousarray(rows).reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        done = 0
        for start, stop in runs:
            size = (stop - start) * spec.row_bytes
            write_at(self._descriptor, data[done : done + size], self._offset(spec, layer, start))
            done += size

    def _offset(self, spec: ArraySpec, layer: int, row: int) -> int:
        return self.layout.offsets[spec.key] + (layer * self.layout.n_rows + row) * spec.row_bytes

    def _take_in(self, buffers: Buffers) -> None:
        for spec in self.layout.arrays:
            if has_statistics(spec):
                for layer, rows in enumerate(buffers[spec.key]):
                    self._statistics[spec.key].update(layer, rows, bfloat16=spec.dtype == "bfloat16")

    def _commit(self, block: int, sums: tuple[int, ...]) -> None:
        self._write_statistics(block)
        entry = Entry(self.layout.plan.n_rows_of(block), self._statistics_checksum(), sums)
        offset = self.layout.offsets["journal"] + block * self.layout.journal.itemsize
        write_at(self._descriptor, pack_entry(self.layout, block, entry), offset)
        entries, states = list(self.journal.entries), list(self.journal.states)
        entries[block], states[block] = entry, "committed"
        self.journal = Journal(tuple(entries), tuple(states))
        self.next_block = block + 1

    def _write_statistics(self, block: int) -> None:
        for dataset, key, _ in self.layout.statistics_specs():
            values = getattr(self._statistics[key], dataset.rsplit("/", 1)[-1])
            slot = self.layout.offsets[dataset] + (block % 2) * values.nbytes
            write_at(self._descriptor, values.tobytes(), slot)

    def _statistics_checksum(self) -> int:
        parts = [values.tobytes() for running in self._statistics.values() for _, values in running.arrays()]
        return checksum(b"".join(parts))

    def close(self) -> None:
        """Sync the journal, release the lock."""
        self._aside.shutdown()
        if self._descriptor >= 0:
            try:
                _sync(self._descriptor)
            except OSError as error:
                raise cannot_write(self.layout.path, error) from None
            finally:
                os.close(self._descriptor)
                self._descriptor = -1

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
