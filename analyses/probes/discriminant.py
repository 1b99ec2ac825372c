"""Mass-mean probes that know the covariance: linear discriminant analysis, plain and shrunk.

The difference of class means, turned by the inverse of the covariance within classes, is the Bayes direction
for Gaussian classes of one shape (Marks & Tegmark 2310.06824 use it so).
"""

from collections.abc import Callable

import torch

from ..solvers.arrays import inner_products, square_root
from .problem import Fits, Floats, Problem, spread

LEAST = 1e-6
"""Least share of the mean variance that every direction is given."""

Shrinkage = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""[...] share of the mean variance from residuals [..., rows, width] and the roots [..., rank] of their
scatter."""


def fit_lda(problem: Problem, strengths: Floats) -> Fits:
    """LDA with the covariance as it is (its smallest directions lifted by a millionth of the mean one)."""
    return _fit(problem, lambda weights: lambda residuals, roots: roots.new_full(roots.shape[:-1], LEAST))


def fit_shrunk_lda(problem: Problem, strengths: Floats) -> Fits:
    """LDA with the correlations within classes shrunk by Ledoit & Wolf's (2004) estimate."""
    return _fit(
        problem,
        lambda weights: lambda residuals, roots: ledoit_wolf(residuals, roots, weights).clamp(min=LEAST),
    )


def ledoit_wolf(
    residuals: torch.Tensor, roots: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """[...] how far to shrink the covariance of centred rows (Ledoit & Wolf 2004).

    Args:
        residuals: [..., rows, width], each times the root of its weight over the mean weight.
        roots: [..., rank] singular values of the residuals: they say all that is needed of the covariance.
        weights: [rows] how many rows each stands for. Default: one.
    """
    rows, width = residuals.shape[-2:]
    u = residuals.new_ones(rows) if weights is None else weights
    n = u.sum()
    spectrum = roots**2 / rows
    total, square = spectrum.sum(-1), (spectrum**2).sum(-1)
    fourth = ((residuals**2).sum(-1).pow(2) * u.mean() / u).mean(-1)
    error = (fourth - square) / (n * width)
    distance = (square - total**2 / width) / width
    return (torch.minimum(error, distance) / distance.clamp(min=1e-300)).clamp(0, 1)


def _fit(problem: Problem, shrinkage: Callable[[torch.Tensor], Shrinkage]) -> Fits:
    rows, labels, masks = problem.tensors()
    middle, scale, varies = spread(problem)
    weights, biases = [], []
    for fold in range(problem.n_folds):
        seen = masks[:, fold] > 0
        centre, unit = middle[..., fold, :], scale[..., fold, :]
        y, u = labels[seen], masks[seen, fold]
        z = (
            (rows[..., seen, :] - centre[..., None, :])
            / unit[..., None, :]
            * varies[..., fold, :][..., None, :]
        )
        member = torch.nn.functional.one_hot(y, problem.n_classes) * u[:, None]
        mean = (member / member.sum(0)).T @ z
        residuals = (z - mean[..., y, :]) * (u / u.mean()).sqrt()[:, None]
        # one dimension a thousand times the others would take all of the shrinkage: each in its own spread
        within = (residuals**2).mean(-2).sqrt().clamp(min=LEAST**0.5)[..., None, :]
        mean = mean / within
        turned = solve_shrunk(residuals / within, mean.mT, shrinkage(u)).mT
        share = member.sum(0) / member.sum()
        bias = -0.5 * (turned * mean).sum(-1) + share.log()
        weight = turned / within / unit[..., None, :]
        bias = bias - (weight * centre[..., None, :]).sum(-1)
        if problem.n_classes == 2:
            weight, bias = weight[..., 1, :] - weight[..., 0, :], bias[..., 1] - bias[..., 0]
        weights.append(weight)
        biases.append(bias)
    layers = rows.ndim - 2
    return Fits.closed_form(problem, torch.stack(weights, dim=layers), torch.stack(biases, dim=layers))


def solve_shrunk(residuals: torch.Tensor, vectors: torch.Tensor, shrinkage: Shrinkage) -> torch.Tensor:
    """Σ⁻¹ vectors for Σ = (1 − shrinkage) · RᵀR / n + shrinkage · mean variance · I.

    Args:
        residuals: R [..., rows, width], centred, features in units of their spread.
        vectors: [..., width, count].
        shrinkage: gives a share of at most 1.

    Returns:
        [..., width, count]. Decomposes the smaller side of R.
    """
    n, width = residuals.shape[-2:]
    wide = n <= width
    roots, inverse, axes = square_root(inner_products(residuals if wide else residuals.mT), 1e-13)
    v = residuals.mT @ (axes * inverse[..., None, :]) if wide else axes
    share = shrinkage(residuals, roots)[..., None]
    # where nothing varies within classes there is no mean variance to lift directions by
    floor = (share * (residuals**2).sum((-2, -1))[..., None] / (n * width)).clamp(min=1e-12)
    along = v.mT @ vectors
    gain = 1 / ((1 - share) * roots**2 / n + floor) - 1 / floor
    return vectors / floor[..., None] + v @ (along * gain[..., None])
