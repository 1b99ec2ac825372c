"""Some rows of a store, for analyses with `where`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .study_inputs import row_filter

if TYPE_CHECKING:
    from ..cache.store import ActivationStore


def rows_where(store: ActivationStore, where: dict[str, Any]) -> ActivationStore:
    """The rows whose label columns have these values, behind the interface of a store."""
    if not where:
        return store
    mask = row_filter({name: store.labels(name) for name in where}, where)
    return store.select(mask)
