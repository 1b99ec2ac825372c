"""Ridge regression by one eigendecomposition: every penalty, every target, leave-one-out and K-fold from the
same one.

    minimise over w, b:   Σᵢ uᵢ (yᵢ − xᵢ·w − b)² + α ‖w‖²

The smaller of XᵀX [width, width] and XXᵀ [rows, rows] is decomposed once. All held-out predictions follow
exactly from the hat matrix, because leaving rows out of a penalised least-squares fit changes the others by a
closed form. Leading axes of the rows are layers, decomposed side by side.
"""

from dataclasses import dataclass

import torch

from .arrays import Array, giver, inner_products, square_root, to_tensor


@dataclass(frozen=True)
class RidgePath:
    """Fits of every penalty and target."""

    weight: Array
    """[..., penalties, targets, width]."""
    bias: Array
    """[..., penalties, targets]."""


@dataclass(frozen=True)
class Decomposition:
    """Weighted, centred rows as U · diag(s) · Vᵀ; V is kept implicitly where rows < width."""

    u: torch.Tensor
    """[..., rows, rank] left singular vectors of √u · (x − mean)."""
    s: torch.Tensor
    """[..., rank] singular values."""
    to_weight: torch.Tensor
    """[..., width, rank]: V, so that w = V · coefficients."""
    mean: torch.Tensor
    """[..., width] weighted mean of the rows."""
    root: torch.Tensor
    """[rows] √u."""


def decompose(rows: Array, *, row_weights: Array | None = None) -> Decomposition:
    """Centre and decompose rows once; everything below takes the result.

    A direction with less than 1e-13 of the largest one's variance is lost in rounding and counts as none:
    scale features of very different units first.

    Args:
        rows: [..., rows, width].
        row_weights: [rows].
    """
    x = to_tensor(rows)
    u = x.new_ones(x.shape[-2]) if row_weights is None else to_tensor(row_weights, like=x)
    mean = (u @ x) / u.sum()
    root = u.sqrt()
    z = (x - mean[..., None, :]) * root[:, None]
    wide = z.shape[-2] <= z.shape[-1]
    s, inverse, vectors = square_root(inner_products(z if wide else z.mT), 1e-13)
    scaled = vectors * inverse[..., None, :]
    if wide:
        return Decomposition(vectors, s, z.mT @ scaled, mean, root)
    return Decomposition(z @ scaled, s, vectors, mean, root)


def solve_ridge(rows: Array, targets: Array, alphas: Array, *, row_weights: Array | None = None) -> RidgePath:
    """Fit every penalty and target at once.

    Args:
        rows: [..., rows, width], numpy or torch.
        targets: [rows, targets].
        alphas: [..., penalties], positive.
        row_weights: [rows].

    >>> import numpy as np
    >>> path = solve_ridge(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]), np.array([1e-9]))
    >>> path.weight.round(3).tolist(), path.bias.round(3).tolist()
    ([[[2.0]]], [[1.0]])
    """
    return ridge_path(decompose(rows, row_weights=row_weights), targets, alphas, give_like=rows)


def ridge_path(parts: Decomposition, targets: Array, alphas: Array, *, give_like: Array = None) -> RidgePath:
    """The same from a decomposition that is already there."""
    y, level = _centred(parts, targets)
    penalties = torch.atleast_1d(to_tensor(alphas, like=parts.s))[..., None]
    projected = parts.u.mT @ (y * parts.root[:, None])
    s = parts.s[..., None, :]
    shrunk = s / (s**2 + penalties)  # [..., penalties, rank]
    weight = torch.einsum("...dr,...ar,...rt->...atd", parts.to_weight, shrunk, projected)
    give = giver(parts.u if give_like is None else give_like)
    return RidgePath(give(weight), give(level - (weight * parts.mean[..., None, None, :]).sum(-1)))


def _centred(parts: Decomposition, targets: Array) -> tuple[torch.Tensor, torch.Tensor]:
    y = to_tensor(targets, like=parts.u)
    y = y[:, None] if y.ndim == 1 else y
    u = parts.root**2
    level = (u @ y) / u.sum()
    return y - level, level


def leave_out_predictions(
    parts: Decomposition, targets: Array, alphas: Array, *, fold: Array | None = None
) -> Array:
    """What each row would be given by a fit without it (or without its whole fold), exactly, from one
    decomposition.

    The residuals of the full fit, divided by what the hat matrix leaves of the block left out: e_F = (I −
    H_FF)⁻¹ (y − ŷ)_F, intercept included.

    Args:
        parts: of the rows.
        targets: [rows, targets]; permuted or control targets are just more columns.
        alphas: [..., penalties].
        fold: [rows] fold of each; default: each row by itself (leave-one-out).

    Returns:
        [..., penalties, rows, targets] predictions, numpy or torch as the targets are.
    """
    y, level = _centred(parts, targets)
    penalties = torch.atleast_1d(to_tensor(alphas, like=parts.s))
    root, total = parts.root[:, None], (parts.root**2).sum()
    square = parts.s[..., None, :] ** 2
    kept = square / (square + penalties[..., None])
    projected = parts.u.mT @ (y * root)
    out = y.new_empty(*kept.shape[:-1], *y.shape)
    folds = None if fold is None else to_tensor(fold, like=parts.u, dtype=torch.long)
    for index in range(penalties.shape[-1]):
        # in √u-weighted space the smoother is symmetric: H = UkUᵀ + rrᵀ/Σu
        k = kept[..., index, None, :]
        residual = y * root - parts.u @ (k.mT * projected)
        if folds is None:
            leverage = (parts.u**2 * k).sum(-1) + parts.root**2 / total
            left = residual / (1 - leverage).clamp(min=1e-12)[..., None]
        else:
            left = torch.empty_like(residual)
            for value in torch.unique(folds):
                mine = torch.nonzero(folds == value)[:, 0]
                u = parts.u[..., mine, :]
                block = (u * k) @ u.mT
                block = block + torch.outer(parts.root[mine], parts.root[mine]) / total
                eye = torch.eye(len(mine), dtype=block.dtype, device=block.device)
                left[..., mine, :] = torch.linalg.solve(eye - block, residual[..., mine, :])
        out[..., index, :, :] = y + level - left / root
    return giver(targets)(out)
