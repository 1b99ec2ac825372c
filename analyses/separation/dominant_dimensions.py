"""Dimensions and rows that dominate all distances, and what leaving them out changes.

A few residual dimensions of trained transformers carry values hundreds of times the rest (massive
activations, Sun et al. 2402.17762), and the first token soaks up attention with an outsized norm. Either can
make or break an index of Euclidean distances: one inflated dimension moved Xie-Beni from 12 to 857.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .indices import cluster_indices
from .spaces import mean_and_sd

VARIANCE_RATIO = 25.0
NORM_RATIO = 10.0


def dominant_dimensions(x: Tensor, *, ratio: float = VARIANCE_RATIO, most: int = 16) -> list[dict[str, Any]]:
    """Dimensions whose variance is at least `ratio` times the median dimension's, largest first.

    Args:
        x: [rows, width].
        ratio: of variances; 25 is five times the typical sd.
        most: how many to name.

    Returns:
        dicts of `dimension`, `variance_share` (of the total over dimensions) and `largest` (absolute value).

    >>> dominant_dimensions(torch.tensor([[0.0, 1, 0], [900, 2, 1], [0, 3, 2], [900, 1, 0]]))[0]["dimension"]
    0
    """
    _, sd = mean_and_sd(x)
    variance = sd.square()
    typical = variance.median()
    total = float(variance.sum())
    if total == 0:
        return []
    order = torch.argsort(variance, descending=True)[:most].tolist()
    return [
        {
            "dimension": dimension,
            "variance_share": float(variance[dimension]) / total,
            "largest": float(x[:, dimension].abs().max()),
        }
        for dimension in order
        if float(variance[dimension]) >= ratio * float(typical) and float(variance[dimension]) > 0
    ]


def sink_rows(x: Tensor, *, ratio: float = NORM_RATIO) -> NDArray[np.int64]:
    """Rows whose distance from the median row is at least `ratio` times the median such distance."""
    centre = x.median(dim=0).values
    away = (x - centre).to(torch.float64).square().sum(dim=1).sqrt()
    typical = away.median()
    return torch.nonzero((away >= ratio * typical) & (away > 0))[:, 0].cpu().numpy()


def leave_out(
    x: Tensor, codes: NDArray[np.int64], indices: Sequence[str], rows: NDArray[np.int64] | None = None
) -> list[dict[str, Any]]:
    """Indices in raw space with dominant dimensions, and with sink rows, left out; nothing where there are
    none.

    Args:
        x: [rows, width].
        codes: [rows] clusters.
        indices: names.
        rows: [rows] what rows are called; default: 0, 1, 2 …

    Returns:
        one dict per index and kind: `left_out` (`dominant dimensions` or `sink rows`), `which`, `share` (of
        the variance), `metric`, `estimate` (all kept) and `without`.
    """
    found = []
    dimensions = dominant_dimensions(x)
    if dimensions:
        named = [one["dimension"] for one in dimensions]
        kept = torch.ones(x.shape[1], dtype=torch.bool)
        kept[named] = False
        share = sum(one["variance_share"] for one in dimensions)
        if kept.any():
            found.append(("dominant dimensions", named, share, x[:, kept.to(x.device)], codes))
    sinks = sink_rows(x)
    keep_rows = np.setdiff1d(np.arange(len(x)), sinks)
    if len(sinks) and len(np.unique(codes[keep_rows])) == len(np.unique(codes)):
        centred = (x - x.mean(dim=0)).to(torch.float64).square().sum(dim=1)
        share = float(centred[sinks].sum() / centred.sum())
        named = (sinks if rows is None else rows[sinks]).tolist()
        found.append(("sink rows", sorted(named), share, x[keep_rows], codes[keep_rows]))
    if not found:
        return []
    whole = cluster_indices(x, codes, names=indices)
    out = []
    for kind, which, share, kept_x, kept_codes in found:
        without = cluster_indices(kept_x, kept_codes, names=indices)
        listed = ", ".join(map(str, which[:16])) + (" …" if len(which) > 16 else "")
        out += [
            {
                "left_out": kind,
                "which": listed,
                "share": share,
                "metric": name,
                "estimate": whole[name],
                "without": without[name],
            }
            for name in indices
        ]
    return out
