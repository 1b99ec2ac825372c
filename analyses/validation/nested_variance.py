"""Nested cross-validation: a score that uses every row, and a variance that owns up to how folds share rows.

Folds of ordinary cross-validation train on one another's test rows, so that their spread understates the
variance of their mean. Bates, Hastie & Tibshirani (2104.00673) estimate the mean squared error itself: for
each fold, the cross-validated score of the other folds is compared with the score on that fold, whose own
sampling variance is known. One call fits everything: a fit without folds {j, k} serves both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..probes.fit import one_standard_error, probabilities, row_losses
from ..probes.methods import Method
from ..probes.problem import Fits, Floats, Problem
from ..reading.task import Task
from ..solvers.arrays import Array

Subset = tuple[int, ...]
MEAN_METRICS = ("accuracy", "log_loss", "brier", "mse")
METRICS = ("auroc", "balanced_accuracy", *MEAN_METRICS)


@dataclass(frozen=True)
class NestedScore:
    """A cross-validated score with its standard error."""

    estimate: float
    """Corrected for training sets smaller than all rows."""
    error: float
    """Standard error from nested cross-validation, between the naive one and √folds times it."""
    naive_error: float
    """What the spread of pooled cross-validated rows alone would say: too small."""
    converged: bool


def nested_score(
    x: Array, task: Task, method: Method, strengths: Floats, metric: str, folds: NDArray[np.int64]
) -> NestedScore:
    """Score a probe at one place.

    Args:
        x: [rows, width], numpy, or torch on the device that computes.
        task: its labels and groups; its own split plays no part.
        method: how to fit.
        strengths: to choose from, inside each training set.
        metric: one of `METRICS`.
        folds: [repeats, rows] fold of each row, groups kept together.
    """
    n_folds = int(folds.max()) + 1
    parts = [_Repeat(x, task, method, strengths, fold, n_folds) for fold in folds]
    gaps, inner, outer, naive = [], [], [], []
    for part in parts:
        sizes = np.bincount(part.fold, minlength=n_folds) / len(x)
        influences = np.zeros(len(x))
        single = np.empty(n_folds)
        for k in range(n_folds):
            single[k], influence = part.score(metric, (k,), k)
            influences[part.fold == k] = influence
            others = [other for other in range(n_folds) if other != k]
            scores = [part.score(metric, tuple(sorted((k, other))), other)[0] for other in others]
            within = float(np.average(scores, weights=sizes[others]))
            inner.append(within)
            gaps.append((within - single[k]) ** 2 - _variance(influence, task.groups[part.fold == k]))
        outer.append(float(sizes @ single))
        naive.append(_variance(influences, task.groups))
    low = float(np.sqrt(np.mean(naive)))
    squared = (n_folds - 1) / n_folds * max(float(np.mean(gaps)), 0.0)
    bias = (1 + (n_folds - 2) / n_folds) * (np.mean(inner) - np.mean(outer))
    return NestedScore(
        estimate=float(np.mean(inner) - bias),
        error=float(np.clip(np.sqrt(squared), low, np.sqrt(n_folds) * low)),
        naive_error=low,
        converged=all(part.converged for part in parts),
    )


class _Repeat:
    """Every fit that one division into folds needs: without one fold, without two, and without three."""

    def __init__(
        self, x: Array, task: Task, method: Method, strengths: Floats, fold: NDArray[np.int64], n_folds: int
    ) -> None:
        self.x, self.task, self.method, self.fold, self.n_folds = x, task, method, fold, n_folds
        self.several = len(strengths) > 1
        largest = 3 if self.several else 2
        self.subsets = [s for size in range(1, largest + 1) for s in combinations(range(n_folds), size)]
        masks = np.stack([~np.isin(fold, subset) for subset in self.subsets], axis=1).astype(np.float64)
        self.fits: Fits = method.fit(Problem(x, task.y, task.n_classes, masks), strengths)
        self.index = {subset: number for number, subset in enumerate(self.subsets)}
        self.chosen = {subset: self._choose(subset) for subset in self.subsets if len(subset) < 3}
        self.converged = all(
            bool(self.fits.converged[self.index[subset], strength])
            for subset, strength in self.chosen.items()
        )

    def _choose(self, without: Subset) -> int:
        """The strength chosen by cross-validation within what a fit saw."""
        if not self.several:
            return 0
        by_fold = [
            row_losses_of(self.task, self.method, self.fold == other, margins).mean(axis=1)
            for other in range(self.n_folds)
            if other not in without
            for margins in [self._margins(tuple(sorted((*without, other))), other)]
        ]
        return one_standard_error(np.stack(by_fold, axis=1))

    def _margins(self, without: Subset, on: int) -> Floats:
        return self.fits.margins(self.x[self.fold == on], self.index[without])

    def score(self, metric: str, without: Subset, on: int) -> tuple[float, Floats]:
        """Score on a fold of the fit without it (and another), with every row's influence on it."""
        margin = self._margins(without, on)[self.chosen[without]]
        return influence(metric, self.task.y[self.fold == on], margin)


