"""Probe directions in raw activation space: they score activations as they are, and steer as they are."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..hooks.errors import LayerprobeError

Arrays = dict[str, dict[int | None, NDArray[np.float32]]]


@dataclass(frozen=True, eq=False)
class Directions:
    """Weights and biases per site and layer: `score = activations @ weight + bias`.

    No centring or scaling is left to be applied: what the probe fitted is folded into weight and bias.

    >>> d = Directions({"resid_post": {0: np.array([1.0, 0.0])}}, {"resid_post": {0: np.array(-1.0)}})
    >>> d.score([[3.0, 5.0]], "resid_post", 0).tolist()
    [2.0]
    """

    weights: Arrays
    """`weights[site][layer]`: [width], or [targets, width] with several targets, or [heads, d_head] per head.
    The layer of a site without layers is `None`."""
    bias: Arrays
    """`bias[site][layer]`: a scalar array, [targets] or [heads]."""
    names: tuple[str, ...] = ()
    """Names of the targets on the first axis of a weight, where there are several."""
    extra: dict[str, Arrays] = field(default_factory=dict)
    """Further arrays by name, such as `fold_cosine`: mean cosine between directions of different folds."""

    def __iter__(self) -> Iterator[tuple[str, int | None]]:
        return ((site, layer) for site, layers in self.weights.items() for layer in layers)

    def __len__(self) -> int:
        return sum(len(layers) for layers in self.weights.values())

    def __getitem__(self, key: tuple[str, int | None]) -> NDArray[np.float32]:
        site, layer = key
        if site not in self.weights or layer not in self.weights[site]:
            have = ", ".join(f"{s}[{n}]" if n is not None else s for s, n in self) or "none"
            raise LayerprobeError(f"no direction for {site}[{layer}]; this result has {have}")
        return self.weights[site][layer]

    def score(self, activations: ArrayLike, site: str, layer: int | None) -> NDArray[np.float64]:
        """Scores of raw activations.

        Args:
            activations: [rows, width], or [rows, heads, d_head] for directions per head.
            site: site name.
            layer: layer, or `None` for a site without layers.

        Returns:
            [rows], [rows, targets] or [rows, heads].
        """
        weight = np.asarray(self[site, layer], dtype=np.float64)
        bias = np.asarray(self.bias[site][layer], dtype=np.float64)
        rows = np.asarray(activations, dtype=np.float64)
        if rows.shape[-1] != weight.shape[-1]:
            raise LayerprobeError(
                f"activations of width {rows.shape[-1]} cannot be scored by a direction of width "
                f"{weight.shape[-1]} ({site}[{layer}]); score the same model's site, or fit a probe on these"
            )
        if rows.ndim == 3 and weight.ndim == 2:
            return np.einsum("rhd,hd->rh", rows, weight) + bias
        return rows @ weight.T + bias

    def save(self, path: Path) -> None:
        """Write every array to one safetensors file."""
        from safetensors.numpy import save_file

        named = {"weights": self.weights, "bias": self.bias, **self.extra}
        flat = {
            f"{kind}/{site}/{'' if layer is None else layer}": np.ascontiguousarray(value)
            for kind, sites in named.items()
            for site, layers in sites.items()
            for layer, value in layers.items()
        }
        save_file(flat, str(path))

    @classmethod
    def load(cls, path: Path, names: tuple[str, ...] = ()) -> "Directions":
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        kinds: dict[str, Arrays] = {"weights": {}, "bias": {}}
        for key, value in load_file(str(path)).items():
            kind, site, layer = key.split("/")
            kinds.setdefault(kind, {}).setdefault(site, {})[int(layer) if layer else None] = value
        for sites in kinds.values():
            for site in sites:
                sites[site] = dict(
                    sorted(sites[site].items(), key=lambda item: -1 if item[0] is None else item[0])
                )
        return cls(kinds.pop("weights"), kinds.pop("bias"), names, kinds)

    def describe(self) -> dict[str, Any]:
        """Shapes by site and layer, for a look."""
        return {f"{site}[{layer}]": tuple(self[site, layer].shape) for site, layer in self}
