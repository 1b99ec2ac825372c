"""Rows as coordinates in their own span: with L2 penalties nothing outside it ever gets weight (w = Zᵀa)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .arrays import Array, giver, inner_products, square_root, to_tensor


@dataclass(frozen=True)
class RowSpace:
    """One decomposition that folds × strengths × targets × relabellings of a layer share."""

    coordinates: torch.Tensor
    """[..., rows, rank] with the same inner products as the centred rows; columns orthogonal."""
    centred: torch.Tensor
    """[..., rows, width] the rows less their mean."""
    to_rows: torch.Tensor
    """[..., rows, rank]; the axes of the coordinates are `centredᵀ @ to_rows`, orthonormal, and never formed:
    for a few hundred weights two thin products cost less than that one square one."""
    mean: torch.Tensor
    """[..., width] what was subtracted from the rows."""

    def lift(self, weight: Array, bias: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Raw-space weight [..., columns (, classes), width] and bias of one [..., rank] on coordinates."""
        flat, shape = _flat(to_tensor(weight, like=self.mean), self.mean.ndim - 1)
        raw = flat @ self.to_rows.mT @ self.centred
        shift = (raw @ self.mean[..., None])[..., 0].view(shape)
        return raw.view(*shape, -1), to_tensor(bias, like=self.mean) - shift


def row_space(rows: Array) -> RowSpace:
    """Decompose the smaller of XXᵀ and XᵀX of the centred rows, once.

    Args:
        rows: [..., rows, width], numpy or torch.

    >>> import numpy as np
    >>> space = row_space(np.random.default_rng(0).normal(size=(5, 40)))
    >>> tuple(space.coordinates.shape), tuple(space.to_rows.shape)
    ((5, 4), (5, 4))
    """
    x = to_tensor(rows)
    mean = x.mean(-2)
    z = x - mean[..., None, :]
    wide = z.shape[-1] > z.shape[-2]
    root, inverse, vectors = square_root(inner_products(z if wide else z.mT), 1e-12)
    root, inverse = root[..., None, :], inverse[..., None, :]
    if wide:
        return RowSpace(vectors * root, z, vectors * inverse, mean)
    coordinates = z @ vectors
    return RowSpace(coordinates, z, coordinates * inverse**2, mean)


def _flat(weight: torch.Tensor, layer_axes: int) -> tuple[torch.Tensor, torch.Size]:
    """Weight [..., columns · classes, width], and its shape without the width."""
    return weight.flatten(layer_axes, -2), weight.shape[:-1]


