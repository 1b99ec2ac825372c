"""Separation indices under many relabellings or resamplings of the same rows at once.

A permutation null or a bootstrap asks for one index a thousand times on unchanged distances. So distances
are computed once, a band of rows at a time, and meet all draws in one matrix product; nothing of size
rows × rows is held. Single precision: draws are compared with draws, and the observed labels are scored here
too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from .drawn_centroids import drawn_centroid_indices
from .drawn_extremes import ClosestPairs, drawn_dunn
from .indices import INDICES
from .moments import row_blocks

WEIGHTED = ("silhouette", "davies_bouldin", "calinski_harabasz", "xie_beni")
"""Indices that a bootstrap can resample; the others rest on single pairs, where it is inconsistent."""


@dataclass(frozen=True)
class Draws:
    """What varies between draws.

    Attributes:
        codes: [draws, rows] cluster of each row; one row of codes serves all draws when weights vary.
        n_clusters: K.
        weights: [draws, rows] how often each row is drawn; None: once.
        groups: [rows] rows of one group drawn twice are copies of each other, and pairs between a row and
            copies of its own group do not count as pairs of different groups.
        apart: whether labels are constant within groups, so that pairs of one group never separate clusters.
    """

    codes: Tensor
    n_clusters: int
    weights: Tensor | None = None
    groups: Tensor | None = None
    apart: bool = False

    @property
    def n(self) -> int:
        """Number of draws."""
        return len(self.codes) if self.weights is None else len(self.weights)

    @cached_property
    def member(self) -> Tensor:
        """[rows, K, draws] weight of each row in each cluster."""
        clusters = torch.arange(self.n_clusters, device=self.codes.device)
        member = (self.codes.T[:, None, :] == clusters[None, :, None]).to(torch.float32)
        return member if self.weights is None else member * self.weights.T[:, None, :]

    @cached_property
    def sizes(self) -> Tensor:
        """[K, draws] weight of each cluster, float32."""
        return self.member.sum(dim=0)

    @cached_property
    def own(self) -> Tensor:
        """[rows, draws or 1] cluster of each row."""
        return self.codes.T.contiguous()

    @cached_property
    def small_codes(self) -> Tensor:
        """[rows, draws or 1] clusters in as few bytes as they need."""
        return self.own.to(torch.uint8 if self.n_clusters < 256 else torch.int32)


PIECE = 2**14
"""Elements of a temporary; larger ones leave the cache, and each asks the system for fresh pages."""


class Accumulator(Protocol):
    """Takes bands of the distance matrix."""

    def add(self, rows: slice, band: Tensor) -> None:
        """`band`: [rows of the slice, all rows] distances."""


def distance_bands(x: Tensor, block: int = 512) -> Iterator[tuple[slice, Tensor]]:
    """Bands of the float32 distance matrix of centred rows; the diagonal is exactly zero."""
    norm = x.square().sum(dim=1)
    for rows in row_blocks(len(x), block):
        band = torch.addmm(norm[None, :], x[rows], x.T, alpha=-2).add_(norm[rows, None])
        band.clamp_(min=0).sqrt_()
        band[torch.arange(len(band)), torch.arange(rows.start, rows.stop)] = 0
        yield rows, band


def drawn_indices(
    x: Tensor, draws: Sequence[Draws], names: Sequence[str], *, block: int = 512
) -> list[dict[str, Tensor]]:
    """Index values of every draw.

    Args:
        x: [rows, width] of any floating dtype.
        draws: sets of draws, all over the same rows.
        names: keys of `INDICES`; weighted draws give NaN for those outside `WEIGHTED`.
        block: rows in a band of distances.

    Returns:
        one mapping per set: name -> [draws] float64.
    """
    centred = (x.to(torch.float64) - x.to(torch.float64).mean(dim=0)).to(torch.float32)
    pairwise = [name for name in names if INDICES[name].pairwise]
    sums = [DrawnSums(one, pairwise) for one in draws]
    dunn_like = any(_uses_closest_pairs(name) for name in pairwise)
    closest = [ClosestPairs(len(x), one) if dunn_like and one.weights is None else None for one in draws]
    accumulators: list[Accumulator] = [*sums, *(one for one in closest if one is not None)]
    if pairwise:
        for rows, band in distance_bands(centred, block):
            for accumulator in accumulators:
                accumulator.add(rows, band)
    found = []
    for one, summed, pairs in zip(draws, sums, closest, strict=True):
        values = drawn_centroid_indices(centred, one, names)
        if "silhouette" in names:
            values["silhouette"] = summed.silhouette()
        if one.weights is None:
            values |= drawn_dunn(
                centred, one, names, summed, pairs, values, lambda: distance_bands(centred, block)
            )
        missing = torch.full((one.n,), math.nan, dtype=torch.float64, device=x.device)
        allowed = names if one.weights is None else WEIGHTED
        found.append({name: values[name] if name in allowed else missing for name in names})
    return found


def _uses_closest_pairs(name: str) -> bool:
    return name == "dunn" or name.startswith("dunn_single") or name.endswith("_maximum")


class DrawnSums:
    """Silhouettes, and sums and extremes of distances between clusters, of every draw."""

    def __init__(self, draws: Draws, names: Sequence[str]) -> None:
        self.draws = draws
        # [rows, (K − 1) · draws]: all but the last cluster
        self.most = draws.member[:, :-1].reshape(len(draws.member), -1)
        k, n, device = draws.n_clusters, draws.n, draws.codes.device
        self.wants_silhouette = "silhouette" in names
        weighted = draws.weights is not None
        self.wants_sums = not weighted and any("average" in name.split("_") for name in names)
        self.wants_extremes = not weighted and any(
            "complete" in name or "hausdorff" in name for name in names
        )
        self.total = torch.zeros(n, dtype=torch.float64, device=device)
        self.between = torch.zeros(k, k, n, dtype=torch.float64, device=device)
        self.farthest, self.farthest_nearest = (torch.zeros(n, k, k, device=device) for _ in range(2))

    def add(self, rows: slice, band: Tensor) -> None:
        """Take one band of distances."""
        if self.wants_silhouette or self.wants_sums:
            sums = self._sums(band)
        if self.wants_silhouette:
            # pieces that stay in the processor's cache: the arithmetic after the product is memory-bound
            for part in row_blocks(len(band), max(8, PIECE // self.draws.n)):
                here = slice(rows.start + part.start, rows.start + part.stop)
                self.total += self._silhouettes(here, band[part], sums[part])
        if self.wants_sums:
            # [a, rows] @ [rows, b] for every draw: distances from rows of a to rows of b
            self.between += torch.einsum("rap,rbp->abp", self.draws.member[rows], sums).to(torch.float64)
        if self.wants_extremes:
            self._extremes(rows, band)

    def _sums(self, band: Tensor) -> Tensor:
        """[rows, K, draws] sums of distances to each cluster."""
        n_rows, k, n = self.draws.member.shape
        if self.draws.weights is not None:
            return (band @ self.draws.member.reshape(n_rows, k * n)).reshape(len(band), k, n)
        # the last cluster's sum is what the others leave of the total
        sums = torch.empty(len(band), k, n, device=band.device)
        torch.mm(band, self.most, out=sums.reshape(len(band), k * n)[:, : (k - 1) * n])
        others = sums[:, 0] if k == 2 else sums[:, :-1].sum(dim=1)
        torch.sub(band.sum(dim=1)[:, None], others, out=sums[:, -1])
        return sums

    def _silhouettes(self, rows: slice, band: Tensor, sums: Tensor) -> Tensor:
        draws = self.draws
        sizes = draws.sizes[None]
        if draws.weights is not None:
            assert draws.groups is not None
            again = (draws.weights[:, rows].T - 1)[:, None, :]
            mates = (draws.groups[rows, None] == draws.groups[None, :]).to(band.dtype)
            once = (torch.arange(draws.n_clusters, device=band.device) == draws.own[:, :1]).to(band.dtype)
            sums = sums - again * ((band * mates) @ once)[:, :, None]
            sizes = sizes - again * (mates @ once)[:, :, None]
        inside, mates_left, outside = self._inside_outside(rows, sums, sizes)
        value = (outside - inside).div_(torch.maximum(inside, outside).clamp_(min=1e-30))
        value.masked_fill_(mates_left <= 0, 0)
        if draws.weights is not None:
            value *= draws.weights[:, rows].T
        return value.sum(dim=0).to(torch.float64)

    def _inside_outside(self, rows: slice, sums: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[rows, draws] mean distance inside, count it rests on, and smallest mean distance outside."""
        own = self.draws.own[rows]
        if self.draws.n_clusters == 2:
            second = own == 1
            inside, outside = (torch.where(second, sums[:, i], sums[:, 1 - i]) for i in (1, 0))
            count, count_outside = (torch.where(second, sizes[:, i], sizes[:, 1 - i]) for i in (1, 0))
            count = count - 1
            return inside.div_(count.clamp(min=1)), count, outside.div_(count_outside)
        index = own.expand(-1, self.draws.n)[:, None]
        count = sizes.expand(len(sums), -1, -1).gather(1, index)[:, 0] - 1
        outside = (sums / sizes).scatter(1, index, math.inf).amin(dim=1)
        return sums.gather(1, index)[:, 0].div_(count.clamp(min=1)), count, outside

    def _extremes(self, rows: slice, band: Tensor) -> None:
        k = self.draws.n_clusters
        for draw, codes in enumerate(self.draws.codes):
            members = [codes == cluster for cluster in range(k)]
            far = torch.stack([band[:, member].amax(dim=1) for member in members], dim=1)
            near = torch.stack([band[:, member].amin(dim=1) for member in members], dim=1)
            for cluster in range(k):
                here = members[cluster][rows]
                if here.any():
                    for kept, values in ((self.farthest, far), (self.farthest_nearest, near)):
                        kept[draw, cluster] = torch.maximum(kept[draw, cluster], values[here].amax(dim=0))

    def silhouette(self) -> Tensor:
        """[draws] mean silhouette."""
        value = self.total / self.draws.sizes.sum(dim=0).to(torch.float64)
        return torch.where((self.draws.sizes > 0).all(dim=0), value, math.nan)
