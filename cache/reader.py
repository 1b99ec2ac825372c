"""A store file as an `ActivationStore`, memory-mapped."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..hooks.errors import LayerprobeError
from .journal import Journal, read_journal
from .layout import ArraySpec
from .lens_table import LensTable
from .opening import FileLayout, read_columns, read_layout
from .store import ActivationStore, StoreInfo


class FileValues:
    """Arrays mapped from a file: pages come in when touched and are shared between processes."""

    def __init__(self, layout: FileLayout, journal: Journal) -> None:
        self._layout = layout
        self._journal = journal
        self._specs = {spec.key: spec for spec in layout.arrays}
        self._maps: dict[str, np.ndarray] = {}

    def stored(self, site: str) -> np.ndarray:
        """[layers, rows, *shape] of a site."""
        return self.array(f"activations/{site}")

    def array(self, key: str) -> np.ndarray:
        """The map of one dataset, with a layer axis."""
        if key not in self._maps:
            self._maps[key] = self._map(self._specs[key])
        return self._maps[key]

    def _map(self, spec: ArraySpec) -> np.ndarray:
        shape = (spec.n_layers, self._layout.n_rows, *spec.shape)
        if 0 in shape:
            return np.empty(shape, dtype=spec.storage)
        offset = self._layout.offsets[spec.key]
        return np.memmap(self._layout.path, dtype=spec.storage, mode="r", offset=offset, shape=shape)

    def check_written(self, rows: np.ndarray | slice) -> None:
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
    layout = read_layout(path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        journal = read_journal(layout, descriptor)
    finally:
        os.close(descriptor)
    return as_store(layout, journal)


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
