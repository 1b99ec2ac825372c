"""Cluster-separation indices of labelled rows, by name and exactly as their papers define them.

Pure functions on arrays. `cluster_indices` computes any number of indices in one blocked pass; the functions
below it are the same one at a time. Where a popular library departs from the published definition, ours keeps
the definition and the docstring says what the library does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...hooks.errors import LayerprobeError
from ..statistics.quantities import DIAMETERS, QUANTITIES, SET_DISTANCES
from .codes import as_rows, encode_labels
from .distances import PairStatistics, extreme, pair_statistics
from .moments import Moments, cluster_moments


@dataclass(frozen=True)
class Index:
    """How to compute one index; its title and direction are those of `QUANTITIES`.

    Attributes:
        name: metric name in result tables.
        scale: `log` for positive ratios, whose noise is multiplicative, else `linear`.
        pairwise: whether it needs distances between rows (n² work) or only centroids.
    """

    name: str
    scale: str
    pairwise: bool

    @property
    def better(self) -> str:
        """`higher` or `lower`, for well separated clusters."""
        return QUANTITIES[self.name].direction or "higher"

    @property
    def title(self) -> str:
        """For plots and sentences."""
        return QUANTITIES[self.name].title


INDICES: dict[str, Index] = {
    index.name: index
    for index in (
        Index("silhouette", "linear", True),
        Index("davies_bouldin", "log", False),
        Index("calinski_harabasz", "log", False),
        Index("dunn", "log", True),
        Index("xie_beni", "log", False),
        Index("dunn_torchmetrics", "log", False),
        *(
            Index(f"dunn_{distance}_{diameter}", "log", True)
            for distance in SET_DISTANCES
            for diameter in DIAMETERS
        ),
    )
}
DEFAULT_INDICES = ("silhouette", "davies_bouldin", "calinski_harabasz", "dunn", "xie_beni")


def cluster_indices(
    x: Any,
    labels: Any,
    *,
    names: Sequence[str] = DEFAULT_INDICES,
    classes: Sequence[Any] | None = None,
    precision: str = "auto",
    device: str | torch.device | None = None,
    block: int = 1024,
) -> dict[str, float]:
    """Several indices of one labelled set of rows, in one pass over the pairs and bounded memory.

    Args:
        x: [rows, width] array or tensor of activations; any floating dtype, memory-mapped or not.
        labels: [rows] hard cluster labels of any type.
        names: keys of `INDICES`.
        classes: the clusters that must be present; default: those that are.
        precision: of the pass over pairs: `float64`, `float32` (extremes are still exact, sums of distances
            to about 1e-6), or `auto`: float64 for float64 input and up to 4,096 rows.
        device: where to compute; default: where `x` is.
        block: rows per side of a block of distances.

    Returns:
        index name -> value; inf where a denominator is zero (all clusters are points, or two centroids
        coincide).

    Raises:
        LayerprobeError: an unknown name, fewer than two clusters, an empty cluster, non-finite rows.

    >>> {k: round(v, 3) for k, v in cluster_indices([[0.0], [1.0], [9.0], [10.0]], [0, 0, 1, 1]).items()}
    {'silhouette': 0.889, 'davies_bouldin': 0.111, 'calinski_harabasz': 162.0, 'dunn': 8.0, 'xie_beni': 0.003}
    """
    for name in names:
        if name not in INDICES:
            raise LayerprobeError(f"no index {name!r}; use one of {', '.join(INDICES)}")
    rows = as_rows(x, device)
    codes, present = encode_labels(labels, classes)
    if len(codes) != len(rows):
        raise LayerprobeError(f"{len(codes)} labels for {len(rows)} rows; pass one label per row")
    cluster_of = torch.as_tensor(codes, device=rows.device)
    every = any("average_to_centroids" in name for name in names)
    moments = cluster_moments(rows, cluster_of, len(present), all_centroids=every)
    if not bool(torch.isfinite(moments.scatter).all()):
        raise LayerprobeError("rows hold NaN or infinite values; leave those rows out")
    pairs = None
    if any(INDICES[name].pairwise for name in names):
        dtype = _pass_dtype(precision, rows)
        both = any(word in name for name in names for word in ("complete", "hausdorff"))
        pairs = pair_statistics(
            rows, cluster_of, moments.centroids, dtype=dtype, all_extremes=both, block=block
        )
    return {name: _value(name, rows, cluster_of, moments, pairs) for name in names}


def _pass_dtype(precision: str, rows: Tensor) -> torch.dtype:
    if precision == "auto":
        return torch.float64 if rows.dtype == torch.float64 or len(rows) <= 4096 else torch.float32
    if precision not in ("float32", "float64"):
        raise LayerprobeError(f"precision={precision!r}, expected 'auto', 'float32' or 'float64'")
    return torch.float64 if precision == "float64" else torch.float32


def _value(name: str, x: Tensor, codes: Tensor, moments: Moments, pairs: PairStatistics | None) -> float:
    if name == "calinski_harabasz":
        return _calinski_harabasz(moments)
    if name == "xie_beni":
        return _ratio(moments.scatter.sum() / len(x), _off_diagonal(moments.between).min().square())
    if name == "davies_bouldin":
        return _davies_bouldin(moments)
    if name == "dunn_torchmetrics":
        return _ratio(_off_diagonal(moments.between).min(), moments.max_radius.max())
    assert pairs is not None
    if name == "silhouette":
        return float(silhouette_rows(pairs.sums, codes, moments.sizes).mean())
    distance, diameter = ("single", "maximum") if name == "dunn" else name[5:].rsplit("_", 1)
    return _ratio(
        _set_distance(distance, x, codes, moments, pairs), _diameter(diameter, x, codes, moments, pairs)
    )


def _ratio(top: Any, bottom: Any) -> float:
    """top / bottom with 0 / 0 undefined and x / 0 infinite."""
    numerator, denominator = float(top), float(bottom)
    if denominator == 0:
        return math.nan if numerator == 0 else math.inf
    return numerator / denominator


def _off_diagonal(matrix: Tensor) -> Tensor:
    return matrix[~torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)]


def _calinski_harabasz(moments: Moments) -> float:
    n, k = float(moments.sizes.sum()), len(moments.sizes)
    # distances from the first centroid, not raw coordinates: a common offset would cost digits
    shifted = moments.centroids - moments.centroids[0]
    mean = (moments.sizes[:, None] * shifted).sum(dim=0) / n
    between = (moments.sizes * (shifted - mean).square().sum(dim=1)).sum()
    return _ratio(between * (n - k), moments.scatter.sum() * (k - 1))


def _davies_bouldin(moments: Moments) -> float:
    spread = moments.mean_radius[:, None] + moments.mean_radius[None, :]
    ratio = spread / moments.between
    ratio = torch.where(spread == 0, torch.zeros_like(ratio), ratio)
    ratio.fill_diagonal_(-math.inf)
    return float(ratio.max(dim=1).values.mean())


def silhouette_rows(sums: Tensor, codes: Tensor, sizes: Tensor) -> Tensor:
    """[rows] silhouette of each row: (b − a) / max(a, b), 0 for a row alone in its cluster (Rousseeuw 1987).

    Args:
        sums: [rows, K] sums of distances from each row to each cluster.
        codes: [rows] own cluster.
        sizes: [K] rows per cluster.
    """
    own = codes[:, None]
    alone = sizes[codes] <= 1
    inside = sums.gather(1, own)[:, 0] / (sizes[codes] - 1).clamp(min=1)
    outside = (sums / sizes).scatter(1, own, math.inf).min(dim=1).values
    value = (outside - inside) / torch.maximum(inside, outside)
    return torch.where(alone | (torch.maximum(inside, outside) == 0), torch.zeros_like(value), value)


def _set_distance(name: str, x: Tensor, codes: Tensor, moments: Moments, pairs: PairStatistics) -> float:
    """Smallest distance between two clusters, in the sense named (Bezdek & Pal 1998, δ1 … δ6)."""
    k = len(moments.sizes)
    if name == "centroid":
        return float(_off_diagonal(moments.between).min())
    if name == "average_to_centroids":
        sums = moments.to_centroids * moments.sizes[:, None]
        return float(_off_diagonal((sums + sums.T) / (moments.sizes[:, None] + moments.sizes)).min())
    if name == "average":
        by_cluster = torch.zeros(k, k, dtype=torch.float64, device=x.device).index_add_(0, codes, pairs.sums)
        return float(_off_diagonal(by_cluster / (moments.sizes[:, None] * moments.sizes)).min())
    everyone = torch.arange(len(x), device=x.device)
    if name == "single":
        rows, clusters = (codes[:, None] != torch.arange(k, device=x.device)).nonzero(as_tuple=True)
        return extreme(x, codes, pairs, rows, clusters, "min")
    kind = "max" if name == "complete" else "max_nearest"
    distance = math.inf
    for first in range(k):
        for second in range(first + 1, k):
            rows = everyone[(codes == first) | (codes == second)]
            others = torch.where(codes[rows] == first, second, first)
            distance = min(distance, extreme(x, codes, pairs, rows, others, kind))
    return distance


def _diameter(name: str, x: Tensor, codes: Tensor, moments: Moments, pairs: PairStatistics) -> float:
    """Largest cluster diameter, in the sense named (Bezdek & Pal 1998, Δ1 … Δ3); 0 for a single row."""
    if name == "centroid":
        return 2 * float(moments.mean_radius.max())
    if name == "average":
        own = pairs.sums.gather(1, codes[:, None])[:, 0]
        total = torch.zeros_like(moments.sizes).index_add_(0, codes, own)
        return float((total / (moments.sizes * (moments.sizes - 1)).clamp(min=1)).max())
    return extreme(x, codes, pairs, torch.arange(len(x), device=x.device), codes, "max")


def davies_bouldin(x: Any, labels: Any) -> float:
    """Mean over clusters of the worst (sᵢ + sⱼ) / ‖cᵢ − cⱼ‖, s the mean distance to the centroid; lower is
    better (Davies & Bouldin 1979).

    Coinciding centroids of clusters with spread give inf; scikit-learn counts such a pair as 0, the best.

    >>> davies_bouldin([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    0.2
    """
    return cluster_indices(x, labels, names=("davies_bouldin",))["davies_bouldin"]


def dunn(x: Any, labels: Any, *, precision: str = "auto") -> float:
    """Smallest distance between rows of different clusters over the largest within one (Dunn 1974).

    >>> dunn([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    4.0
    """
    return cluster_indices(x, labels, names=("dunn",), precision=precision)["dunn"]


def generalised_dunn(
    x: Any, labels: Any, *, set_distance: str = "single", diameter: str = "maximum", precision: str = "auto"
) -> float:
    """The family of Bezdek & Pal (1998): any set distance δ1 … δ6 over any diameter Δ1 … Δ3.

    Args:
        x: [rows, width].
        labels: [rows].
        set_distance: `single` (δ1), `complete`, `average`, `centroid`, `average_to_centroids`, `hausdorff`.
        diameter: `maximum` (Δ1), `average` (mean distance of distinct rows), `centroid` (twice the mean
            distance to the centroid).
        precision: as in `cluster_indices`.
    """
    name = f"dunn_{set_distance}_{diameter}"
    return cluster_indices(x, labels, names=(name,), precision=precision)[name]


def xie_beni(x: Any, labels: Any) -> float:
    """ΣΣ‖x − c‖² / (n · min ‖cᵢ − cⱼ‖²) for hard labels; lower is better (Xie & Beni 1991).

    >>> xie_beni([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    0.01
    """
    return cluster_indices(x, labels, names=("xie_beni",))["xie_beni"]


def calinski_harabasz(x: Any, labels: Any) -> float:
    """(between / (K − 1)) / (within / (n − K)), sums of squares; higher is better (Caliński & Harabasz 1974).

    Clusters without any spread give inf; scikit-learn says 1.0.

    >>> calinski_harabasz([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    50.0
    """
    return cluster_indices(x, labels, names=("calinski_harabasz",))["calinski_harabasz"]


def silhouette(x: Any, labels: Any, *, precision: str = "auto") -> float:
    """Mean silhouette over rows, −1 … 1 (Rousseeuw 1987).

    >>> round(silhouette([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1]), 6)
    0.79798
    """
    return cluster_indices(x, labels, names=("silhouette",), precision=precision)["silhouette"]
