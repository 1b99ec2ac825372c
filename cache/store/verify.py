"""`layerprobe verify`: every byte of a store against its checksums."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.faults import Unreadable
from ..file.guarded import open_for_reading, read_exactly
from ..file.journal import Journal, read_journal
from ..file.layout import ArraySpec, checksum
from ..file.opening import FileLayout, has_statistics, read_columns, read_layout
from .index import open_part
from .manifest import is_index, read_manifest


@dataclass(frozen=True)
class VerifyReport:
    """What a check of a store found."""

    path: Path
    complete: bool
    """Whether every block is committed."""
    blocks: int
    """Committed blocks whose bytes were compared."""
    bytes: int
    """Bytes compared."""
    problems: tuple[str, ...]
    """What is damaged, one line each."""
    of: int = 0
    """Blocks that there are, committed or not."""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged. An incomplete store may be sound as far as it goes."""
        return not self.problems

    def __str__(self) -> str:
        counted = f"{self.blocks} blocks, {self.bytes:,} bytes compared"
        if self.ok and self.complete:
            return f"{self.path}: sound ({counted})"
        if self.ok:
            return (
                f"{self.path}: INCOMPLETE ({counted}, nothing wrong with them; {self.of - self.blocks} of "
                f"{self.of} blocks were never written): run the same capture again to finish it"
            )
        listed = "\n".join(f"  {problem}" for problem in self.problems)
        return (
            f"{self.path}: DAMAGED ({len(self.problems)} places)\n{listed}\n"
            f"run the same capture again if the file is incomplete; otherwise restore it or capture anew"
        )


def verify(path: str | Path) -> VerifyReport:
    """Compare a store with its checksums, all of it.

    Args:
        path: a store, or an index made by `merge` (then its manifest and every shard).

    Raises:
        LayerprobeError: there is no such file, or it cannot be read now (permissions, handles, the disk).

    >>> import tempfile
    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model, path = lp.load_model(demo.models()["base"], check=False), Path(tempfile.mkdtemp()) / "a.h5"
    >>> _ = lp.capture(model, ["who was late ?"], sites="embed", path=path, progress=False)
    >>> report = lp.verify(path)
    >>> report.ok, report.complete, report.bytes
    (True, True, 384)
    """
    path = Path(path)
    if not path.exists():
        raise LayerprobeError(f"no store at {path}: check the path")
    try:
        if is_index(path):
            return verify_index(path)
        layout = read_layout(path)
        read_columns(path)
        problems: list[str] = []
    except Unreadable:
        raise  # nothing is known of its bytes
    except LayerprobeError as error:
        return VerifyReport(path, False, 0, 0, (str(error).removeprefix(f"{path}").lstrip(": "),))
    descriptor = open_for_reading(path)
    try:
        journal = read_journal(layout, descriptor)
        problems += [f"journal entry of block {block}" for block in journal.damaged]
        compared = 0
        for spec, layer, block, found in block_checksums(layout, journal, descriptor):
            compared += layout.plan.n_rows_of(block) * spec.row_bytes
            if found != _expected(layout, journal, spec, layer, block):
                problems.append(f"{_name(spec, layer)}, block {block} (rows {_rows(layout, block)})")
        problems += _statistics_problems(layout, journal, descriptor)
    finally:
        os.close(descriptor)
    done = journal.states.count("committed")
    return VerifyReport(path, journal.complete, done, compared, tuple(problems), layout.plan.n_blocks)


def verify_index(path: Path) -> VerifyReport:
    """Check the manifest and every part."""
    manifest = read_manifest(path)
    problems: list[str] = []
    blocks = compared = 0
    for entry in (entry for entries in manifest["groups"] for entry in entries):
        where = path.parent / entry["path"]
        if not where.exists():
            problems.append(f"the part {where} is missing")
            continue
        report = verify(where)
        blocks, compared = blocks + report.blocks, compared + report.bytes
        problems += [f"{where}: {problem}" for problem in report.problems]
        if report.ok and (not report.complete or open_part(where).fingerprint != entry["fingerprint"]):
            problems.append(f"{where} is not the store it was when the index was made")
    return VerifyReport(path, True, blocks, compared, tuple(problems), blocks)


def block_checksums(
    layout: FileLayout, journal: Journal, descriptor: int
) -> Iterator[tuple[ArraySpec, int, int, int]]:
    """(array, layer index, block, checksum of its bytes now) of everything committed."""
    for block, state in enumerate(journal.states):
        if state != "committed":
            continue
        runs = layout.plan.runs_of(block)
        for spec in layout.arrays:
            for layer in range(spec.n_layers):
                base = layout.offsets[spec.key] + layer * layout.n_rows * spec.row_bytes
                rows = np.empty((layout.plan.n_rows_of(block), spec.row_bytes), dtype=np.uint8)
                done = 0
                for start, stop in runs:
                    part = rows[done : done + stop - start]
                    read_exactly(layout.path, descriptor, part, base + start * spec.row_bytes)
                    done += stop - start
                yield spec, layer, block, checksum(rows)


def _expected(layout: FileLayout, journal: Journal, spec: ArraySpec, layer: int, block: int) -> int:
    entry = journal.entries[block]
    assert entry is not None
    before = sum(other.n_layers for other in layout.arrays[: layout.arrays.index(spec)])
    return entry.data[before + layer]


def _statistics_problems(layout: FileLayout, journal: Journal, descriptor: int) -> list[str]:
    """The last block's slot must be the one its entry speaks of; before the end a resume sees to that."""
    last = layout.plan.n_blocks - 1
    if last < 0 or not journal.complete or not any(has_statistics(spec) for spec in layout.arrays):
        return []
    parts = []
    for dataset, _, shape in layout.statistics_specs():
        values = np.empty(shape, dtype=np.uint64)
        offset = layout.offsets[dataset] + (last % 2) * values.nbytes
        read_exactly(layout.path, descriptor, values, offset)
        parts.append(values.tobytes())
    entry = journal.entries[last]
    assert entry is not None
    same = checksum(b"".join(parts)) == entry.statistics
    return [] if same else ["running statistics (they are computed from the rows instead)"]


def _name(spec: ArraySpec, layer: int) -> str:
    return spec.key if spec.layers is None else f"{spec.key}[{spec.layers[layer]}]"


def _rows(layout: FileLayout, block: int) -> str:
    runs = layout.plan.runs_of(block)
    return f"{runs[0][0]}-{runs[-1][1] - 1}" + (f" in {len(runs)} runs" if len(runs) > 1 else "")
