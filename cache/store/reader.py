"""A store file as an `ActivationStore`, memory-mapped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.journal import Journal, read_journal
from ..file.layout import ArraySpec, checksum
from ..file.opening import FileLayout, has_statistics, read_columns, read_layout
from ..file.statistics import SiteStatistics
from .activations import ActivationStore
from .lens_table import LensTable
from .protocol import RowIndex, StoreInfo


class FileValues:
    """Arrays mapped from a file: pages come in when touched and are shared between processes."""

    def __init__(self, layout: FileLayout, journal: Journal) -> None:
        self._layout = layout
        self._path = layout.path.absolute()  # the working directory may change before anything is read
        self._journal = journal
        self._specs = {spec.key: spec for spec in layout.arrays}
        self._maps: dict[str, np.ndarray] = {}

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row."""
        return self._specs[f"activations/{site}"].shape

    def read(self, site: str, layer: int | None, rows: RowIndex, *, private: bool = False) -> np.ndarray:
        """Rows of one layer or of all: a map of the file for a slice, a copy for single rows."""
        key = f"activations/{site}"
        # a map of its own, copied on write: what its owner changes reaches neither the file nor other readers
        array = self._map(self._specs[key], mode="c") if private else self.array(key)
        return array[:, rows] if layer is None else array[layer][rows]

    def array(self, key: str) -> np.ndarray:
        """The map of one dataset, with a layer axis."""
        if key not in self._maps:
            self._maps[key] = self._map(self._specs[key])
        return self._maps[key]

    def _map(self, spec: ArraySpec, mode: Literal["r", "c"] = "r") -> np.ndarray:
        shape = (spec.n_layers, self._layout.n_rows, *spec.shape)
        if 0 in shape:
            return np.empty(shape, dtype=spec.storage)
        offset = self._layout.offsets[spec.key]
        try:
            # a plain array over the map: numpy's memmap class slows every slice down
            return np.asarray(np.memmap(self._path, spec.storage, mode, offset, shape))
        except FileNotFoundError:
            raise LayerprobeError(
                f"{self._path} was deleted or moved after it was opened: open_store(...) where it is now"
            ) from None

    def statistics(self, site: str) -> SiteStatistics | None:
        """The running statistics after the last block."""
        spec = self._specs[f"activations/{site}"]
        blocks = self._layout.plan.n_blocks
        if not has_statistics(spec) or not self._journal.complete or not blocks:
            return None
        fields, everything = {}, []
        with self._path.open("rb") as file:
            for dataset, key, shape in self._layout.statistics_specs():
                name = dataset.rsplit("/", 1)[-1]
                kind = np.dtype(np.int64 if name in ("count", "nonfinite") else np.float64)
                size = int(np.prod(shape)) * kind.itemsize
                file.seek(self._layout.offsets[dataset] + ((blocks - 1) % 2) * size)
                everything.append(file.read(size))
                if key == spec.key:
                    fields[name] = np.frombuffer(everything[-1], dtype=kind).reshape(shape)
        entry = self._journal.entries[-1]
        if entry is None or checksum(b"".join(everything)) != entry.statistics:
            return None  # changed since: they are computed from the rows
        return SiteStatistics(**fields)

    def check_written(self, rows: RowIndex) -> None:
        """Raise where one of these rows was never written."""
        if self._journal.complete:
            return
        written = np.array([state == "committed" for state in self._journal.states] + [True])
        blocks = self._layout.plan.block_of_prompt[self._layout.examples[rows]]
        missing = int((~written[blocks]).sum())
        if missing:
            done = sum(written[:-1])
            raise LayerprobeError(
                f"{self._layout.path} is incomplete ({done} of {len(written) - 1} blocks committed): "
                f"{missing:,} of "
                f"the rows asked for were never written; finish it by running the same capture again"
            )


def open_file(path: Path) -> ActivationStore:
    """Open a store file.

    Raises:
        LayerprobeError: as `opening.read_layout`.
    """
    return as_store(*open_layout(path))


def open_layout(path: Path) -> tuple[FileLayout, Journal]:
    """A file's layout and what is committed of it.

    Raises:
        LayerprobeError: as `opening.read_layout`.
    """
    layout = read_layout(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return layout, read_journal(layout, descriptor)
    finally:
        os.close(descriptor)


def as_store(layout: FileLayout, journal: Journal) -> ActivationStore:
    """The public object over a layout and what is committed of it."""
    values = FileValues(layout, journal)
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
        provenance={**header["provenance"], **layout.volatile},
        identity=header["identity"],
    )
    return ActivationStore(
        info,
        read_columns(layout.path),
        values,
        examples=layout.examples,
        positions=layout.positions,
        lens=_lens(layout, values),
        path=layout.path,
    )


def _lens(layout: FileLayout, values: FileValues) -> LensTable | None:
    spec = next((spec for spec in layout.arrays if spec.key == "lens/logsumexp"), None)
    if spec is None or layout.candidate_ids is None:
        return None
    names = ("candidate_logits", "candidate_ranks", "logsumexp", "top_ids", "top_logits", "kl_to_final")
    return LensTable(
        layers=spec.layers or (),
        columns=tuple(layout.header["lens_tokens"]),
        candidate_ids=layout.candidate_ids,
        **{name: values.array(f"lens/{name}") for name in names},
    )
