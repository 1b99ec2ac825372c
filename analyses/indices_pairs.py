"""One blocked pass over all pairs of rows: sums, minima and maxima of distances to each cluster.

No rows × rows array is ever held. Rows are visited cluster by cluster, so a block of distances belongs to one
pair of clusters, and distances come from one matrix product per block around that cluster's own centroid: far
clusters then cost no digits. Single-precision extremes are only candidates; what is returned has been
recomputed in float64 by explicit differences.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .indices_moments import row_blocks


@dataclass(frozen=True)
class PairStatistics:
    """Distances from every row to the rows of every cluster; float64, rows in the caller's order.

    Attributes:
        sums: [rows, K] sum of distances.
        nearest: [rows, K] smallest distance to another row of the cluster (inf where there is none).
        farthest: [rows, K] largest distance.
        tolerance: relative error bound on the *squared* entries of `nearest` and `farthest`, as a share of
            `scale`; 0 where they are exact to float64.
        scale: [rows, K] sum of squared norms that the bound refers to.
    """

    sums: Tensor
    nearest: Tensor
    farthest: Tensor
    tolerance: float
    scale: Tensor


def pair_statistics(
    x: Tensor, codes: Tensor, centroids: Tensor, *, dtype: torch.dtype, block: int = 2048
) -> PairStatistics:
    """Accumulate distance statistics of all row pairs, each pair computed once.

    Args:
        x: [rows, width] of any floating dtype.
        codes: [rows] cluster of each row.
        centroids: [K, width] float64.
        dtype: of the matrix products; float32 is fast, float64 exact to about 1e-13.
        block: rows per side of a block; memory is a few block × block arrays.
    """
    n_rows, width = x.shape
    n_clusters = len(centroids)
    order = torch.argsort(codes, stable=True)
    bounds = torch.bincount(codes, minlength=n_clusters).cumsum(0).tolist()
    starts = [0, *bounds[:-1]]
    shape, place = (n_rows, n_clusters), {"dtype": torch.float64, "device": x.device}
    sums, farthest, scale = (torch.zeros(shape, **place) for _ in range(3))
    nearest = torch.full(shape, math.inf, **place)

    def record(rows: Tensor, cluster: int, values: tuple[Tensor, Tensor, Tensor], norm: Tensor) -> None:
        total, low, high = values
        sums[rows, cluster] += total.to(torch.float64)
        nearest[rows, cluster] = torch.minimum(nearest[rows, cluster], low.to(torch.float64).sqrt())
        farthest[rows, cluster] = torch.maximum(farthest[rows, cluster], high.to(torch.float64).sqrt())
        scale[rows, cluster] = torch.maximum(scale[rows, cluster], norm.to(torch.float64))

    def centred(rows: Tensor, cluster: int) -> tuple[Tensor, Tensor]:
        values = (x[rows].to(torch.float64) - centroids[cluster]).to(dtype)
        return values, values.square().sum(dim=1)

    for first in range(n_clusters):
        for left in row_blocks(bounds[first] - starts[first], block):
            rows = order[starts[first] + left.start : starts[first] + left.stop]
            here, here_norm = centred(rows, first)
            for second in range(first, n_clusters):
                for right in row_blocks(bounds[second] - starts[second], block):
                    same = second == first
                    if same and right.start < left.start:
                        continue
                    others = order[starts[second] + right.start : starts[second] + right.stop]
                    diagonal = same and right.start == left.start
                    there, there_norm = (here, here_norm) if diagonal else centred(others, first)
                    squared = _squared(here, here_norm, there, there_norm, diagonal)
                    by_row, by_column = _reduce(squared, diagonal)
                    record(rows, second, by_row, here_norm + there_norm.max())
                    if not diagonal:
                        record(others, first, by_column, there_norm + here_norm.max())
    tolerance = 0.0 if dtype == torch.float64 else (width + 8) * torch.finfo(dtype).eps
    return PairStatistics(sums, nearest, farthest, tolerance, scale)


def _squared(here: Tensor, here_norm: Tensor, there: Tensor, there_norm: Tensor, diagonal: bool) -> Tensor:
    """[a, b] squared distances; near-duplicates, where the product cancels, by explicit differences."""
    squared = torch.addmm(there_norm[None, :], here, there.T, alpha=-2).add_(here_norm[:, None])
    share = 1e-6 if here.dtype == torch.float64 else 1e-3
    if diagonal:
        squared.fill_diagonal_(math.inf)
    if float(squared.amin()) < share * float(here_norm.max() + there_norm.max()):
        close = squared < share * (here_norm[:, None] + there_norm[None, :])
        close |= squared <= 0
        i, j = close.nonzero(as_tuple=True)
        step = max(1, 2**22 // max(1, here.shape[1]))
        for part in row_blocks(len(i), step):
            squared[i[part], j[part]] = (here[i[part]] - there[j[part]]).square().sum(dim=1)
    return squared


def _reduce(
    squared: Tensor, diagonal: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(sum of distances, smallest and largest squared distance) over columns, and over rows."""
    low, low_column = squared.amin(dim=1), squared.amin(dim=0)
    if diagonal:
        squared.fill_diagonal_(0)
    high, high_column = squared.amax(dim=1), squared.amax(dim=0)
    distance = squared.sqrt_()
    return (distance.sum(dim=1), low, high), (distance.sum(dim=0), low_column, high_column)


def extreme(
    x: Tensor, codes: Tensor, pairs: PairStatistics, rows: Tensor, clusters: Tensor, kind: str
) -> float:
    """Exact smallest or largest distance among rows × clusters candidates.

    Every candidate whose error bound reaches the best value found is recomputed in float64 against all rows
    of the cluster, best first, so the answer does not depend on the precision of the pass.

    Args:
        x: [rows, width].
        codes: [rows] cluster of each row.
        pairs: result of `pair_statistics`.
        rows: [m] candidate rows.
        clusters: [m] the cluster that each candidate row is compared with.
        kind: `min` (smallest of `nearest`), `max` (largest of `farthest`), `max_nearest` (largest of
            `nearest`).
    """
    source = pairs.farthest if kind == "max" else pairs.nearest
    sign = 1.0 if kind == "min" else -1.0
    approximate = source[rows, clusters]
    if pairs.tolerance == 0:
        return float(approximate.min() if kind == "min" else approximate.max())
    bound = sign * approximate.square() - pairs.tolerance * pairs.scale[rows, clusters]
    best = math.inf
    for candidate in torch.argsort(bound).tolist():
        if float(bound[candidate]) > best:
            break
        exact = _exact(x, codes, int(rows[candidate]), int(clusters[candidate]), kind)
        best = min(best, sign * exact**2)
    return math.sqrt(max(0.0, sign * best))


def _exact(x: Tensor, codes: Tensor, row: int, cluster: int, kind: str) -> float:
    members = (codes == cluster).nonzero()[:, 0]
    if kind != "max":
        members = members[members != row]
    best = math.inf if kind != "max" else 0.0
    here = x[row].to(torch.float64)
    for part in row_blocks(len(members), 8192):
        away = (x[members[part]].to(torch.float64) - here).square().sum(dim=1).sqrt()
        best = max(best, float(away.max())) if kind == "max" else min(best, float(away.min()))
    return best
