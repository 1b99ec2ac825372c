"""Scores of predictions, each for one set of rows or for many bootstrap weightings of it at once.

`score(metric, truth, predicted, weights)` evaluates any of them by its name in tables. Ranking metrics read
margins, which no saturation ties; proper scores read probabilities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from .quantities import QUANTITIES, WITHIN

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Predicted:
    """What a probe says of rows it has not seen."""

    margin: Floats
    """[rows], or [rows, classes] with more than two classes; the predicted value for regression."""
    probability: Floats | None = None
    """[rows] of the second class, or [rows, classes], calibrated to the classes' frequencies; `None` for
    regression."""
    decision: Floats | None = None
    """[rows] log-odds, or [rows, classes]: positive, or largest, for the class that is decided on. Class
    weights move it and leave probabilities as they are. `None`: the likeliest class."""

    def rows(self, which: ArrayLike) -> "Predicted":
        """The same for a subset of rows."""
        chosen = np.asarray(which)
        return Predicted(
            self.margin[chosen],
            None if self.probability is None else self.probability[chosen],
            None if self.decision is None else self.decision[chosen],
        )

    def decided(self) -> NDArray[np.int64]:
        """[rows] code of the class that is decided on."""
        if self.decision is not None:
            d = self.decision
            return (d > 0).astype(np.int64) if d.ndim == 1 else d.argmax(axis=1)
        assert self.probability is not None
        p = self.probability
        return (p > 0.5).astype(np.int64) if p.ndim == 1 else p.argmax(axis=1)


def _weights(n: int, weights: ArrayLike | None) -> Floats:
    return np.ones((1, n)) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))


def _cumulated(truth: ArrayLike, margin: ArrayLike, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """[draws, margins] weights of positives and of negatives per distinct margin, highest first."""
    values = np.asarray(margin, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positive = np.asarray(truth, dtype=np.float64)[order]
    w = weights[:, order]
    return (
        np.add.reduceat(w * positive, starts, axis=1),
        np.add.reduceat(w * (1 - positive), starts, axis=1),
        ordered[starts],
    )


def auroc(truth: ArrayLike, margin: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Probability that a random positive outranks a random negative, ties counting half.

    Args:
        truth: [rows] 0 or 1.
        margin: [rows].
        weights: [draws, rows] multiplicities.

    Returns:
        [draws] (one without weights); NaN where a class has no weight.

    >>> auroc([0, 0, 1, 1], [0.1, 0.5, 0.5, 0.9]).tolist()
    [0.875]
    """
    positives, negatives, _ = _cumulated(truth, margin, _weights(len(np.asarray(truth)), weights))
    below = negatives.sum(axis=1, keepdims=True) - np.cumsum(negatives, axis=1)
    area = (positives * (below + 0.5 * negatives)).sum(axis=1)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    return np.divide(area, pairs, out=np.full(len(area), np.nan), where=pairs > 0)


def stratified_auroc(
    truth: ArrayLike, margin: ArrayLike, strata: ArrayLike, weights: ArrayLike | None = None
) -> Floats:
    """AUROC over pairs of one stratum only: what ranking is left when what defines the strata cannot help.

    Args:
        truth: [rows] 0 or 1.
        margin: [rows].
        strata: [rows] stratum of each.
        weights: [draws, rows] multiplicities.
    """
    y, m, s = np.asarray(truth), np.asarray(margin), np.asarray(strata)
    w = _weights(len(y), weights)
    won, pairs = np.zeros(len(w)), np.zeros(len(w))
    for value in np.unique(s):
        mine = s == value
        count = (w[:, mine] * y[mine]).sum(axis=1) * (w[:, mine] * (1 - y[mine])).sum(axis=1)
        area = auroc(y[mine], m[mine], w[:, mine])
        won += np.where(count > 0, np.nan_to_num(area) * count, 0)
        pairs += count
    return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)


