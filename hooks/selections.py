"""How a selection of sites and layers is written, and what it picks of a model or a store."""

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import LayerprobeError
from .sites import NO_VECTORS, SiteAt, site_info

_SELECTION = re.compile(r"^\s*(?P<name>\w+)\s*(?:\[(?P<index>[^\]]*)\])?\s*$")
_SLICE = re.compile(r"^\s*(-?\d*)\s*:\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?$")


def parse_sites(selections: Sequence[str | SiteAt] | str, n_layers: int) -> tuple[SiteAt, ...]:
    """Expand selections into sites at layers, in the order given, each once; layers count from 0.

    Args:
        selections: `"resid_post"` (every layer), `"resid_post[3]"`, `"resid_post[8:24:2]"`,
            `"head_out[-4:]"`, `"mlp_out[0,2,5]"`; one or several.
        n_layers: number of blocks L of the model.

    Raises:
        LayerprobeError: unknown site, layer out of range, or a layer given to a site that has none.

    >>> [str(s) for s in parse_sites(["embed", "resid_post[-2:]"], 4)]
    ['embed', 'resid_post[2]', 'resid_post[3]']
    """
    given = [selections] if isinstance(selections, (str, SiteAt)) else list(selections)
    if not given:
        raise LayerprobeError('no sites given: pass for example sites=["resid_post"]')
    found: dict[SiteAt, None] = {}
    for selection in given:
        found.update(dict.fromkeys(_expand(selection, n_layers)))
    return tuple(found)


def select_held(
    held: Mapping[str, Sequence[int]],
    sites: str | Sequence[str] | None = None,
    layers: int | Sequence[int] | None = None,
) -> tuple[SiteAt, ...]:
    """The vectors of a store that are meant by `sites=` and `layers=`: what every analysis goes by.

    Args:
        held: the sites of the store, each with its layers; none for `embed` and `final_norm`.
        sites: one or several of them, or selections such as `resid_post[-4:]`; None: all that hold a vector
            per row.
        layers: one number or several, counted from 0; None: all. A site without layers is not touched by it.

    Returns:
        Sites in the order asked for, the layers of each in the order held.

    Raises:
        LayerprobeError: a site or layer that is not held, or a site that holds no vectors.

    >>> held = {"final_norm": (), "resid_post": (0, 4, 8), "attn_pattern": (0,)}
    >>> [str(at) for at in select_held(held, layers=4)]
    ['final_norm', 'resid_post[4]']
    >>> [str(at) for at in select_held(held, "resid_post[4:]")]
    ['resid_post[4]', 'resid_post[8]']
    """
    vectors = [site for site in held if site not in NO_VECTORS]
    bare, listed = _held_sites(held, vectors, sites), _listed_layers(layers)
    if listed is not None:
        _check_held(held, list(bare), listed, layers)
    found = []
    for site, window in bare.items():
        wanted = window if listed is None else listed
        chosen = [layer for layer in held[site] if wanted is None or layer in wanted]
        if held[site] and not chosen:
            raise LayerprobeError(
                f"layers={wanted} are not in this store's {site}, which has {list(held[site])}; leave "
                "layers= out to read them all"
            )
        found += [SiteAt(site, layer) for layer in chosen] if held[site] else [SiteAt(site)]
    return tuple(found)


def _held_sites(
    held: Mapping[str, Sequence[int]], vectors: list[str], sites: object
) -> dict[str, list[int] | None]:
    """Each site asked for, with the layers that its selection names."""
    have = ", ".join(vectors) or "no site with a vector per row"
    if sites is None:
        if not vectors:
            raise LayerprobeError(f"this store has {have}; capture one, such as resid_post")
        return dict.fromkeys(vectors)
    names = [sites] if isinstance(sites, str) else list(sites) if isinstance(sites, Sequence) else []
    if not names:
        raise LayerprobeError(f"sites={sites!r} names nothing; leave sites= out to read {have}")
    found: dict[str, list[int] | None] = {}
    for given in names:
        name = str(given).split("[")[0].strip()
        if name in NO_VECTORS and (name in held or name == "lens"):
            raise LayerprobeError(f"sites={given!r} {NO_VECTORS[name]}; this store holds {have}")
        if name not in held:
            raise LayerprobeError(f"site {given!r} is not in this store, which holds {have}")
        if "[" not in str(given):
            found[name] = None
        elif name not in found or found[name] is not None:
            window = parse_sites(str(given), max(held[name], default=-1) + 1)
            found[name] = [*(found.get(name) or []), *(at.layer for at in window if at.layer is not None)]
    return found


def _listed_layers(layers: object) -> list[int] | None:
    if layers is None:
        return None
    try:
        several: list[Any] = list(layers) if isinstance(layers, Iterable) else [layers]
        return [operator.index(layer) for layer in several]
    except TypeError:
        raise LayerprobeError(f"layers={layers!r}, expected a whole number or a list of them") from None


def _check_held(
    held: Mapping[str, Sequence[int]], sites: Sequence[str], listed: Sequence[int], given: object
) -> None:
    have = sorted({layer for site in sites for layer in held[site]})
    where = f"{', '.join(sites)} of this store: {have}"
    if not listed:
        raise LayerprobeError(f"layers={given!r} names nothing; leave layers= out to read all of {where}")
    unknown = [number for number in listed if number not in have]
    if unknown and have:
        raise LayerprobeError(
            f"layers={given!r}: {', '.join(map(str, unknown))} not among the layers of {where}; they count "
            f"from 0, and the last is {have[-1]}"
        )


def _expand(selection: object, n_layers: int) -> Iterable[SiteAt]:
    match = _SELECTION.match(str(selection)) if isinstance(selection, (str, SiteAt)) else None
    if match is None:
        raise LayerprobeError(
            f"cannot read the site {selection!r}: write it as resid_post, resid_post[3] or resid_post[8:24:2]"
        )
    info, index = site_info(match["name"]), match["index"]
    if not info.layered:
        if index is not None:
            raise LayerprobeError(f"{selection!r}: {info.name} has no layers, write {info.name}")
        return [SiteAt(info.name)]
    if index is None:
        return [SiteAt(info.name, layer) for layer in range(n_layers)]
    return [SiteAt(info.name, layer) for layer in _layers(index, n_layers, str(selection))]


def _layers(index: str, n_layers: int, selection: str) -> list[int]:
    window = _SLICE.match(index)
    if window is not None:
        start, stop, step = (int(part) if part else None for part in window.groups())
        if step == 0:
            raise LayerprobeError(f"{selection!r}: a slice step cannot be 0")
        layers = list(range(n_layers))[start:stop:step]
        if not layers:
            raise LayerprobeError(f"{selection!r} selects no layer: the model has layers 0 to {n_layers - 1}")
        return layers
    try:
        return [check_layer(int(part), n_layers, selection) for part in index.split(",")]
    except ValueError as error:
        if isinstance(error, LayerprobeError):
            raise
        raise LayerprobeError(
            f"cannot read the layers of {selection!r}: write [3], [8:24:2], [-4:] or [0,2,5]"
        ) from None


def check_layer(layer: int, n_layers: int, given: str) -> int:
    """The layer counted from 0 (negative ones count from the end).

    Raises:
        LayerprobeError: the model has no such layer.
    """
    if not -n_layers <= layer < n_layers:
        raise LayerprobeError(
            f"{given!r}: layer {layer} is out of range, the model has layers 0 to {n_layers - 1}"
        )
    return layer % n_layers
