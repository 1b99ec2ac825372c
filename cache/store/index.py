"""Several stores as one, by rows (shards, added prompts) and by sites (added layers)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.opening import FileLayout
from ..file.statistics import SiteStatistics
from ..prompts.columns import PromptColumns, join_columns
from .activations import ActivationStore
from .lens_table import LENS_ARRAYS, LensTable
from .protocol import RowIndex, StoreInfo
from .reader import Verify, read_whole
from .selection import select_lens


@dataclass(frozen=True)
class Part:
    """One store of an index, opened."""

    path: Path
    layout: FileLayout
    store: ActivationStore
    fingerprint: str
    """Changes whenever a byte of the store's rows or metadata does: its journal and its checksums, hashed."""

    def layer_index(self, site: str, layer: int | None) -> int | None:
        """Where this part keeps a layer of a site, None where it does not."""
        if site not in self.store.sites:
            return None
        held = self.store.layers(site)
        if not held:
            return 0
        return held.index(layer) if layer in held else None


def open_part(path: Path, verify: Verify = "first-touch") -> Part:
    """Open a store to stand in an index.

    Raises:
        LayerprobeError: the store is missing, damaged or incomplete.
    """
    store, layout, journal, seen = read_whole(path, verify)
    if not journal.complete:
        raise LayerprobeError(f"{path} is incomplete: finish it by running its capture again")
    return Part(path, layout, store, seen)


class IndexValues:
    """Rows gathered from a grid of stores: groups of rows, each of one or more parts that hold different
    sites.
    """

    def __init__(self, groups: Sequence[Sequence[Part]], layers: dict[str, tuple[int, ...]]) -> None:
        self._groups = groups
        self._layers = layers
        self._starts = np.concatenate([[0], np.cumsum([parts[0].store.n_rows for parts in groups])])

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row."""
        return next(part.store.shape(site) for part in self._groups[0] if site in part.store.sites)

    def read(self, site: str, layer: int | None, rows: RowIndex, *, private: bool = False) -> np.ndarray:
        """Rows of one layer or of all; a map where one part holds them all in order."""
        numbers: tuple[int | None, ...] = self._layers[site] or (None,)
        if layer is None:
            return np.stack([self._read(site, number, rows, private) for number in numbers])
        return self._read(site, numbers[layer], rows, private)

    def _read(self, site: str, number: int | None, rows: RowIndex, private: bool) -> np.ndarray:
        if isinstance(rows, slice) and rows.step in (None, 1) and rows.stop > rows.start:
            first, last = np.searchsorted(self._starts, [rows.start, rows.stop - 1], side="right") - 1
            parts = []
            for group in range(first, last + 1):
                base, end = self._starts[group], self._starts[group + 1]
                inside = slice(int(max(rows.start, base) - base), int(min(rows.stop, end) - base))
                parts.append(self._part(group, site, number, inside, private))
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        index = np.arange(self._starts[-1])[rows]
        group_of = np.searchsorted(self._starts, index, side="right") - 1
        out: np.ndarray | None = None
        for group in np.unique(group_of):
            mine = group_of == group
            found = self._part(int(group), site, number, index[mine] - self._starts[group], private)
            if out is None:
                out = np.empty((len(index), *found.shape[1:]), dtype=found.dtype)
            out[mine] = found
        return self._part(0, site, number, slice(0, 0), private) if out is None else out

    def _part(self, group: int, site: str, number: int | None, rows: RowIndex, private: bool) -> np.ndarray:
        for part in self._groups[group]:
            at = part.layer_index(site, number)
            if at is not None:
                return part.store.values.read(site, at, rows, private=private)
        raise LayerprobeError(
            f"{self._groups[group][0].path} holds no {site}[{number}]: make the index again"
        )

    def lens_layers(self) -> tuple[int, ...]:
        """Blocks that every group of rows was read at through the lens."""
        held = [[part for part in parts if part.store.lens_layers] for parts in self._groups]
        return held[0][0].store.lens_layers if all(held) else ()

    def lens(self, rows: RowIndex) -> LensTable | None:
        """The readouts of some rows, joined."""
        joined = _join_lens(self._groups)
        everything = isinstance(rows, slice) and rows == slice(0, int(self._starts[-1]), None)
        return joined if joined is None or everything else select_lens(joined, rows)

    def statistics(self, site: str) -> SiteStatistics | None:
        """Computed from the rows where asked for."""
        return None


def joined_layers(groups: Sequence[Sequence[Part]]) -> dict[str, tuple[int, ...]]:
    """Site -> layers that every group of rows holds.

    Raises:
        LayerprobeError: groups that hold different sites or layers.
    """
    per_group = []
    for parts in groups:
        held: dict[str, tuple[int, ...]] = {}
        for part in parts:
            for site in part.store.sites:
                held[site] = tuple(sorted({*held.get(site, ()), *part.store.layers(site)}))
        per_group.append(held)
    for parts, held in zip(groups, per_group, strict=True):
        if held != per_group[0]:
            raise LayerprobeError(
                f"{parts[0].path} holds {sorted(held)}, {groups[0][0].path} holds {sorted(per_group[0])}, "
                f"or other layers of them: capture the same sites for all rows"
            )
    return dict(sorted(per_group[0].items()))


def join(groups: Sequence[Sequence[Part]], *, identity: dict[str, Any], path: Path | None) -> ActivationStore:
    """Parts as one store."""
    layers = joined_layers(groups)
    first = groups[0][0].store
    stores = [parts[0].store for parts in groups]
    starts = np.concatenate([[0], np.cumsum([store.n_prompts for store in stores])])
    info = StoreInfo(
        sites=tuple(layers),
        layers=layers,
        dtype=first.dtype,
        tokens=first.tokens,
        model_name=first.model_name,
        dataset_name=first.dataset_name,
        provenance={**first.provenance, "parts": [str(part.path) for parts in groups for part in parts]},
        identity=identity,
    )
    columns: PromptColumns = join_columns([parts[0].store.columns for parts in groups])
    return ActivationStore(
        info,
        columns,
        IndexValues(groups, layers),
        examples=np.concatenate(
            [store.examples + base for store, base in zip(stores, starts[:-1], strict=True)]
        ),
        positions=np.concatenate([store.positions for store in stores]),
        path=path,
    )


def _join_lens(groups: Sequence[Sequence[Part]]) -> LensTable | None:
    holders = [next((part.store for part in parts if part.store.lens_layers), None) for parts in groups]
    # not `store.lens`, which would keep every file mapped
    found = [None if one is None else one.values.lens(slice(0, one.n_rows)) for one in holders]
    tables = [table for table in found if table is not None]
    if len(tables) < len(groups):
        return None
    if len(tables) == 1:
        return tables[0]
    width = max(table.candidate_ids.shape[-1] for table in tables)
    tables = [_widened(table, width) for table in tables]
    joined = {
        name: np.concatenate(
            [getattr(table, name) for table in tables], axis=0 if name == "candidate_ids" else 1
        )
        for name in LENS_ARRAYS
    }
    return LensTable(layers=tables[0].layers, columns=tables[0].columns, **joined)


def _widened(table: LensTable, width: int) -> LensTable:
    extra = width - table.candidate_ids.shape[-1]

    def pad(values: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, extra)], constant_values=fill)

    return replace(
        table,
        candidate_ids=pad(table.candidate_ids, -1),
        candidate_logits=pad(table.candidate_logits, np.nan),
        candidate_ranks=pad(table.candidate_ranks, -1),
    )
