"""Running statistics of every site and layer, made while rows are captured, mergeable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_CHUNK = 128
"""Rows worked on at once, so that the float64 copy stays in the processor's cache."""


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics over rows, per dimension of one site at its layers. Non-finite rows count only in
    `nonfinite`.
    """

    count: np.ndarray
    """[layers] int64 rows that went in."""
    nonfinite: np.ndarray
    """[layers] int64 rows left out because a value was NaN or infinite."""
    mean: np.ndarray
    """[layers, *shape] float64."""
    deviations: np.ndarray
    """[layers, *shape] float64 sums of squared deviations from the mean."""
    minimum: np.ndarray
    """[layers, *shape] float64, +inf where nothing went in."""
    maximum: np.ndarray
    """[layers, *shape] float64, -inf where nothing went in."""

    @property
    def variance(self) -> np.ndarray:
        """[layers, *shape] population variance."""
        count = np.maximum(self.count, 1).reshape(-1, *[1] * (self.mean.ndim - 1))
        return self.deviations / count

    def dominant(self, top: int = 5) -> list[list[tuple[int, float]]]:
        """Per layer the dimensions with the largest share of the total second moment, largest first.

        A share far above 1 / width is a massive dimension (Sun et al., 2402.17762): geometry that ignores it
        says something else.
        """
        moment = (self.mean**2 + self.variance).reshape(len(self.mean), -1)
        share = moment / np.maximum(moment.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        order = np.argsort(-share, axis=1)[:, :top]
        return [[(int(dim), float(row[dim])) for dim in dims] for row, dims in zip(share, order, strict=True)]


class RunningStatistics:
    """The mutable side: one site's statistics, updated block by block in a fixed order."""

    FIELDS = ("count", "nonfinite", "mean", "deviations", "minimum", "maximum")

    def __init__(self, n_layers: int, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(n_layers, dtype=np.int64)
        self.nonfinite = np.zeros(n_layers, dtype=np.int64)
        self.mean = np.zeros((n_layers, *shape))
        self.deviations = np.zeros((n_layers, *shape))
        self.minimum = np.full((n_layers, *shape), np.inf)
        self.maximum = np.full((n_layers, *shape), -np.inf)

    def update(self, layer: int, rows: np.ndarray) -> None:
        """Take in [rows, *shape] floating-point rows of one layer (Chan, Golub & LeVeque 1983)."""
        flat = rows.reshape(len(rows), -1) if len(rows) else rows
        for start in range(0, len(flat), _CHUNK):
            self._update_chunk(layer, flat[start : start + _CHUNK])

    def _update_chunk(self, layer: int, rows: np.ndarray) -> None:
        # half precision goes by way of float32: numpy converts it to float64 much slower, and no value
        # changes
        single = rows.astype(np.float32, copy=False) if rows.dtype.itemsize < 4 else rows
        low, high = single.min(axis=0), single.max(axis=0)
        values = single.astype(np.float64)
        # NaN and infinities show in the extremes: the common case pays nothing for the check
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = np.isfinite(values).all(axis=1)
            self.nonfinite[layer] += int((~finite).sum())
            values = values[finite]
            if not len(values):
                return
            low, high = values.min(axis=0), values.max(axis=0)
        added = len(values)
        mean = values.sum(axis=0) / added
        values -= mean
        deviations = np.einsum("ij,ij->j", values, values)
        self._combine(layer, added, mean, deviations)
        shape = self.mean.shape[1:]
        np.minimum(self.minimum[layer], low.reshape(shape), out=self.minimum[layer])
        np.maximum(self.maximum[layer], high.reshape(shape), out=self.maximum[layer])

    def _combine(self, layer: int, added: int, mean: np.ndarray, deviations: np.ndarray) -> None:
        before = int(self.count[layer])
        total = before + added
        shape = self.mean.shape[1:]
        shift = mean.reshape(shape) - self.mean[layer]
        self.mean[layer] += shift * (added / total)
        self.deviations[layer] += deviations.reshape(shape) + shift**2 * (before * added / total)
        self.count[layer] = total

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """The fields, in the order of the format."""
        for name in self.FIELDS:
            yield name, getattr(self, name)

    def load(self, name: str, values: np.ndarray) -> None:
        """Take a field back from a file."""
        getattr(self, name)[...] = values

    def result(self) -> SiteStatistics:
        """The frozen result."""
        return SiteStatistics(**{name: values.copy() for name, values in self.arrays()})
