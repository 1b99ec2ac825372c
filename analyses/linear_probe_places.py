"""Where probes read: every site × layer × head of a store, and the rows of a task there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hooks.errors import LayerprobeError
from .linear_probe_task import Task
from .resampling import check_finite


@dataclass(frozen=True, order=True)
class Place:
    """Where a probe reads: a site, its layer if it has layers, a head if it is read by heads."""

    site: str
    layer: int | None
    head: int | None = None


def list_places(store: Any, sites: str | list[str] | None, layers: list[int] | None) -> list[Place]:
    """Every site × layer × head that is to be read.

    Raises:
        LayerprobeError: the store has no such site or layer.
    """
    held = [site for site in store.sites if site != "lens"]
    wanted = held if sites is None else [sites] if isinstance(sites, str) else list(sites)
    places = []
    for site in wanted:
        if site not in held:
            raise LayerprobeError(
                f"site {site!r} is not in this store, which holds {', '.join(held) or 'none'}"
            )
        have = store.layers(site)
        chosen = [layer for layer in have if layers is None or layer in layers]
        if have and not chosen:
            raise LayerprobeError(
                f"layers={list(layers or [])} are not in this store's {site}, which has {list(have)}"
            )
        for layer in chosen or [None]:
            width = store.activations(site, layer, rows=slice(0, 1)).shape
            places += (
                [Place(site, layer, head) for head in range(width[1])]
                if len(width) == 3
                else [Place(site, layer)]
            )
    return places


def width_at(store: Any, place: Place) -> int:
    """Features of a place's rows."""
    return int(store.activations(place.site, place.layer, rows=slice(0, 1)).shape[-1])


def rows_at(store: Any, place: Place, task: Task) -> NDArray[np.float64]:
    """[rows, width] activations of a task's rows, in double precision, all finite."""
    x = np.asarray(store.activations(place.site, place.layer))
    x = x if place.head is None else x[:, place.head]
    x = x[task.rows].astype(np.float64)
    if x.ndim != 2:
        raise LayerprobeError(f"{place.site} has shape {x.shape[1:]} per row; a linear probe reads vectors")
    check_finite(
        x, site=place.site, layer=place.layer, ids=None if store.ids is None else store.ids[task.rows]
    )
    return x
