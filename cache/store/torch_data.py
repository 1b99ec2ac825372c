"""A torch `Dataset` over one layer of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...hooks.errors import LayerprobeError

if TYPE_CHECKING:
    from .activations import ActivationStore


class StoreDataset(Dataset[Any]):
    """Rows of one layer, with a label if asked for.

    File-backed stores travel to `DataLoader` workers as a path and are mapped there: nothing is copied, and
    workers share the page cache. A list of indices is fetched in one read.
    """

    def __init__(
        self, store: ActivationStore, site: str, layer: int | None, *, label: str | None = None
    ) -> None:
        if layer is None and store.layers(site):
            raise LayerprobeError(
                f"dataset({site!r}) needs one layer: add layer=, one of {list(store.layers(site))}"
            )
        self._store = store
        self._site = site
        self._layer = layer
        self._length = store.n_rows
        self._labels = None if label is None else label_codes(store.labels(label))
        store.activations(site, layer, rows=slice(0, 1))  # what is missing is said here, not in a worker

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Any:
        if not 0 <= row < self._length:
            raise IndexError(row)  # what ends a `for` over a sequence
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        """Several rows in one read, as `DataLoader` asks for a batch."""
        values = self._store.activations(self._site, self._layer, rows=np.asarray(rows), as_torch=True)
        if self._labels is None:
            return list(values)
        return list(zip(values, self._labels[np.asarray(rows)], strict=True))


def label_codes(values: np.ndarray) -> torch.Tensor:
    """Labels as a tensor: numbers as they are, strings as their place in sorted order.

    >>> label_codes(np.array(["b", "a", "b"], dtype=object))
    tensor([1, 0, 1])
    """
    if values.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(values))
    return torch.from_numpy(np.unique(values.astype(str), return_inverse=True)[1].astype(np.int64))