@dataclass(frozen=True)
class RowFactor:
    """A square root of the rows' inner products, for one fit: cheaper than eigenvectors and as exact."""

    coordinates: torch.Tensor
    """[..., rows, rank] with the inner products of the rows, plus `constant` for every pair."""
    z: torch.Tensor
    """[..., rows, width]."""
    to_rows: torch.Tensor | None
    """[..., rows, rank] coefficients of each axis on the rows; None: the inverse of a triangular factor."""
    constant: torch.Tensor
    """[...] squared value of a constant feature that was added. Centring takes it out again."""

    def lift(self, weight: Array, bias: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [..., columns (, classes), width] on z and bias of one [..., columns (, classes), rank]."""
        flat, shape = _flat(to_tensor(weight, like=self.z), self.z.ndim - 2)
        if self.to_rows is not None:
            on_rows = flat @ self.to_rows.mT
        else:
            on_rows = torch.linalg.solve_triangular(self.coordinates.mT, flat.mT, upper=True).mT
        shift = self.constant[..., None] * on_rows.sum(-1)
        return (on_rows @ self.z).view(*shape, -1), to_tensor(bias, like=self.z) + shift.view(shape)


def row_factor(rows: Array) -> RowFactor:
    """Cholesky factor of the rows' Gram matrix; its eigenvectors where rows repeat or depend on one another.

    Args:
        rows: [..., rows, width], centred or not.

    >>> import numpy as np
    >>> z = np.random.default_rng(0).normal(size=(5, 40))
    >>> factor = row_factor(z)
    >>> weight, bias = factor.lift(np.eye(5)[:1], np.zeros(1))
    >>> np.allclose(z @ weight[0].numpy() + bias[0].item(), factor.coordinates[:, 0].numpy())
    True
    """
    z = to_tensor(rows)
    gram = inner_products(z)
    # centred rows sum to zero, so their Gram matrix is singular; a constant feature mends that
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    lower, failed = torch.linalg.cholesky_ex(gram + level[..., None, None])
    pivots = lower.diagonal(dim1=-2, dim2=-1) ** 2
    if not failed.any() and (pivots.amin(-1) > 1e-8 * pivots.amax(-1)).all():
        return RowFactor(lower, z, None, level)
    root, inverse, vectors = square_root(gram, 1e-12)
    return RowFactor(
        vectors * root[..., None, :], z, vectors * inverse[..., None, :], torch.zeros_like(level)
    )


@dataclass(frozen=True)
class StreamedMoments:
    """Count, mean and scatter of rows that were never in memory together."""

    count: int
    mean: torch.Tensor
    """[width]."""
    scatter: torch.Tensor
    """[width, width] Σ (x − mean)(x − mean)ᵀ."""
    cross: torch.Tensor | None
    """[width, targets] Σ (x − mean)(y − mean of y)ᵀ."""
    target_mean: torch.Tensor | None


def stream_moments(batches: Iterable[Any]) -> StreamedMoments:
    """Moments over batches of rows, or of (rows, targets), by pairwise updates (Chan, Golub & LeVeque 1983).

    Args:
        batches: [n, width] arrays such as `store.iter_rows` gives, or pairs with [n, targets].

    >>> import numpy as np
    >>> x = np.arange(12.0).reshape(6, 2)
    >>> m = stream_moments([x[:4], x[4:]])
    >>> m.count, m.mean.tolist(), m.scatter.tolist()
    (6, [5.0, 6.0], [[70.0, 70.0], [70.0, 70.0]])
    """
    count, mean, scatter = 0, None, None
    targets = 0
    for batch in batches:
        parts = [to_tensor(part) for part in (batch if isinstance(batch, tuple) else (batch,))]
        rows = torch.cat([part.reshape(len(parts[0]), -1) for part in parts], dim=1)
        targets = rows.shape[1] - parts[0].shape[1]
        middle = rows.mean(0)
        centred = rows - middle
        inner = centred.T @ centred
        if mean is None or scatter is None:
            count, mean, scatter = len(rows), middle, inner
            continue
        total = count + len(rows)
        gap = middle - mean
        scatter = scatter + inner + torch.outer(gap, gap) * (count * len(rows) / total)
        mean = mean + gap * (len(rows) / total)
        count = total
    if mean is None or scatter is None:
        raise ValueError("no batches were given")
    width = len(mean) - targets
    return StreamedMoments(
        count,
        mean[:width],
        scatter[:width, :width],
        scatter[:width, width:] if targets else None,
        mean[width:] if targets else None,
    )


def ridge_from_moments(moments: StreamedMoments, alphas: Array) -> tuple[Array, Array]:
    """Ridge weights [penalties, targets, width] and biases [penalties, targets] without the rows; numpy or
    torch as alphas are.

    Args:
        moments: with targets.
        alphas: [penalties].
    """
    if moments.cross is None or moments.target_mean is None:
        raise ValueError("moments were streamed without targets; give batches as (rows, targets)")
    values, vectors = torch.linalg.eigh(moments.scatter)
    projected = vectors.T @ moments.cross
    penalties = to_tensor(alphas, like=values).reshape(-1)
    shrunk = 1 / (values.clamp(min=0) + penalties[:, None])
    weight = torch.einsum("dr,ar,rt->atd", vectors, shrunk, projected)
    give = giver(alphas)
    return give(weight), give(moments.target_mean - weight @ moments.mean)
