"""Centroids and the spread around them, in one or two streamed passes over the rows.

Everything here is float64 whatever the activations are stored in, and needs memory for one block of rows and
for one centroid per cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """What the centroid-based indices need; K clusters of width d, float64.

    Attributes:
        sizes: [K] rows per cluster.
        centroids: [K, d].
        scatter: [K] sum of squared distances to the own centroid.
        mean_radius: [K] mean distance to the own centroid.
        max_radius: [K] largest distance to the own centroid.
        to_centroids: [K, K] mean distance of the rows of cluster i to the centroid of cluster j; only its
            diagonal is filled unless asked for.
    """

    sizes: Tensor
    centroids: Tensor
    scatter: Tensor
    mean_radius: Tensor
    max_radius: Tensor
    to_centroids: Tensor

    @property
    def between(self) -> Tensor:
        """[K, K] distances between centroids."""
        return distances_to(self.centroids, self.centroids)


def row_blocks(n_rows: int, block: int) -> Iterator[slice]:
    """Consecutive slices of at most `block` rows."""
    for start in range(0, n_rows, block):
        yield slice(start, min(start + block, n_rows))


def distances_to(rows: Tensor, points: Tensor) -> Tensor:
    """[rows, points] Euclidean distances by explicit differences: no cancellation between large norms."""
    return torch.stack([(rows - point).square().sum(dim=1).sqrt() for point in points], dim=1)


def cluster_moments(
    x: Tensor, codes: Tensor, n_clusters: int, *, all_centroids: bool = True, block: int = 1024
) -> Moments:
    """Sizes, centroids and spreads of labelled rows.

    Args:
        x: [rows, width] of any floating dtype.
        codes: [rows] cluster 0 … K − 1 of each row, on the device of `x`.
        n_clusters: K.
        all_centroids: also distances to the centroids of other clusters.
        block: rows held in float64 at a time.
    """
    n_rows, width = x.shape
    sizes = torch.bincount(codes, minlength=n_clusters).to(torch.float64)
    # sums are taken about the first row, so that a large common offset costs no digits
    origin = x[0].to(torch.float64)
    sums = torch.zeros(n_clusters, width, dtype=torch.float64, device=x.device)
    for rows in row_blocks(n_rows, block):
        sums.index_add_(0, codes[rows], x[rows].to(torch.float64) - origin)
    centroids = origin + sums / sizes[:, None]
    scatter, radius, to_centroids = (
        torch.zeros(shape, dtype=torch.float64, device=x.device)
        for shape in (n_clusters, n_clusters, (n_clusters, n_clusters))
    )
    for rows in row_blocks(n_rows, block):
        values = x[rows].to(torch.float64)
        own = torch.linalg.vector_norm(values - centroids[codes[rows]], dim=1)
        scatter.index_add_(0, codes[rows], own.square())
        radius.scatter_reduce_(0, codes[rows], own, reduce="amax")
        if all_centroids:
            to_centroids.index_add_(0, codes[rows], distances_to(values, centroids))
        else:
            to_centroids.diagonal().index_add_(0, codes[rows], own)
    to_centroids /= sizes[:, None]
    return Moments(sizes, centroids, scatter, to_centroids.diagonal().clone(), radius, to_centroids)
