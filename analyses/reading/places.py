"""Where probes read: every site × layer × head of a store, and the rows of a task there."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.resampling import check_finite
from .task import Task

NO_VECTORS = {
    "lens": "is a readout of the lens and no vector to probe",
    "attn_pattern": "holds attention over positions, padded where a prompt ends, and no vector to probe",
}
"""Sites that are left out, and why."""


@dataclass(frozen=True, order=True)
class Place:
    """Where a probe reads: a site, its layer if it has layers, a head if it is read by heads."""

    site: str
    layer: int | None
    head: int | None = None


def list_places(
    store: Any, sites: str | Sequence[str] | None, layers: int | Sequence[int] | None
) -> list[Place]:
    """Every site × layer × head that is to be read.

    Args:
        store: an activation store.
        sites: one name or several; `None`: all that hold a vector per row.
        layers: one number or several; `None`: all.

    Raises:
        LayerprobeError: the store has no such site or layer, or the site holds no vectors.
    """
    held = [site for site in store.sites if site not in NO_VECTORS]
    wanted = _wanted_sites(store, held, sites)
    numbers = _wanted_layers(store, wanted, layers)
    places = []
    for site in wanted:
        have = store.layers(site)
        chosen = [layer for layer in have if numbers is None or layer in numbers]
        if have and not chosen:
            raise LayerprobeError(
                f"layers={numbers} are not in this store's {site}, which has {list(have)}; leave layers= out "
                "to read them all"
            )
        for layer in chosen or [None]:
            width = store.activations(site, layer, rows=slice(0, 1)).shape
            places += (
                [Place(site, layer, head) for head in range(width[1])]
                if len(width) == 3
                else [Place(site, layer)]
            )
    return places


def _wanted_sites(store: Any, held: list[str], sites: Any) -> list[str]:
    have = ", ".join(held) or "no site with a vector per row"
    if sites is None:
        if not held:
            raise LayerprobeError(
                "this store has no site with a vector per row; capture one, such as resid_post"
            )
        return held
    names = [sites] if isinstance(sites, str) else list(dict.fromkeys(sites))
    if not names:
        raise LayerprobeError(f"sites={sites!r} names nothing; leave sites= out to read {have}")
    for name in names:
        if name in NO_VECTORS and (name in store.sites or name == "lens"):
            raise LayerprobeError(f"sites={name!r} {NO_VECTORS[name]}; this store holds {have}")
        if name not in held:
            base = str(name).split("[")[0]
            advice = f"; pass sites={base!r} and layers=" if base in held else ""
            raise LayerprobeError(f"site {name!r} is not in this store, which holds {have}{advice}")
    return names


def _wanted_layers(store: Any, sites: Sequence[str], layers: Any) -> list[int] | None:
    if layers is None:
        return None
    try:
        numbers = [operator.index(layer) for layer in ([layers] if np.ndim(layers) == 0 else layers)]
    except TypeError:
        raise LayerprobeError(f"layers={layers!r}, expected a whole number or a list of them") from None
    have = sorted({layer for site in sites for layer in store.layers(site)})
    unknown = [number for number in numbers if number not in have]
    where = f"{', '.join(sites)} of this store: {have}"
    if not numbers:
        raise LayerprobeError(f"layers={layers!r} names nothing; leave layers= out to read all of {where}")
    if unknown and have:
        raise LayerprobeError(
            f"layers={layers!r}: {', '.join(map(str, unknown))} not among the layers of {where}; they count "
            f"from 0, and the last is {have[-1]}"
        )
    return numbers


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
    _check(store, x, place.site, place.layer, task.rows)
    return x


def check_places(store: Any, places: Sequence[Place], tasks: Sequence[Task]) -> None:
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


def _check(store: Any, x: NDArray[Any], site: str, layer: int | None, rows: NDArray[np.int64]) -> None:
    ids = None if store.ids is None else store.ids[rows]
    check_finite(x, site=site, layer=layer, ids=ids, rows=rows)
