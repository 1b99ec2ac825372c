"""Statistics of lens trajectories over a set of rows: index, handoff, onset, and differences of them.

One `Reader` holds a model's trajectory with the bootstrap weights and random halves that are shared with
every other subset and model, so that any two quantities taken from two readers are paired draw by draw.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.resampling import (
    bootstrap_interval,
    cluster_bootstrap_weights,
    group_codes,
    group_permutations,
    split_half,
)
from ..statistics.shares import Share, share_interval
from .trajectories import (
    Trajectory,
    crossfit_index,
    crossing_layer,
    handoff,
    middle_layers,
    onset_layer,
)

Floats = NDArray[np.float64]
CI = "cluster bootstrap, percentile"


@dataclass(frozen=True)
class Draws:
    """Resampling shared by everything that is to be compared."""

    groups: NDArray[np.int64]
    """[rows] group codes."""
    weights: Floats
    """[1 + n_boot, rows]; the first draw is the data itself."""
    halves: NDArray[np.bool_]
    """[splits, rows]."""
    seed: int

    @classmethod
    def make(cls, groups: ArrayLike, *, n_bootstrap: int, n_splits: int, seed: int) -> "Draws":
        if n_bootstrap < 2:
            raise LayerprobeError(
                f"n_bootstrap={n_bootstrap}: intervals and verdicts rest on bootstrap draws; give 2 or more, "
                "and hundreds for a result"
            )
        codes = group_codes(groups)
        if codes.max(initial=-1) < 3:
            raise LayerprobeError(
                f"{codes.max(initial=-1) + 1} groups are too few for an index by split halves; give "
                "at least 4 groups of prompts (groups=None makes each prompt its own)"
            )
        boot = cluster_bootstrap_weights(codes, n_bootstrap, seed).astype(np.float64)
        halves = np.stack([split_half(codes, seed + split) for split in range(n_splits)])
        return cls(codes, np.concatenate([np.ones((1, len(codes))), boot]), halves, seed)

    def n_groups(self, rows: NDArray[np.bool_]) -> int:
        return len(np.unique(self.groups[rows]))


@dataclass(frozen=True)
class SubsetReading:
    """All that is said of a subset of rows; an array's first entry is the data, the rest bootstrap draws."""

    rows: NDArray[np.bool_]
    layers: tuple[int, ...]
    """Of the curve."""
    curve: Floats
    """[draws, layers] mean LD."""
    index: Floats
    peak: Floats
    final: Floats
    handoff_rate: Floats
    handoff_share: Share
    """The same with an interval that covers near 0 and 1, where a bootstrap does not."""
    crossing: Floats
    onset: Floats
    scores: Floats
    """[rows] cross-fitted index of every row; NaN outside the subset."""
    peak_layer: int


def weighted_mean(values: ArrayLike, weights: Floats) -> Floats:
    """[draws, …] means of values [rows, …] under weights [draws, rows]; NaN where a draw has no row."""
    rows = np.asarray(values, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return (weights @ rows.reshape(len(rows), -1) / weights.sum(axis=1, keepdims=True)).reshape(
            len(weights), *rows.shape[1:]
        )


def read_subset(trajectory: Trajectory, rows: NDArray[np.bool_], draws: Draws) -> SubsetReading:
    """Index, handoff rate, crossing and onset of a subset, on the data and under every bootstrap draw.

    Raises:
        LayerprobeError: no middle layer was captured, or the subset lies in fewer than 4 groups.
    """
    middle = middle_layers(trajectory.layers, trajectory.n_layers)
    if not middle.any():
        raise LayerprobeError(
            f"no captured layer lies in the middle (L/4 ≤ l < L−1) of {trajectory.n_layers}; "
            f"the lens has layers {list(trajectory.layers)}"
        )
    if draws.n_groups(rows) < 4:
        raise LayerprobeError(
            f"a subset has {int(rows.sum())} rows in {draws.n_groups(rows)} groups, too few for an "
            "index by split halves; give at least 4 groups per value of `by`"
        )
    weights = draws.weights * rows
    fit = crossfit_index(trajectory.difference, trajectory.layers, middle, weights, draws.halves)
    curve = weighted_mean(trajectory.difference.T, weights)
    lost = handoff(trajectory.difference, middle)
    return SubsetReading(
        rows=rows,
        layers=trajectory.layers,
        curve=curve,
        index=fit.index,
        peak=fit.peak,
        final=fit.final,
        handoff_rate=weighted_mean(lost, weights),
        handoff_share=share_interval(lost[rows], draws.groups[rows]),
        crossing=crossing_layer(curve, trajectory.layers),
        onset=onset_layer(curve, trajectory.layers, middle),
        scores=np.where(rows, fit.scores, np.nan),
        peak_layer=fit.layer,
    )


def bounds(draws: ArrayLike) -> tuple[float, float]:
    """95 % percentile interval of bootstrap draws (the first is the data); NaN where there can be none."""
    values = np.asarray(draws, dtype=np.float64)[1:]
    if not len(values) or np.isnan(values).mean() > 0.05:
        return float("nan"), float("nan")
    lo, hi = bootstrap_interval(values)
    return float(lo), float(hi)


def sign_flip_null(scores: Floats, groups: NDArray[np.int64], n: int, seed: int) -> tuple[float, Floats]:
    """Mean score and its null when whole groups change sign together; the same seed flips the same groups.

    Args:
        scores: [rows], NaN where a row takes no part.
        groups: [rows] codes.
        n: number of flips.
        seed: of the flips.

    Returns:
        the mean, and [n] means under the null.
    """
    sums = np.bincount(groups, np.nan_to_num(scores), minlength=int(groups.max()) + 1)
    count = np.isfinite(scores).sum()
    signs = np.random.default_rng(seed).integers(0, 2, (n, len(sums))) * 2 - 1
    return float(sums.sum() / count), signs @ sums / count


def gap_null(
    scores: Floats, chosen: NDArray[np.bool_], groups: NDArray[np.int64], n: int, seed: int
) -> tuple[float, Floats]:
    """Mean score of chosen rows minus the rest's, and its null with membership exchanged by groups.

    Raises:
        LayerprobeError: membership constant in some groups and varying in others.
    """
    relabelled = group_permutations(chosen, groups, n, seed)

    def gap(masks: NDArray[Any]) -> Floats:
        inside = masks.astype(np.float64)
        return inside @ scores / inside.sum(axis=1) - (1 - inside) @ scores / (1 - inside).sum(axis=1)

    return float(gap(chosen[None])[0]), gap(relabelled)