def average_precision(truth: ArrayLike, margin: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Mean precision over positives (no interpolation); its chance level is the share of positives."""
    positives, negatives, _ = _cumulated(truth, margin, _weights(len(np.asarray(truth)), weights))
    hits, total = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    found = positives.sum(axis=1)
    return np.divide(
        (precision * positives).sum(axis=1), found, out=np.full(len(found), np.nan), where=found > 0
    )


def tpr_at_fpr(
    truth: ArrayLike, margin: ArrayLike, weights: ArrayLike | None = None, *, fpr: float = 0.01
) -> Floats:
    """Share of positives above the lowest threshold that is expected to pass at most `fpr` of new negatives.

    A threshold that k of n negatives pass is passed by a new one with probability (k + 1) / (n + 1), not k /
    n: with fewer than 1 / fpr − 1 negatives there is no such threshold, and the value is NaN. Weights draw
    positives anew; the threshold stays the one that was set.

    Args:
        truth: [rows] 0 or 1.
        margin: [rows].
        weights: [draws, rows] multiplicities.
        fpr: rate allowed.
    """
    y, m = np.asarray(truth), np.asarray(margin, dtype=np.float64)
    w = _weights(len(y), weights)
    positive = w * (y == 1)
    negatives = np.sort(m[y == 0])[::-1]
    allowed = int(np.floor(fpr * (len(negatives) + 1) + 1e-9)) - 1
    positives = positive.sum(axis=1)
    if allowed < 0:
        return np.full(len(w), np.nan)
    found = positive[:, m > negatives[allowed]].sum(axis=1)
    return np.divide(found, positives, out=np.full(len(w), np.nan), where=positives > 0)


def balanced_accuracy(truth: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Mean over classes of the share of their rows that is predicted right."""
    y, hit = np.asarray(truth), np.asarray(predicted) == np.asarray(truth)
    w = _weights(len(y), weights)
    recalls = []
    for value in np.unique(y):
        of_class = w * (y == value)
        total = of_class.sum(axis=1)
        recalls.append(
            np.divide((of_class * hit).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
        )
    return np.mean(recalls, axis=0)


def weighted_mean(values: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """[draws] mean over rows."""
    rows = np.asarray(values, dtype=np.float64)
    w = _weights(len(rows), weights)
    return w @ rows / w.sum(axis=1)


def row_log_loss(truth: ArrayLike, probability: ArrayLike) -> Floats:
    """[rows] −ln of the probability given to the true class, in nats."""
    y, p = np.asarray(truth), np.asarray(probability, dtype=np.float64)
    given = np.where(y == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(y)), y]
    return -np.log(np.clip(given, 1e-15, 1))


def row_brier(truth: ArrayLike, probability: ArrayLike) -> Floats:
    """[rows] squared distance of probability and outcome; with two classes, of the second alone."""
    y, p = np.asarray(truth), np.asarray(probability, dtype=np.float64)
    if p.ndim == 1:
        return (p - y) ** 2
    return ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1)


def expected_calibration_error(
    truth: ArrayLike, probability: ArrayLike, weights: ArrayLike | None = None, *, bins: int = 10
) -> Floats:
    """Mean gap between stated and realised frequency, over bins of equally many rows.

    With more than two classes, of the predicted class. Biased upwards by sampling; compare with a calibrated
    null.
    """
    y, p = np.asarray(truth), np.asarray(probability, dtype=np.float64)
    if p.ndim == 2:
        y, p = (p.argmax(axis=1) == y).astype(float), p.max(axis=1)
    w = _weights(len(y), weights)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]))
    member = np.eye(len(edges) + 1)[np.searchsorted(edges, p, side="right")]
    gaps = np.abs((w * (y - p)) @ member)
    return gaps.sum(axis=1) / w.sum(axis=1)


