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

from .moments import row_blocks


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
    x: Tensor,
    codes: Tensor,
    centroids: Tensor,
    *,
    dtype: torch.dtype,
    all_extremes: bool = True,
    block: int = 1024,
) -> PairStatistics:
    """Accumulate distance statistics of all row pairs, each pair computed once.

    Args:
        x: [rows, width] of any floating dtype.
        codes: [rows] cluster of each row.
        centroids: [K, width] float64.
        dtype: of the matrix products; float32 is fast, float64 exact to about 1e-13.
        all_extremes: False leaves out what only Hausdorff and complete-link distances need: of a pair of
            rows then only one sees the other in `nearest` (between clusters) and `farthest` (within).
        block: rows per side of a block; memory is a few block × block and block × width arrays.
    """
    n_rows, width = x.shape
    n_clusters = len(centroids)
    order = torch.argsort(codes, stable=True)
    bounds = torch.bincount(codes, minlength=n_clusters).cumsum(0).tolist()
    starts = [0, *bounds[:-1]]
    sums = torch.zeros(n_rows, n_clusters, dtype=torch.float64, device=x.device)
    farthest, scale = torch.zeros_like(sums), torch.zeros_like(sums)
    nearest = torch.full_like(sums, math.inf)

    def record(rows: Tensor, cluster: int, reduced: Reduced, norm: Tensor) -> None:
        sums[rows, cluster] += reduced.total.to(torch.float64)
        scale[rows, cluster] = torch.maximum(scale[rows, cluster], norm.to(torch.float64))
        if reduced.low is not None:
            low = reduced.low.to(torch.float64).sqrt()
            nearest[rows, cluster] = torch.minimum(nearest[rows, cluster], low)
        if reduced.high is not None:
            high = reduced.high.to(torch.float64).sqrt()
            farthest[rows, cluster] = torch.maximum(farthest[rows, cluster], high)

    for first in range(n_clusters):
        centred = _Centred(x, order, centroids[first], dtype)
        for left in row_blocks(bounds[first] - starts[first], block):
            here = centred.rows(starts[first] + left.start, starts[first] + left.stop)
            for second in range(first, n_clusters):
                for right in row_blocks(bounds[second] - starts[second], block):
                    same = second == first
                    if same and right.start < left.start:
                        continue
                    diagonal = same and right.start == left.start
                    there = centred.rows(starts[second] + right.start, starts[second] + right.stop)
                    squared, low = _squared(here, there, diagonal)
                    by_row, by_column = _reduce(squared, low, diagonal, same, all_extremes)
                    record(here.index, second, by_row, here.norm + there.norm.max())
                    if not diagonal:
                        record(there.index, first, by_column, there.norm + here.norm.max())
    tolerance = 0.0 if dtype == torch.float64 else (width + 8) * torch.finfo(dtype).eps
    return PairStatistics(sums, nearest, farthest, tolerance, scale)


@dataclass(frozen=True)
class Block:
    """Centred rows, their squared norms, and which rows they are."""

    values: Tensor
    norm: Tensor
    index: Tensor


@dataclass(frozen=True)
class Reduced:
    """Per row: sum of distances, smallest and largest squared distance (None where nobody asks)."""

    total: Tensor
    low: Tensor | None
    high: Tensor | None


class _Centred:
    """Rows about one centroid, kept while they fit a budget and made again where they do not."""

    BUDGET = 2**29

    def __init__(self, x: Tensor, order: Tensor, centre: Tensor, dtype: torch.dtype) -> None:
        self.x, self.order, self.centre, self.dtype = x, order, centre, dtype
        self.kept: dict[int, Block] = {}
        self.fits = x.numel() * torch.finfo(dtype).bits // 8 <= self.BUDGET

    def rows(self, start: int, stop: int) -> Block:
        if start not in self.kept:
            index = self.order[start:stop]
            values = (self.x[index].to(torch.float64) - self.centre).to(self.dtype)
            block = Block(values, torch.linalg.vector_norm(values, dim=1).square(), index)
            if not self.fits:
                return block
            self.kept[start] = block
        return self.kept[start]


def _squared(here: Block, there: Block, diagonal: bool) -> tuple[Tensor, Tensor]:
    """[a, b] squared distances, near-duplicates, where the product cancels, by explicit differences; and the
    smallest of each row (of other rows)."""
    squared = torch.addmm(there.norm[None, :], here.values, there.values.T, alpha=-2)
    squared += here.norm[:, None]
    share = 1e-6 if squared.dtype == torch.float64 else 1e-3
    if diagonal:
        squared.fill_diagonal_(math.inf)
    low = squared.amin(dim=1)
    if float(low.min()) < share * float(here.norm.max() + there.norm.max()):
        close = squared < share * (here.norm[:, None] + there.norm[None, :])
        close |= squared <= 0
        i, j = close.nonzero(as_tuple=True)
        step = max(1, 2**22 // max(1, here.values.shape[1]))
        for part in row_blocks(len(i), step):
            difference = here.values[i[part]] - there.values[j[part]]
            squared[i[part], j[part]] = difference.square().sum(dim=1)
        low = squared.amin(dim=1)
    return squared, low


def _reduce(
    squared: Tensor, low: Tensor, diagonal: bool, same: bool, all_extremes: bool
) -> tuple[Reduced, Reduced]:
    """What one block says of its rows, and of its columns. `squared` is used up."""
    low_column = squared.amin(dim=0) if all_extremes else None
    if diagonal:
        squared.fill_diagonal_(0)
    high = squared.amax(dim=1) if same or all_extremes else None
    high_column = squared.amax(dim=0) if all_extremes else None
    distance = squared.sqrt_()
    return Reduced(distance.sum(dim=1), low, high), Reduced(distance.sum(dim=0), low_column, high_column)


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
