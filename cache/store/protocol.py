"""What stands behind a store: the protocol of its values, what it says of itself, and conversions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.statistics import SiteStatistics
from .lens_table import LensTable

if TYPE_CHECKING:
    import torch

Rows = slice | Sequence[int] | np.ndarray | None
RowIndex = slice | np.ndarray


class Values(Protocol):
    """Where the numbers lie: an HDF5 file, several of them, or plain arrays."""

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row."""
        ...

    def read(self, site: str, layer: int | None, rows: RowIndex, *, private: bool = False) -> np.ndarray:
        """[rows, *shape] of the layer at an index, [layers, rows, *shape] for None; bfloat16 as uint16 bits.

        Raises where one of the rows was never written, or is damaged.

        `private` asks for memory that the caller may write to without changing anything that others read.
        """
        ...

    def lens_layers(self) -> tuple[int, ...]:
        """Blocks that were read through the lens; () without one."""
        ...

    def lens(self, rows: RowIndex) -> LensTable | None:
        """The lens readouts of some rows, None without a lens. Raise where one of them was never written."""
        ...

    def statistics(self, site: str) -> SiteStatistics | None:
        """Running statistics kept at capture, if any."""
        ...


@dataclass(frozen=True)
class StoreInfo:
    """What a store says of itself, apart from its rows."""

    sites: tuple[str, ...]
    layers: Mapping[str, tuple[int, ...]]
    """Site -> layers held, ascending; () for `embed` and `final_norm`."""
    dtype: str
    """`float32`, `float16`, `bfloat16` or `float64`."""
    tokens: str = "last"
    model_name: str = "arrays"
    dataset_name: str = "arrays"
    complete: bool = True
    provenance: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)


def row_index(rows: Rows, n_rows: int) -> RowIndex:
    """Rows as a slice with bounds, or as indices.

    Args:
        rows: a slice, indices (negative ones count from the end), a boolean mask [n_rows], None for all.
        n_rows: rows that there are.

    Raises:
        LayerprobeError: a mask of another length, an index out of range.

    >>> row_index(None, 3), row_index([True, False, True], 3)
    (slice(0, 3, None), array([0, 2]))
    """
    if rows is None:
        return slice(0, n_rows)
    if isinstance(rows, slice):
        return slice(*rows.indices(n_rows))
    index = np.asarray(rows)
    if index.dtype == bool:
        if index.shape != (n_rows,):
            raise LayerprobeError(f"a mask of shape {index.shape} was given for a store of {n_rows} rows")
        return np.flatnonzero(index)
    if index.size and (index.min() < -n_rows or index.max() >= n_rows):
        wrong = index.max() if index.max() >= n_rows else index.min()
        raise LayerprobeError(f"row {int(wrong)} was asked of a store of {n_rows} rows")
    return index.astype(np.int64)


def as_tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    import torch

    if dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(array))


def layer_ranges(layers: Sequence[int]) -> str:
    """`0-3, 7` rather than a list that fills the screen."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and layer == parts[-1][1] + 1:
            parts[-1][1] = layer
        else:
            parts.append([layer, layer])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