def r2(truth: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """1 − squared error over squared deviation from these rows' mean; negative where worse than it."""
    y, f = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    w = _weights(len(y), weights)
    mean = (w @ y / w.sum(axis=1))[:, None]
    spread = (w * (y - mean) ** 2).sum(axis=1)
    error = w @ (y - f) ** 2
    return 1 - np.divide(error, spread, out=np.full(len(error), np.nan), where=spread > 0)


def pearson(truth: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Correlation of truth and prediction."""
    y, f = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    w = _weights(len(y), weights)
    w = w / w.sum(axis=1, keepdims=True)
    dy, df = y - (w @ y)[:, None], f - (w @ f)[:, None]
    norm = np.sqrt((w * dy**2).sum(axis=1) * (w * df**2).sum(axis=1))
    return np.divide((w * dy * df).sum(axis=1), norm, out=np.full(len(norm), np.nan), where=norm > 0)


def spearman(truth: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Correlation of ranks; under weights the ranks are those of the data as they are."""
    from scipy.stats import rankdata

    return pearson(rankdata(np.asarray(truth)), rankdata(np.asarray(predicted)), weights)


def kendall(truth: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Kendall's τ-b: concordant minus discordant pairs over the pairs that neither side ties."""
    y, f = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    w = _weights(len(y), weights)
    a, b = np.sign(y[:, None] - y[None]), np.sign(f[:, None] - f[None])
    both = np.einsum("bi,bi->b", w @ (a * b), w)
    norm = np.sqrt(np.einsum("bi,bi->b", w @ np.abs(a), w) * np.einsum("bi,bi->b", w @ np.abs(b), w))
    return np.divide(both, norm, out=np.full(len(norm), np.nan), where=norm > 0)


def macro_auroc(truth: ArrayLike, margin: ArrayLike, weights: ArrayLike | None = None) -> Floats:
    """Mean over classes of the AUROC of that class against the rest."""
    y, m = np.asarray(truth), np.asarray(margin, dtype=np.float64)
    if m.ndim == 1:
        return auroc(y, m, weights)
    # softmax margins of one row are comparable only within the row: take out its log-sum-exp
    peak = m.max(axis=1, keepdims=True)
    m = m - peak - np.log(np.exp(m - peak).sum(axis=1, keepdims=True))
    return np.mean([auroc(y == value, m[:, value], weights) for value in np.unique(y)], axis=0)


METRICS: dict[str, Callable[[NDArray[Any], Predicted, ArrayLike | None], Floats]] = {
    "auroc": lambda y, f, w: macro_auroc(y, f.margin, w),
    "average_precision": lambda y, f, w: average_precision(y, f.margin, w),
    "tpr_at_fpr_0.01": lambda y, f, w: tpr_at_fpr(y, f.margin, w),
    "accuracy": lambda y, f, w: weighted_mean(f.decided() == y, w),
    "balanced_accuracy": lambda y, f, w: balanced_accuracy(y, f.decided(), w),
    "log_loss": lambda y, f, w: weighted_mean(row_log_loss(y, f.probability), w),  # type: ignore[arg-type]
    "brier": lambda y, f, w: weighted_mean(row_brier(y, f.probability), w),  # type: ignore[arg-type]
    "ece": lambda y, f, w: expected_calibration_error(y, f.probability, w),  # type: ignore[arg-type]
    "r2": lambda y, f, w: r2(y, f.margin, w),
    "pearson": lambda y, f, w: pearson(y, f.margin, w),
    "spearman": lambda y, f, w: spearman(y, f.margin, w),
    "kendall": lambda y, f, w: kendall(y, f.margin, w),
    "mse": lambda y, f, w: weighted_mean((np.asarray(y) - f.margin) ** 2, w),
}
"""Metric name → function of truth, predictions and weights [draws, rows] or None, giving [draws]."""

LOWER_IS_BETTER = frozenset(name for name in METRICS if QUANTITIES[name].direction == "lower")

DEFAULT_METRICS = {
    "binary": (
        "auroc",
        "average_precision",
        "balanced_accuracy",
        "tpr_at_fpr_0.01",
        "log_loss",
        "brier",
        "ece",
    ),
    "multinomial": ("balanced_accuracy", "auroc", "accuracy", "log_loss", "brier", "ece"),
    "regression": ("r2", "pearson", "mse"),
}
"""By task; the first is the one that p-values and layer choice are about."""


def score(metric: str, truth: ArrayLike, predicted: Predicted, weights: ArrayLike | None = None) -> Floats:
    """Any metric by name.

    Args:
        metric: a key of `METRICS`.
        truth: [rows] class codes, or values for regression.
        predicted: margins and probabilities.
        weights: [draws, rows] bootstrap multiplicities, or `None` for the data as they are.

    Returns:
        [draws], or [1].
    """
    check_metric(metric)
    if metric.startswith(WITHIN):
        hit = np.abs(np.asarray(truth) - predicted.margin) <= float(metric.removeprefix(WITHIN)) + 1e-12
        return weighted_mean(hit, weights)
    return METRICS[metric](np.asarray(truth), predicted, weights)


def check_metric(metric: str) -> None:
    """Refuse a metric that does not exist.

    Raises:
        LayerprobeError: neither a key of `METRICS` nor `accuracy_within_<tolerance>`.
    """
    if metric not in METRICS and not (
        metric.startswith(WITHIN) and _is_tolerance(metric.removeprefix(WITHIN))
    ):
        raise LayerprobeError(
            f"metric {metric!r} is unknown; choose from {', '.join(METRICS)}, {WITHIN}0.5 (any tolerance)"
        )


def _is_tolerance(text: str) -> bool:
    try:
        return 0 <= float(text) < np.inf
    except ValueError:
        return False
