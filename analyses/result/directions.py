"""Probe directions in raw activation space: they score activations as they are, and steer as they are."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError

Arrays = dict[str, dict[int | None, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Directions:
    """Weights and biases per site and layer: `score = activations @ weight + bias`.

    No centring or scaling is left to be applied: what the probe fitted is folded into weight and bias, in
    double precision, so that scores hold at any offset of the activations. `of(label)` are the directions of
    one label; its weight at a site read by heads, [heads, d_head], is what `add("head_out", vector=…)` takes.

    >>> d = Directions({"resid_post": {0: np.array([1.0, 0.0])}}, {"resid_post": {0: np.array(-1.0)}})
    >>> d.score([[3.0, 5.0]], "resid_post", 0).tolist()
    [2.0]
    """

    weights: Arrays
    """`weights[site][layer]`, in raw space; the layer of a site without layers is `None`.

    - one label of two classes, or graded: [width]; by heads [heads, d_head];
    - one label of more classes: [classes, width]; by heads [heads, classes, d_head];
    - several labels of one direction each: [targets, width]; by heads [targets, heads, d_head];
    - pooled probes of several score vectors: [vectors, width]; by heads [heads, vectors, d_head].

    Labels that share no shape, such as one of two classes and one of three, are in `by_target` alone."""
    bias: Arrays
    """`bias[site][layer]`: as the weight without its last axis; one number for all vectors of a pooled
    probe."""
    names: tuple[str, ...] = ()
    """Names along the axis of targets or classes, where there is one."""
    extra: dict[str, Arrays] = field(default_factory=dict)
    """Further arrays by name, such as `fold_cosine`: mean cosine between directions of different folds."""
    axis: str = "targets"
    """What `names` are of: `targets` or `classes`."""
    by_target: Mapping[str, "Directions"] = field(default_factory=dict)
    """Directions of each label, where labels share no shape; `of(label)` gives them in any case."""

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        first = next(iter(self.by_target.values()), self)
        return ((site, layer) for site, layers in first.weights.items() for layer in layers)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, key: tuple[str, int | None]) -> NDArray[Any]:
        site, layer = key
        if (site, layer) not in list(self):
            have = ", ".join(f"{s}[{n}]" if n is not None else s for s, n in self) or "none"
            raise LayerprobeError(f"no direction for {site}[{layer}]; this result has {have}")
        if self.by_target:
            shapes = ", ".join(f"{name!r} {list(one[key].shape)}" for name, one in self.by_target.items())
            raise LayerprobeError(
                f"the labels' directions at {site}[{layer}] share no shape ({shapes}); take one label: "
                f"directions.of({next(iter(self.by_target))!r})[{site!r}, {layer}]"
            )
        return self.weights[site][layer]

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the labels, where there are several."""
        return tuple(self.by_target) or (self.names if self.axis == "targets" else ())

    def of(self, target: str) -> "Directions":
        """Directions of one label out of several.

        Args:
            target: the label.

        Raises:
            LayerprobeError: no such label, or these are the directions of one.
        """
        if target in self.by_target:
            return self.by_target[target]
        if target not in self.targets:
            have = ", ".join(map(repr, self.targets)) or "one label only: use them as they are"
            raise LayerprobeError(f"no directions of {target!r}; these are of {have}")
        index = self.targets.index(target)

        def one(arrays: Arrays) -> Arrays:
            return {site: {n: value[index] for n, value in layers.items()} for site, layers in arrays.items()}

        return Directions(
            one(self.weights), one(self.bias), extra={name: one(part) for name, part in self.extra.items()}
        )

    def score(
        self, activations: ArrayLike, site: str, layer: int | None, *, target: str | None = None
    ) -> NDArray[np.float64]:
        """Scores of raw activations.

        Args:
            activations: [rows, width], or [rows, heads, d_head] for directions per head.
            site: site name.
            layer: layer, or `None` for a site without layers.
            target: of which label alone; needed where labels share no shape.

        Returns:
            [rows] and after it the axes of the weight but its last: [rows], [rows, targets], [rows, classes],
            [rows, heads], [rows, targets, heads] or [rows, heads, classes].
        """
        if target is not None:
            return self.of(target).score(activations, site, layer)
        weight = np.asarray(self[site, layer], dtype=np.float64)
        bias = np.asarray(self.bias[site][layer], dtype=np.float64)
        rows = np.asarray(activations, dtype=np.float64)
        if rows.shape[-1] != weight.shape[-1]:
            raise LayerprobeError(
                f"activations of width {rows.shape[-1]} cannot be scored by a direction of width "
                f"{weight.shape[-1]} ({site}[{layer}]); score the same model's site, or fit a probe on these"
            )
        bias = bias.reshape((*bias.shape, *(1,) * (weight.ndim - 1 - bias.ndim)))
        if rows.ndim == 2:
            return np.einsum("rd,...d->r...", rows, weight) + bias
        before = "t" if self.axis == "targets" and self.names and weight.ndim > 2 else ""
        after = "k" if weight.ndim - 2 - len(before) > 0 else ""
        axes = f"{before}h{after}"
        head_axis = len(before)
        if rows.ndim != 3 or weight.ndim != len(axes) + 1 or rows.shape[1] != weight.shape[head_axis]:
            raise LayerprobeError(
                f"activations of shape {list(rows.shape)} do not fit directions of shape "
                f"{list(weight.shape)} at {site}[{layer}]; pass [rows, width], or [rows, heads, d_head] "
                "where the site was read by heads"
            )
        return np.einsum(f"rhd,{axes}d->r{axes}", rows, weight) + bias

    def save(self, path: Path) -> None:
        """Write every array to one safetensors file, their order beside them."""
        _save(self, path)

    @classmethod
    def load(cls, path: Path, names: tuple[str, ...] = (), axis: str = "targets") -> "Directions":
        """Read what `save` wrote; `names` and `axis` are of files that do not say so themselves."""
        from safetensors import SafetensorError

        try:
            return _load(path, names, axis)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LayerprobeError(
                f"{path} is damaged or no file of directions ({type(error).__name__}: {error}); run the "
                "analysis again and save its result anew"
            ) from None

    def describe(self) -> dict[str, Any]:
        """Shapes by site and layer, for a look; by label too where labels share no shape."""
        if self.by_target:
            return {name: one.describe() for name, one in self.by_target.items()}
        return {f"{site}[{layer}]": tuple(self[site, layer].shape) for site, layer in self}


ABOUT = "layerprobe"
"""Key of the metadata: files hold arrays under `[target number/]kind/site/layer`, their order beside them."""


def _save(directions: Directions, path: Path) -> None:
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


def _load(path: Path, names: tuple[str, ...], axis: str) -> Directions:
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
