"""Where probes read: every site × layer × head of a store, and the rows of a task there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.selections import select_held
from ..statistics.resampling import check_finite
from .task import Task


@dataclass(frozen=True, order=True)
class Place:
    """Where a probe reads: a site, its layer if it has layers, a head if it is read by heads."""

    site: str
    layer: int | None
    head: int | None = None


def list_places(
    store: ActivationStore, sites: str | Sequence[str] | None, layers: int | Sequence[int] | None
) -> list[Place]:
    """Every site × layer × head that is to be read.

    Args:
        store: an activation store.
        sites, layers: as `hooks.sites.select_held` reads them; `None`: all that hold a vector per row.

    Raises:
        LayerprobeError: the store has no such site or layer, or the site holds no vectors.
    """
    places = []
    for at in select_held({site: store.layers(site) for site in store.sites}, sites, layers):
        width = store.activations(at.site, at.layer, rows=slice(0, 1)).shape
        heads = range(width[1]) if len(width) == 3 else (None,)
        places += [Place(at.site, at.layer, head) for head in heads]
    return places


def width_at(store: ActivationStore, place: Place) -> int:
    """Features of a place's rows."""
    return int(store.activations(place.site, place.layer, rows=slice(0, 1)).shape[-1])


def rows_at(store: ActivationStore, place: Place, task: Task) -> NDArray[np.float64]:
    """[rows, width] activations of a task's rows, in double precision, all finite."""
    x = np.asarray(store.activations(place.site, place.layer))
    x = x if place.head is None else x[:, place.head]
    x = x[task.rows].astype(np.float64)
    if x.ndim != 2:
        raise LayerprobeError(f"{place.site} has shape {x.shape[1:]} per row; a linear probe reads vectors")
    _check(store, x, place.site, place.layer, task.rows)
    return x


def check_places(store: ActivationStore, places: Sequence[Place], tasks: Sequence[Task]) -> None:
    """Stop at NaN or infinity anywhere before anything is fitted.

    Places whose statistics, kept at capture, count no such row are not read for it.

    Raises:
        LayerprobeError: names the site, the layer, the example and its row in the store.
    """
    rows = np.unique(np.concatenate([task.rows for task in tasks]))
    kept = getattr(store, "kept_statistics", lambda site: None)
    for site, layer in dict.fromkeys((place.site, place.layer) for place in places):
        found = kept(site)
        if (
            found is not None
            and not found.nonfinite[0 if layer is None else list(store.layers(site)).index(layer)]
        ):
            continue
        _check(store, np.asarray(store.activations(site, layer))[rows], site, layer, rows)


def _check(
    store: ActivationStore, x: NDArray[Any], site: str, layer: int | None, rows: NDArray[np.int64]
) -> None:
    ids = None if store.ids is None else store.ids[rows]
    check_finite(x, site=site, layer=layer, ids=ids, rows=rows)
