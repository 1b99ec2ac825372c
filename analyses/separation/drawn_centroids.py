"""Centroid-based indices of many draws at once: two matrix products, no distances between rows."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .moments import row_blocks

if TYPE_CHECKING:
    from .draws import Draws


def drawn_centroid_indices(
    x: Tensor, draws: "Draws", names: Sequence[str], *, elements: int = 2**14
) -> dict[str, Tensor]:
    """Davies-Bouldin, Calinski-Harabasz, Xie-Beni and centroid-based Dunn terms.

    Args:
        x: [rows, width] float32, centred.
        draws: labels and weights.
        names: indices asked for.
        elements: distances held at a time; few enough for the processor's cache.

    Returns:
        name -> [draws] float64, and with generalised Dunn names also the terms `delta_centroid`,
        `delta_average_to_centroids` and `diameter_centroid`. NaN where a cluster is empty.
    """
    n_rows, k, n = draws.member.shape
    sizes = draws.sizes.to(torch.float64)
    sums = draws.member.reshape(n_rows, k * n).T @ x
    centroids = sums / draws.sizes.reshape(-1, 1).clamp(min=1e-30)
    norms = centroids.square().sum(dim=1).reshape(k, n)
    length = x.square().sum(dim=1).to(torch.float64)
    total = length.sum() if draws.weights is None else draws.weights.to(torch.float64) @ length
    within = (total - (sizes * norms).sum(dim=0)).clamp(min=0)
    off = _between(centroids.reshape(k, n, -1))
    closest = off.amin(dim=(0, 1))
    count = sizes.sum(dim=0)
    scatter = _scatter_between(sizes, centroids.reshape(k, n, -1))
    found = {
        "xie_beni": within / (count * closest.square()),
        "calinski_harabasz": scatter * (count - k) / (within * (k - 1)),
        "delta_centroid": closest,
    }
    if any(name not in ("silhouette", "dunn", "xie_beni", "calinski_harabasz") for name in names):
        found |= _radii(x, draws, centroids, norms, off, names, max(8, elements // (k * n)))
    empty = (sizes == 0).any(dim=0)
    return {name: torch.where(empty, math.nan, value) for name, value in found.items()}


def _between(centroids: Tensor) -> Tensor:
    """[K, K, draws] distances between centroids [K, draws, width]; inf to itself."""
    k, n, _ = centroids.shape
    out = torch.full((k, k, n), math.inf, dtype=torch.float64, device=centroids.device)
    for first in range(k):
        for second in range(first + 1, k):
            apart = (centroids[first] - centroids[second]).square().sum(dim=1).to(torch.float64).sqrt()
            out[first, second] = out[second, first] = apart
    return out


def _scatter_between(sizes: Tensor, centroids: Tensor) -> Tensor:
    """[draws] Σ nₖ‖cₖ − c‖², about the weighted mean, which bootstrap weights move away from zero."""
    share = (sizes / sizes.sum(dim=0)).to(centroids.dtype)
    mean = (share[:, :, None] * centroids).sum(dim=0)
    return (sizes * (centroids - mean).square().sum(dim=2).to(torch.float64)).sum(dim=0)


def _radii(
    x: Tensor,
    draws: "Draws",
    centroids: Tensor,
    norms: Tensor,
    off: Tensor,
    names: Sequence[str],
    piece: int,
) -> dict[str, Tensor]:
    """Terms that need the distance of every row to its centroid, or to all."""
    n_rows, k, n = draws.member.shape
    sizes = draws.sizes.to(torch.float64)
    wants_largest = "dunn_torchmetrics" in names
    wants_all = any("average_to_centroids" in name for name in names)
    mean_radius, max_radius = (torch.zeros(k, n, dtype=torch.float64, device=x.device) for _ in range(2))
    to_centroids = torch.zeros(k, k, n, dtype=torch.float64, device=x.device)
    for block in row_blocks(n_rows, 512):
        products = torch.addmm(norms.reshape(1, -1), x[block], centroids.T, alpha=-2).reshape(-1, k, n)
        length = x[block].square().sum(dim=1)
        for part in row_blocks(len(products), piece):
            member = draws.member[block.start + part.start : block.start + part.stop]
            away = products[part].add_(length[part, None, None]).clamp_(min=0).sqrt_()
            if wants_all:
                to_centroids += torch.einsum("rap,rbp->abp", member, away).to(torch.float64)
            if wants_largest:
                max_radius = torch.maximum(max_radius, (away * (member > 0)).amax(dim=0))
            mean_radius += away.mul_(member).sum(dim=0)
    mean_radius /= sizes
    ratio = (mean_radius[:, None] + mean_radius[None, :]) / off
    either = (to_centroids + to_centroids.transpose(0, 1)) / (sizes[:, None] + sizes[None, :])
    return {
        "davies_bouldin": ratio.amax(dim=1).mean(dim=0),
        "dunn_torchmetrics": off.amin(dim=(0, 1)) / max_radius.amax(dim=0),
        "delta_average_to_centroids": torch.where(torch.isinf(off), math.inf, either).amin(dim=(0, 1)),
        "diameter_centroid": 2 * mean_radius.amax(dim=0),
    }
