"""A store file as an `ActivationStore`: every row passes one gate, which knows what was written and with what
checksum.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import xxhash

from ...hooks.errors import LayerprobeError
from ..file.faults import damaged
from ..file.journal import Journal, fingerprint, read_journal
from ..file.layout import ArraySpec, checksum
from ..file.opening import FileLayout, columns_of, has_statistics, layout_of, open_guarded
from ..file.statistics import SiteStatistics
from ..prompts.columns import PromptColumns
from .activations import ActivationStore
from .lens_table import LENS_ARRAYS, LensTable
from .mapping import FileMap
from .protocol import RowIndex, StoreInfo

Verify = Literal["first-touch", "all", "off"]

VERIFY: tuple[Verify, ...] = ("first-touch", "all", "off")


class FileValues:
    """Arrays mapped from a file. No row is handed out that was never written, nor, unless told otherwise, one
    whose block has other bytes than its checksum says.
    """

    def __init__(self, layout: FileLayout, journal: Journal, seen: str, *, verify: Verify) -> None:
        self._layout = layout
        self._journal = journal
        self._map = FileMap(layout, complete=journal.complete, seen=seen)
        self._specs = {spec.key: spec for spec in layout.arrays}
        starts = np.cumsum([0, *(spec.n_layers for spec in layout.arrays)])
        self._first = dict(zip(self._specs, starts.tolist(), strict=False))
        """Where an array's layers begin in a journal entry."""
        self._sound = np.zeros((int(starts[-1]), layout.plan.n_blocks), dtype=bool)
        """[arrays x layers, blocks] whether the bytes were compared."""
        if verify == "off":
            self._sound[:] = True
        if verify == "all":
            everything = np.flatnonzero([state == "committed" for state in journal.states])
            for spec in layout.arrays:
                self._compare(spec, None, everything)

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row."""
        return self._specs[f"activations/{site}"].shape

    def read(self, site: str, layer: int | None, rows: RowIndex, *, private: bool = False) -> np.ndarray:
        """Rows of one layer or of all: a map of the file for a slice, a copy for single rows."""
        return self._rows(self._specs[f"activations/{site}"], layer, rows, private=private)

    def _rows(
        self, spec: ArraySpec, layer: int | None, rows: RowIndex, *, private: bool = False
    ) -> np.ndarray:
        """The gate: everything that leaves this file goes through it."""
        blocks = self._blocks(rows)
        self._check_written(blocks, rows)
        self._compare(spec, layer, blocks)
        array = self._map.array(spec, private=private and isinstance(rows, slice))
        return np.asarray(array[:, rows] if layer is None else array[layer][rows])

    def _blocks(self, rows: RowIndex) -> np.ndarray:
        """Blocks that hold some rows."""
        plan = self._layout.plan
        if (
            isinstance(rows, slice)
            and rows == slice(0, self._layout.n_rows, rows.step)
            and rows.step in (None, 1)
        ):
            return np.arange(plan.n_blocks)
        seen = np.zeros(plan.n_blocks, dtype=bool)
        seen[plan.block_of_prompt[self._layout.examples[rows]]] = True
        return np.flatnonzero(seen)

    def _compare(self, spec: ArraySpec, layer: int | None, blocks: np.ndarray) -> None:
        """Compare blocks that were not looked at before with the checksums of their journal entries."""
        layers = range(spec.n_layers) if layer is None else (layer,)
        for one in layers:
            at = self._first[spec.key] + one
            unseen = blocks[~self._sound[at, blocks]]
            if not len(unseen):
                continue
            values = self._map.array(spec)[one]
            for block in unseen.tolist():
                entry, runs = self._journal.entries[block], self._layout.plan.runs_of(block)
                if entry is None or _checksum_of(values, runs) != entry.data[at]:
                    rows = ", ".join(f"{start}-{stop - 1}" for start, stop in runs[:3])
                    name = spec.key if spec.layers is None else f"{spec.key}[{spec.layers[one]}]"
                    raise damaged(
                        self._layout.path,
                        f"{name}, block {block} (rows {rows}{', ...' if len(runs) > 3 else ''})",
                        "has other bytes than were written (verify='off' in open_store reads it nonetheless)",
                    )
                self._sound[at, block] = True

    def _check_written(self, blocks: np.ndarray, rows: RowIndex) -> None:
        if self._journal.complete:
            return
        states = self._journal.states
        if all(states[block] == "committed" for block in blocks.tolist()):
            return
        written = np.array([state == "committed" for state in states])
        missing = int((~written[self._layout.plan.block_of_prompt[self._layout.examples[rows]]]).sum())
        raise LayerprobeError(
            f"{self._layout.path} is incomplete ({int(written.sum())} of {len(written)} blocks committed): "
            f"{missing:,} of the rows asked for were never written; finish it by running the same "
            f"capture again"
        )

    def lens_layers(self) -> tuple[int, ...]:
        """Blocks that were read through the lens; () without one."""
        spec = self._specs.get("lens/logsumexp")
        return () if spec is None or self._layout.candidate_ids is None else spec.layers or ()

    def lens(self, rows: RowIndex) -> LensTable | None:
        """The lens readouts of some rows."""
        candidates = self._layout.candidate_ids
        if not self.lens_layers() or candidates is None:
            return None
        return LensTable(
            layers=self.lens_layers(),
            columns=tuple(self._layout.header["lens_tokens"]),
            candidate_ids=candidates[rows],
            **{
                name: self._rows(self._specs[f"lens/{name}"], None, rows)
                for name in LENS_ARRAYS
                if name != "candidate_ids"
            },
        )

    def statistics(self, site: str) -> SiteStatistics | None:
        """The running statistics after the last block."""
        spec, blocks = self._specs[f"activations/{site}"], self._layout.plan.n_blocks
        if not has_statistics(spec) or not self._journal.complete or not blocks:
            return None
        fields, everything = {}, []
        for dataset, key, shape in self._layout.statistics_specs():
            name = dataset.rsplit("/", 1)[-1]
            kind = np.dtype(np.int64 if name in ("count", "nonfinite") else np.float64)
            slot = self._map.values(dataset, (2, *shape), kind)[(blocks - 1) % 2]
            everything.append(slot.tobytes())
            if key == spec.key:
                fields[name] = slot.copy()
        entry = self._journal.entries[-1]
        if entry is None or checksum(b"".join(everything)) != entry.statistics:
            return None  # changed since: they are computed from the rows
        return SiteStatistics(**fields)


def _checksum_of(values: np.ndarray, runs: list[tuple[int, int]]) -> int:
    """xxh3-64 of some rows of [rows, *shape], without a copy."""
    if len(runs) == 1:
        return checksum(values[runs[0][0] : runs[0][1]])
    state = xxhash.xxh3_64()
    for start, stop in runs:
        part = values[start:stop]
        if part.size:
            state.update(memoryview(part.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]
    return state.intdigest()


def open_file(path: Path, verify: Verify = "first-touch") -> ActivationStore:
    """Open a store file.

    Raises:
        LayerprobeError: as `opening.read_layout`; `verify` is none of its three words.
    """
    return read_whole(path, verify)[0]


def read_whole(
    path: Path, verify: Verify = "first-touch"
) -> tuple[ActivationStore, FileLayout, Journal, str]:
    """A store, its layout, what is committed of it, and its fingerprint, all of one moment.

    Raises:
        LayerprobeError: as `open_file`.
    """
    if verify not in VERIFY:
        raise LayerprobeError(f"verify={verify!r}: expected one of {', '.join(VERIFY)}")
    with open_guarded(path) as file:
        layout = layout_of(file)
        columns = columns_of(file, layout)
        journal, seen = read_journal(layout, file.descriptor), fingerprint(layout, file.descriptor)
    values = FileValues(layout, journal, seen, verify=verify)
    return _as_store(layout, journal, columns, values), layout, journal, seen


def _as_store(
    layout: FileLayout, journal: Journal, columns: PromptColumns, values: FileValues
) -> ActivationStore:
    header = layout.header
    sites = [spec for spec in layout.arrays if spec.key.startswith("activations/")]
    info = StoreInfo(
        sites=tuple(spec.key.removeprefix("activations/") for spec in sites),
        layers={spec.key.removeprefix("activations/"): spec.layers or () for spec in sites},
        dtype=header["dtype"],
        tokens=header["tokens"],
        model_name=header["model_name"],
        dataset_name=header["dataset_name"],
        complete=journal.complete,
        provenance={**layout.volatile, **header["provenance"]},
        identity=header["identity"],
    )
    return ActivationStore(
        info, columns, values, examples=layout.examples, positions=layout.positions, path=layout.path
    )
