"""Directions on disk: one safetensors file, keys `[target number/]kind/site/layer`, order in its metadata."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .directions import Arrays, Directions

ABOUT = "layerprobe"


def save_directions(directions: Directions, path: Path) -> None:
    """Write every array and how they belong together."""
    from safetensors.numpy import save

    parts = list(directions.by_target.values())
    flat = _flat(directions, "")
    for index, part in enumerate(parts):
        flat |= _flat(part, f"{index}/")
    about = {
        "order": list(flat),
        "names": list(directions.names),
        "axis": directions.axis,
        "targets": [
            {"name": name, "names": list(part.names), "axis": part.axis}
            for name, part in directions.by_target.items()
        ],
    }
    # its own save_file leaves files that no one else may read, and has an error of its own for a full disk
    path.write_bytes(save(flat, metadata={ABOUT: json.dumps(about)}))


def _flat(directions: Directions, before: str) -> dict[str, NDArray[Any]]:
    named = {"weights": directions.weights, "bias": directions.bias, **directions.extra}
    return {
        f"{before}{kind}/{site}/{'' if layer is None else layer}": np.ascontiguousarray(value)
        if np.ndim(value)
        else np.asarray(value)
        for kind, sites in named.items()
        for site, layers in sites.items()
        for layer, value in layers.items()
    }


def load_directions(path: Path, names: tuple[str, ...], axis: str) -> Directions:
    """Read them as they were; files without an order have sites by name and layers ascending.

    Args:
        path: of the file.
        names: of targets or classes, for a file that does not name them.
        axis: what the names are of, for such a file.
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="numpy") as stored:
        metadata = stored.metadata() or {}
        arrays = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    if ABOUT not in metadata:
        return _gathered(dict(sorted(arrays.items(), key=_ascending)), names, axis)
    about = json.loads(metadata[ABOUT])
    ordered = {key: arrays[key] for key in about["order"]}
    by_target = {}
    for index, part in enumerate(about["targets"]):
        before = f"{index}/"
        mine = {key.removeprefix(before): v for key, v in ordered.items() if key.startswith(before)}
        by_target[part["name"]] = _gathered(mine, tuple(part["names"]), part["axis"])
    whole = {key: value for key, value in ordered.items() if key.count("/") == 2}
    return _gathered(whole, tuple(about["names"]), about["axis"], by_target)


def _ascending(item: tuple[str, Any]) -> tuple[str, str, int]:
    kind, site, layer = item[0].split("/")
    return kind, site, int(layer) if layer else -1


def _gathered(
    arrays: dict[str, NDArray[Any]],
    names: tuple[str, ...],
    axis: str,
    by_target: dict[str, Directions] | None = None,
) -> Directions:
    kinds: dict[str, Arrays] = {"weights": {}, "bias": {}}
    for key, value in arrays.items():
        kind, site, layer = key.split("/")
        kinds.setdefault(kind, {}).setdefault(site, {})[int(layer) if layer else None] = value
    return Directions(kinds.pop("weights"), kinds.pop("bias"), names, kinds, axis, by_target or {})
