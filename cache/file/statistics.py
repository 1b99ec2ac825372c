"""Running statistics of every site and layer, made while rows are captured, mergeable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_CHUNK_ELEMENTS = 1 << 18
"""Elements worked on at once, so that the widened copy stays in the processor's cache."""

_PIECE = 1 << 15
"""Elements that torch converts without waking its thread pool: the cores belong to the forward pass."""


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
        return np.asarray(self.deviations / count)

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
        self._scratch = np.empty(0)

    @classmethod
    def shapes(cls, n_layers: int, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Field -> its shape."""
        return {name: (n_layers,) if name in cls.FIELDS[:2] else (n_layers, *shape) for name in cls.FIELDS}

    def update(self, layer: int, rows: np.ndarray, *, bfloat16: bool = False) -> None:
        """Take in [rows, *shape] rows of one layer (Chan, Golub & LeVeque 1983), in one pass.

        Much half precision is summed in float32 within a chunk of at most 256 rows (its significand leaves
        room for that) and in float64 from chunk to chunk; all else is summed in float64.

        Args:
            layer: index of the layer.
            rows: floating-point numbers, or the uint16 bits of bfloat16.
            bfloat16: the rows are such bits.
        """
        if not len(rows):
            return
        flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
        step = min(256, max(16, _CHUNK_ELEMENTS // flat.shape[1]))
        for start in range(0, len(flat), step):
            self._update_chunk(layer, flat[start : start + step], bfloat16)

    def _update_chunk(self, layer: int, rows: np.ndarray, bfloat16: bool) -> None:
        half = rows.itemsize == 2 and rows.size >= _PIECE  # less is soon done in float64
        values = self._room(rows.shape, np.float32 if half else np.float64)
        if half:
            _widen(rows, values, bfloat16)
        else:
            rows = bfloat16_to_float32(rows) if bfloat16 else rows
            np.copyto(values, rows)
        seen = values if half else rows
        low, high = seen.min(axis=0), seen.max(axis=0)
        # NaN and infinities show in the extremes: the common case pays nothing for the check
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            finite = np.isfinite(values).all(axis=1)
            self.nonfinite[layer] += int((~finite).sum())
            values = values[finite]
            if not len(values):
                return
            low, high = values.min(axis=0), values.max(axis=0)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            mean = np.add.reduce(values, axis=0).astype(np.float64) / len(values)
            centred = np.subtract(values, mean.astype(values.dtype), out=values)
            deviations = np.einsum("ij,ij->j", centred, centred).astype(np.float64)
        if half and not _within_float32(deviations, low, high):
            values = bfloat16_to_float32(rows) if bfloat16 else rows
            values = values[np.isfinite(values).all(axis=1)].astype(np.float64)
            mean = values.mean(axis=0)
            deviations = np.square(values - mean).sum(axis=0)
        self._combine(layer, len(values), mean, deviations)
        shape = self.mean.shape[1:]
        np.minimum(self.minimum[layer], low.reshape(shape), out=self.minimum[layer])
        np.maximum(self.maximum[layer], high.reshape(shape), out=self.maximum[layer])

    def _room(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A piece of the scratch memory: fresh pages for every chunk cost more than the sums."""
        size = shape[0] * shape[1]
        if self._scratch.dtype != dtype or self._scratch.size < size:
            self._scratch = np.empty(size, dtype=dtype)
        return self._scratch[:size].reshape(shape)

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


def bfloat16_to_float32(bits: np.ndarray) -> np.ndarray:
    """Exact float32 values of bfloat16 bits.

    >>> bfloat16_to_float32(np.array([0x3F80, 0xC000], dtype=np.uint16))
    array([ 1., -2.], dtype=float32)
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _widen(rows: np.ndarray, out: np.ndarray, bfloat16: bool) -> None:
    """Half precision as float32, by torch: numpy converts float16 at a fifth of the speed."""
    import torch

    kind = torch.bfloat16 if bfloat16 else torch.float16
    bits = rows if rows.flags.writeable else rows.copy()  # torch warns of memory that it may not write to
    source = torch.from_numpy(bits.reshape(-1).view(np.int16)).view(kind)
    target = torch.from_numpy(out.reshape(-1))
    for start in range(0, len(target), _PIECE):
        target[start : start + _PIECE].copy_(source[start : start + _PIECE])


def _within_float32(deviations: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether squares neither overflowed nor vanished: bfloat16 has float32's range, its square has not."""
    return bool(np.isfinite(deviations).all() and not ((deviations < 1e-30) & (high > low)).any())
