"""The Dunn family under many relabellings: the closest and the farthest pairs settle almost every draw.

The smallest distance between clusters of a relabelling is that of the first pair, in order of distance, whose
rows got different labels. A few thousand closest pairs decide it for every draw; where they do not, more are
fetched.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .moments import row_blocks

if TYPE_CHECKING:
    from .draws import DrawnSums, Draws

Bands = Callable[[], Iterator[tuple[slice, Tensor]]]


class ClosestPairs:
    """The closest (of different groups, where groups carry the label) and the farthest pairs of rows.

    Args:
        n_rows: rows in all.
        draws: the relabellings to settle.
        keep: about how many pairs of each kind.
        everything: hold every pair, whatever `keep` says.
    """

    def __init__(self, n_rows: int, draws: "Draws", keep: int = 4096, *, everything: bool = False) -> None:
        self.draws, self.n_rows = draws, n_rows
        n_pairs = n_rows * (n_rows - 1) // 2
        self.complete = everything or n_pairs <= 16 * keep
        self.keep = n_pairs if self.complete else keep
        share = 1.0 if self.complete else 4 * keep / n_pairs
        self.near, self.far = _Buffer(self.keep, share), _Buffer(self.keep, share)

    def add(self, rows: slice, band: Tensor) -> None:
        """Take one band of distances."""
        ahead = band[:, rows.start :]
        groups = self.draws.groups if self.draws.apart else None
        self.near.add(ahead, rows.start, groups)
        self.far.add(-ahead, rows.start, None)

    def smallest_between(self) -> Tensor:
        """[draws] smallest distance between rows of different clusters; NaN where undecided."""
        return self.near.first(self.draws.small_codes, same=False)

    def largest_within(self) -> Tensor:
        """[draws] largest distance between rows of one cluster; 0 if all pairs were seen and none is."""
        value = -self.far.first(self.draws.small_codes, same=True)
        return torch.where(torch.isnan(value), 0.0, value) if self.complete else value


class _Buffer:
    """Every pair whose value is below a limit, the limit falling so that about `keep` remain."""

    def __init__(self, keep: int, share: float) -> None:
        self.keep, self.share, self.limit = keep, share, math.inf
        self.parts: list[tuple[Tensor, Tensor, Tensor]] = []
        self.held = 0

    def add(self, values: Tensor, start: int, groups: Tensor | None) -> None:
        """`values`: [rows, columns], both counted from `start`; pairs of one group are passed over."""
        if self.share < 1 and math.isinf(self.limit):
            # a first limit from a sample spares sorting the whole first band
            sample = values.reshape(-1)[:: max(1, values.numel() // 65_536)]
            self.limit = float(sample.kthvalue(max(16, int(self.share * len(sample)))).values)
        i, j = (values <= self.limit).nonzero(as_tuple=True)
        kept = j > i
        if groups is not None:
            kept &= groups[i + start] != groups[j + start]
        i, j = i[kept], j[kept]
        self.parts.append((values[i, j], i + start, j + start))
        self.held += len(i)
        if self.held > 2 * self.keep:
            self._trim()

    def _trim(self) -> None:
        value, i, j = (torch.cat(column) for column in zip(*self.parts, strict=True))
        kept = torch.argsort(value, stable=True)[: self.keep]
        self.parts, self.held = [(value[kept], i[kept], j[kept])], len(kept)
        if self.held == self.keep and self.share < 1:
            self.limit = float(value[kept[-1]])

    def first(self, codes: Tensor, *, same: bool) -> Tensor:
        self._trim()
        value, i, j = self.parts[0]
        found = torch.full((codes.shape[1],), math.nan, dtype=torch.float64, device=codes.device)
        open_draws = torch.arange(codes.shape[1], device=codes.device)
        # nearly every draw is settled by the first few pairs
        for part in row_blocks(len(value), 64):
            left, right = codes[i[part]][:, open_draws], codes[j[part]][:, open_draws]
            hit = (left == right) if same else (left != right)
            settled = hit.any(dim=0)
            found[open_draws[settled]] = value[part][hit.to(torch.uint8).argmax(dim=0)][settled].to(
                torch.float64
            )
            open_draws = open_draws[~settled]
            if len(open_draws) == 0:
                break
        return found


def _decided(pairs: ClosestPairs, bands: Bands, which: str) -> Tensor:
    """[draws] with enough pairs fetched for every draw."""
    value: Tensor = getattr(pairs, which)()
    while bool(torch.isnan(value).any()) and not pairs.complete:
        # a limit guessed from the first band may have been too low; 64 times more pairs, in the end all
        pairs = ClosestPairs(pairs.n_rows, pairs.draws, keep=pairs.keep * 64)
        for rows, band in bands():
            pairs.add(rows, band)
        value = getattr(pairs, which)()
    return value


def drawn_dunn(
    x: Tensor,
    draws: "Draws",
    names: Sequence[str],
    sums: "DrawnSums",
    pairs: ClosestPairs | None,
    terms: dict[str, Tensor],
    bands: Bands,
) -> dict[str, Tensor]:
    """Every Dunn variant asked for, of every draw.

    Args:
        x: [rows, width], for its device only.
        draws: the relabellings.
        names: indices asked for.
        sums: sums and extremes of distances between clusters.
        pairs: closest and farthest pairs.
        terms: `delta_…` and `diameter_…` found from centroids.
        bands: yields the distance matrix again, should more pairs be needed.
    """
    k = draws.n_clusters
    diagonal = torch.eye(k, dtype=torch.bool, device=x.device)
    sizes = draws.sizes.to(torch.float64)

    def delta(name: str) -> Tensor:
        if name in ("centroid", "average_to_centroids"):
            return terms[f"delta_{name}"]
        if name == "single":
            assert pairs is not None
            return _decided(pairs, bands, "smallest_between")
        if name == "average":
            mean = sums.between / (sizes[:, None] * sizes[None, :])
            return mean.masked_fill(diagonal[:, :, None], math.inf).amin(dim=(0, 1))
        kept = sums.farthest if name == "complete" else sums.farthest_nearest
        both = torch.maximum(kept, kept.transpose(1, 2)).to(torch.float64)
        return both.masked_fill(diagonal, math.inf).amin(dim=(1, 2))

    def diameter(name: str) -> Tensor:
        if name == "centroid":
            return terms["diameter_centroid"]
        if name == "average":
            within = sums.between.diagonal(dim1=0, dim2=1).T
            return (within / (sizes * (sizes - 1)).clamp(min=1)).amax(dim=0)
        assert pairs is not None
        return _decided(pairs, bands, "largest_within")

    found, memo = {}, {}
    for name in names:
        if not name.startswith("dunn") or name == "dunn_torchmetrics":
            continue
        top, bottom = ("single", "maximum") if name == "dunn" else name[5:].rsplit("_", 1)
        for key, make in ((("delta", top), delta), (("diameter", bottom), diameter)):
            if key not in memo:
                memo[key] = make(key[1])
        found[name] = memo["delta", top] / memo["diameter", bottom]
    return found