def row_losses_of(task: Task, method: Method, rows: NDArray[np.bool_], margins: Iterable[Floats]) -> Floats:
    """[strengths, rows] what strengths are chosen by."""
    return np.stack([row_losses(task.y[rows], margin, task, method) for margin in margins])


def influence(metric: str, y: NDArray[Any], margin: Floats) -> tuple[float, Floats]:
    """A score and what each row adds to it: rows' influences have mean 0, and their scatter is its variance.

    Args:
        metric: one of `METRICS`.
        y: [rows] class codes, or values for `mse`.
        margin: [rows] or [rows, classes] log-odds, or predicted values.
    """
    if metric == "auroc":
        return _auroc_influence(y, margin)
    if metric == "mse":
        values = (y - margin) ** 2
        return float(values.mean()), values - values.mean()
    if metric in ("log_loss", "brier"):
        p = probabilities(margin)
        p = np.stack([1 - p, p], axis=1) if p.ndim == 1 else p
        truth = np.eye(p.shape[1])[y]
        own = p[np.arange(len(y)), y].clip(min=1e-15)
        values = -np.log(own) if metric == "log_loss" else ((p - truth) ** 2).sum(axis=1)
        if metric == "brier" and margin.ndim == 1:
            values = values / 2  # the usual binary form
        return float(values.mean()), values - values.mean()
    said = (margin > 0).astype(int) if margin.ndim == 1 else margin.argmax(axis=1)
    hit = (said == y).astype(np.float64)
    if metric == "accuracy":
        return float(hit.mean()), hit - hit.mean()
    classes = np.unique(y)
    values, recalls = np.zeros(len(y)), []
    for value in classes:
        mine = y == value
        recalls.append(hit[mine].mean())
        values[mine] = (hit[mine] - recalls[-1]) * len(y) / (mine.sum() * len(classes))
    return float(np.mean(recalls)), values


def _auroc_influence(y: NDArray[Any], margin: Floats) -> tuple[float, Floats]:
    """Placements (DeLong, DeLong & Clarke-Pearson 1988): how far each row's rank is from its share."""
    from scipy.stats import rankdata

    positive = y == 1
    n, n_positive = len(y), int(positive.sum())
    n_negative = n - n_positive
    if not n_positive or not n_negative:
        return float("nan"), np.zeros(n)
    everywhere = rankdata(margin)
    placement = np.empty(n)
    placement[positive] = (everywhere[positive] - rankdata(margin[positive])) / n_negative
    placement[~positive] = 1 - (everywhere[~positive] - rankdata(margin[~positive])) / n_positive
    area = float(placement[positive].mean())
    return area, (placement - area) * np.where(positive, n / n_positive, n / n_negative)


def _variance(influences: Floats, groups: NDArray[np.int64]) -> float:
    """Variance of a mean of rows that come in groups."""
    codes = np.unique(groups, return_inverse=True)[1]
    totals = np.bincount(codes, weights=influences)
    n_groups = len(totals)
    return float((totals**2).sum() / len(influences) ** 2 * n_groups / max(n_groups - 1, 1))
