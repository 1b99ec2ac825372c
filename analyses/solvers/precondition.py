"""A cheap inverse of the logistic loss's curvature, which is what makes quasi-Newton iterations few.

Were every row equally certain, the Hessian of a column would be bend · ZᵀUZ / ΣU + l2 · I. Folds of one
layer share nearly the same ZᵀUZ, so one set of directions serves them all; each fold has its own variance
along them. An approximation here costs iterations, never exactness.
"""

from dataclasses import dataclass

import torch

from .arrays import inner_products

SKETCH_RANK = 256


@dataclass(frozen=True)
class Curvature:
    """Variance of every fold's rows along shared orthonormal directions, and the mean one outside."""

    values: torch.Tensor
    """[..., folds, directions] per unit of row weight."""
    vectors: torch.Tensor | None
    """[..., width, directions]; None: the coordinate axes themselves."""
    rest: torch.Tensor
    """[..., folds] mean variance of a direction outside; unused where the directions are complete."""

    def solve(
        self, gradient: torch.Tensor, bend: torch.Tensor, l2: torch.Tensor, fold: torch.Tensor
    ) -> torch.Tensor:
        """The inverse applied to a gradient.

        Args:
            gradient: [..., width, columns, classes].
            bend: [..., columns] total curvature of the loss, Σ u · p(1 − p).
            l2: [..., columns].
            fold: [columns] index into `values`.
        """
        inside = (self.values[..., fold, :].mT * bend[..., None, :] + l2[..., None, :])[..., None]
        if self.vectors is None:
            return gradient / inside
        along = (self.vectors.mT @ gradient.flatten(-2)).unflatten(-1, gradient.shape[-2:])
        if self.vectors.shape[-1] == self.vectors.shape[-2]:
            return (self.vectors @ (along / inside).flatten(-2)).view_as(gradient)
        outside = (self.rest[..., fold] * bend + l2)[..., None, :, None]
        back = (self.vectors @ (along * (1 / inside - 1 / outside)).flatten(-2)).view_as(gradient)
        return back.addcdiv_(gradient, outside)


def curvature(
    x: torch.Tensor,
    weights: torch.Tensor,
    centre: torch.Tensor,
    scale: torch.Tensor,
    *,
    basis_width: int,
    diagonal: bool,
) -> Curvature:
    """Directions and variances of scaled rows.

    Args:
        x: [..., rows, width].
        weights: [rows, folds].
        centre: [..., 1 or folds, width].
        scale: [..., 1 or folds, width].
        basis_width: up to this width all eigenvectors are taken, above it the leading ones, by random
            projection with one power step (Halko, Martinsson & Tropp 2011).
        diagonal: the columns of x are orthogonal already.
    """
    share = (weights / weights.sum(0).clamp(min=1e-12)).T
    # the median: a feature that is constant in one fold has scale 1 there
    z = (x - centre.mean(-2, keepdim=True)) / scale.median(-2, keepdim=True).values
    none_outside = z.new_zeros(*z.shape[:-2], len(share))
    if diagonal:
        return Curvature(_variance(share, z), None, none_outside)
    everyone = share.mean(0).sqrt()[:, None]
    if z.shape[-1] <= basis_width:
        half = z * everyone
        vectors = torch.linalg.eigh(inner_products(half.mT))[1]
        return Curvature(_variance(share, z @ vectors), vectors, none_outside)
    rank = min(SKETCH_RANK, *z.shape[-2:])
    vectors = _leading(z * everyone, rank)
    values = _variance(share, z @ vectors)
    total = _variance(share, z).sum(-1)
    left = max(1, min(z.shape[-2:]) - rank)
    return Curvature(values, vectors, (total - values.sum(-1)).clamp(min=0) / left)


def _variance(share: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (share @ z**2 - (share @ z) ** 2).clamp(min=0)


def _leading(z: torch.Tensor, rank: int) -> torch.Tensor:
    """[..., width, rank] orthonormal, near the leading right singular vectors, rotated to be uncorrelated."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(z.shape[-1], rank, generator=generator, dtype=z.dtype).to(z.device)
    span = torch.linalg.qr(z.mT @ (z @ start))[0]
    inside = z @ span
    return span @ torch.linalg.eigh(inside.mT @ inside)[1]
