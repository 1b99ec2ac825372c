"""`ActivationStore`: activations with everything that is known of their rows, on disk or in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.statistics import RunningStatistics, SiteStatistics, bfloat16_to_float32
from .described import Described
from .protocol import Rows, as_tensor, layer_ranges

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from .torch_data import StoreDataset


class ActivationStore(Described):
    """Activations of a set of prompts at some sites and layers, and what is known of each row.

    File-backed stores (`open_store`, `capture`) and in-memory ones (`from_arrays`) behave alike. One row per
    prompt for rules that pick or pool one token; several for `all` and spans, in example, then position
    order.
    """

    # values
    @overload
    def activations(
        self, site: str, layer: int | None = ..., *, rows: Rows = ..., as_torch: Literal[False] = ...
    ) -> np.ndarray: ...
    @overload
    def activations(
        self, site: str, layer: int | None = ..., *, rows: Rows = ..., as_torch: Literal[True]
    ) -> torch.Tensor: ...
    def activations(
        self, site: str, layer: int | None = None, *, rows: Rows = None, as_torch: bool = False
    ) -> np.ndarray | torch.Tensor:
        """Activations of a site.

        Args:
            site: such as `resid_post`.
            layer: one layer, counted from 0; None for all of them.
            rows: a slice, indices or a boolean mask; None for all.
            as_torch: a tensor; bfloat16 is then mapped as it is instead of copied to float32.

        Returns:
            [rows, *shape] for one layer (or a site without layers), [layers, rows, *shape] for all. A
            read-only map of the file for float32 and float16 slices of a file-backed store.

        Raises:
            LayerprobeError: for a site or layer not held, and for rows that were never written.
        """
        selection = self._selection(rows)
        self._values.check_written(selection)
        one = layer is not None or not self.layers(site)
        index = self._layer_index(site, layer) if one else None
        if as_torch:
            return as_tensor(self._values.read(site, index, selection, private=True), self.dtype)
        array = self._values.read(site, index, selection)
        return bfloat16_to_float32(array) if self.dtype == "bfloat16" else array

    def iter_rows(self, site: str, layer: int | None = None, batch: int = 1024) -> Iterator[np.ndarray]:
        """The rows of a site in order, `batch` at a time: memory stays bounded whatever the file's size."""
        for start in range(0, self.n_rows, batch):
            yield self.activations(site, layer, rows=slice(start, min(start + batch, self.n_rows)))

    def statistics(self, site: str) -> SiteStatistics:
        """Count, mean, variance, extremes, non-finite rows and dominant dimensions per layer of a site.

        Kept at capture; computed in one bounded pass where they were not (arrays in memory, a selection).
        """
        kept = self.kept_statistics(site)
        if kept is not None:
            return kept
        running = RunningStatistics(max(1, len(self.layers(site))), self.shape(site))
        for index, layer in enumerate(self.layers(site) or (None,)):
            for rows in self.iter_rows(site, layer, batch=4096):
                running.update(index, rows)
        return running.result()

    def kept_statistics(self, site: str) -> SiteStatistics | None:
        """The same where they were kept at capture, at no cost; else `None`."""
        return self._values.statistics(self._known(site)) if self.complete else None

    def select(self, rows: Rows) -> ActivationStore:
        """The same store with some of its rows: nothing is copied but the labels and the lens readouts."""
        from .selection import select_rows

        index = np.arange(self.n_rows)[self._selection(rows)]
        return select_rows(self, index)

    def to_frame(self, site: str | None = None, layer: int | None = None) -> pd.DataFrame:
        """A pandas table: one line per row with its id, prompt, position and labels, and the activations if
        asked.

        Args:
            site: add columns `0, 1, ...` with this site's values.
            layer: its layer, for sites that have layers.
        """
        from .selection import to_frame

        return to_frame(self, site, layer)

    def dataset(self, site: str, layer: int | None = None, *, label: str | None = None) -> StoreDataset:
        """A map-style torch `Dataset` of (row, label), safe in any number of `DataLoader` workers."""
        from .torch_data import StoreDataset

        return StoreDataset(self, site, layer, label=label)

    @property
    def file_rows(self) -> np.ndarray | None:
        """[rows] rows of the file that a selection holds, None where it is the whole file."""
        return getattr(self._values, "rows", None)

    # helpers
    def _layer_index(self, site: str, layer: int | None) -> int:
        held = self.layers(site)
        if not held:
            return 0
        if layer not in held:
            raise LayerprobeError(
                f"layer {layer} of {site} is not in this store, which has layers {layer_ranges(held)}"
            )
        return held.index(layer)

    def _selection(self, rows: Rows) -> np.ndarray | slice:
        if rows is None:
            return slice(0, self.n_rows)
        if isinstance(rows, slice):
            return slice(*rows.indices(self.n_rows))
        index = np.asarray(rows)
        if index.dtype == bool:
            if index.shape != (self.n_rows,):
                raise LayerprobeError(
                    f"a mask of shape {index.shape} was given for a store of {self.n_rows} rows"
                )
            return np.flatnonzero(index)
        if index.size and (index.min() < -self.n_rows or index.max() >= self.n_rows):
            raise LayerprobeError(f"row {int(index.max())} was asked of a store of {self.n_rows} rows")
        return index.astype(np.int64)

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        parts = []
        for site in self.sites:
            held = len(self.layers(site))
            shape = " x ".join(str(size) for size in self.shape(site))
            parts.append(f"{site}: {f'{held} layers x ' if held else ''}{self.n_rows:,} rows x {shape}")
        if self.lens is not None:
            parts.append(f"lens: {len(self.lens.layers)} layers x {self.n_rows:,} rows")
        state = "complete" if self.complete else "INCOMPLETE"
        where = "in memory" if self.path is None else str(self.path)
        return f"ActivationStore({'; '.join(parts)}, {self.dtype}, {state}, tokens={self.tokens!r}, {where})"


def open_store(path: str | Path) -> ActivationStore:
    """Open a store, memory-mapped.

    Args:
        path: a file written by `capture`, or an index written by `layerprobe merge`.

    Raises:
        LayerprobeError: when there is no such file, it is no store, or its structure is damaged.
    """
    from .reader import open_file

    return open_file(Path(path).expanduser())
