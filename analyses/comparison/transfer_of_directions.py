"""Does a direction of one model mean the same in another: cosines against a ceiling, probe transfer."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..statistics.score_intervals import deciding_groups, interval
from .alikeness import cosine, group_jackknife
from .geometry import JACKKNIFE, codes, halves, triple

Floats = NDArray[np.float64]


def class_direction(x: Floats, labels: NDArray[np.bool_]) -> Floats:
    """Mass-mean direction: mean of class 1 minus mean of class 0."""
    return x[labels].mean(axis=0) - x[~labels].mean(axis=0)


def whitened_direction(x: Floats, labels: NDArray[np.bool_], shrink: float = 0.1) -> Floats:
    """Shrunk LDA: the mass-mean direction through the inverse of the shrunk within-class covariance."""
    centred = np.where(labels[:, None], x - x[labels].mean(axis=0), x - x[~labels].mean(axis=0))
    covariance = centred.T @ centred / max(len(x) - 2, 1)
    target = np.trace(covariance) / len(covariance)
    covariance = (1 - shrink) * covariance + (shrink * target + 1e-12) * np.eye(len(covariance))
    return np.linalg.solve(covariance, class_direction(x, labels))


def weighted_auroc(scores: ArrayLike, labels: NDArray[np.bool_], weights: ArrayLike) -> Floats:
    """Tie-correct AUROC under many sets of weights.

    Args:
        scores: [rows].
        labels: [rows] class 1.
        weights: [draws, rows].

    Returns:
        [draws]; NaN where a draw has one class only.

    >>> weighted_auroc([1.0, 2.0, 2.0, 3.0], np.array([False, True, False, True]), np.ones((1, 4))).tolist()
    [0.875]
    """
    values, mass = np.asarray(scores, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    _, level = np.unique(values, return_inverse=True)
    n_levels = int(level.max()) + 1
    positive, negative = (
        np.stack([np.bincount(level, w * side, minlength=n_levels) for w in mass])
        for side in (labels, ~labels)
    )
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore"):
        return (positive * (below + negative / 2)).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))


def above_chance(draws: Floats) -> float:
    """One-sided p that an AUROC is 0.5, from its bootstrap spread; the first draw is the data."""
    spread = float(np.nanstd(draws[1:], ddof=1)) if len(draws) > 2 else 0.0
    return math.erfc((float(draws[0]) - 0.5) / max(spread, 1e-6) / math.sqrt(2)) / 2


def direction_rows(
    fields: dict[str, Any],
    model: Floats,
    base: Floats,
    labels: NDArray[np.bool_],
    groups: NDArray[np.int64],
    weights: Floats,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Cosine of class directions across models, the split-half ceiling, their ratio, and probe transfer.

    All cosines are between directions from *disjoint* halves of the groups, so that the across-model cosine
    and its ceiling (the same cosine within one model, geometric mean over the two) carry the same noise; the
    ratio is 1 where the models' directions agree as well as each agrees with itself. Transfer fits on one
    half in the reference and scores the other half in the model, before and after re-centring each model on
    its own fitting half.
    """
    common = {**fields, "space": "raw", "n": len(labels), "n_groups": int(groups.max()) + 1, "seed": seed}
    if model.shape[1] == base.shape[1]:
        half = halves(groups, seed)

        def cosines(mask: NDArray[np.bool_]) -> Floats:
            a, b = mask & half, mask & ~half
            d = {
                key: class_direction(x[rows], labels[rows])
                for key, x, rows in (("ma", model, a), ("mb", model, b), ("ra", base, a), ("rb", base, b))
            }
            across = (cosine(d["ma"], d["rb"]) + cosine(d["mb"], d["ra"])) / 2
            within = max(cosine(d["ma"], d["mb"]), 0.0) * max(cosine(d["ra"], d["rb"]), 0.0)
            ceiling = np.sqrt(within)
            return np.array([across, ceiling, across / ceiling if ceiling > 0 else np.nan])

        estimates = group_jackknife(cosines, groups, seed=seed)
        for number, metric in enumerate(
            ("direction_cosine", "direction_cosine_ceiling", "direction_cosine_ratio")
        ):
            full, lo, hi = (values[number] for values in estimates)
            row = {**common, "metric": metric, "method": "mass_mean", "ci_method": JACKKNIFE}
            row |= triple(metric, (full, lo, hi))
            if np.isnan(row["estimate"]):
                row["note"] = "a direction does not agree with itself across halves, so there is no ceiling"
            elif np.isnan(row["lo"]):
                row["note"] = "no interval: undefined when some groups are left out"
            yield row
        yield from transfer_rows(common, model, base, labels, groups, weights, half)


def transfer_rows(
    common: dict[str, Any],
    model: Floats,
    base: Floats,
    labels: NDArray[np.bool_],
    groups: NDArray[np.int64],
    weights: Floats,
    train: NDArray[np.bool_],
) -> Iterator[dict[str, Any]]:
    """Held-out AUROC of the reference's direction in the model and at home, and of the model's own."""
    test = ~train
    mass = weights[:, test]
    size = {"n": int(test.sum()), "n_groups": len(np.unique(codes(groups[test])))}
    units = deciding_groups("auroc", labels[test].astype(np.int64), groups[test], 2)

    def row(metric: str, draws: NDArray[Any], scale: str, note: str) -> dict[str, Any]:
        lo, hi, why = interval(float(draws[0]), draws[1:], units, scale)
        return {
            **common,
            **size,
            "metric": metric,
            "method": "shrunk_lda",
            "split": "held-out half of the groups",
            "ci_method": None if why else "cluster bootstrap of held-out groups",
            "estimate": draws[0],
            "lo": lo,
            "hi": hi,
            "note": "; ".join(filter(None, (why, note))),
        }

    direction = whitened_direction(base[train], labels[train])
    own = whitened_direction(model[train], labels[train])
    for metric, x, weight in (
        ("transfer_auroc", model, direction),
        ("reference_auroc", base, direction),
        ("own_auroc", model, own),
    ):
        draws = weighted_auroc(x[test] @ weight, labels[test], mass)
        note = "p: one-sided against 0.5, normal approximation to the bootstrap"
        yield row(metric, draws, "auroc", note) | {"p": above_chance(draws)}
    # AUROC does not see a shift of all scores; accuracy at the reference's threshold does
    middle = (base[train & labels].mean(axis=0) + base[train & ~labels].mean(axis=0)) / 2
    for metric, shift in (
        ("transfer_accuracy", 0.0),
        ("transfer_accuracy_recentred", model[train].mean(axis=0) - base[train].mean(axis=0)),
    ):
        right = ((model[test] - shift - middle) @ direction > 0) == labels[test]
        positive, negative = mass * labels[test], mass * ~labels[test]
        with np.errstate(invalid="ignore"):
            draws = (positive @ right / positive.sum(axis=1) + negative @ right / negative.sum(axis=1)) / 2
        yield row(metric, draws, "balanced_accuracy", "balanced accuracy at the reference's threshold")
