"""Some rows of a store, for analyses with `where`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...hooks.errors import LayerprobeError

if TYPE_CHECKING:
    from ...cache.store.activations import ActivationStore


def rows_where(store: ActivationStore, where: dict[str, Any]) -> ActivationStore:
    """The rows whose label columns have these values, behind the interface of a store."""
    if not where:
        return store
    mask = row_filter({name: store.labels(name) for name in where}, where)
    return store.select(mask)


def row_filter(labels: dict[str, np.ndarray], where: dict[str, Any]) -> np.ndarray:
    """Which rows have these values in these label columns.

    >>> row_filter({"a": np.array(["x", "y"])}, {"a": "y"})
    array([False,  True])
    """
    mask = np.ones(len(next(iter(labels.values()))) if labels else 0, dtype=bool)
    for column, value in where.items():
        values = labels[column]
        chosen = np.array([_same(v, value) for v in values], dtype=bool)
        if not chosen.any():
            have = ", ".join(sorted({str(v) for v in values})[:8])
            raise LayerprobeError(f"where: no row has {column} = {value!r}; {column} is one of {have}")
        mask &= chosen
    if where and not mask.any():
        raise LayerprobeError(f"where: no row satisfies {where}; loosen one of the conditions")
    return mask


def _same(given: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool):
        return str(given).lower() in (str(wanted).lower(), str(int(wanted)))
    return str(given) == str(wanted)
