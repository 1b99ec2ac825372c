"""95 % bounds of held-out scores from bootstrap draws, and where there are none to be had."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bounded import bounded
from .quantities import quantity

Floats = NDArray[np.float64]

CORRELATIONS = ("pearson", "spearman", "kendall")
BY_CLASS = ("auroc", "average_precision", "balanced_accuracy")
"""Metrics that average within classes first: what decides is how many groups hold each class."""
FEWEST = 5
"""Groups, or groups of the rarest class, below which nothing is said."""


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1 and its spread is laid out on the logit scale."""
    return quantity(metric).range == (0, 1) and metric != "ece"


def deciding_groups(metric: str, truth: ArrayLike, groups: ArrayLike, n_classes: int) -> tuple[int, ...]:
    """Numbers of independent units behind a score: of groups that hold each class, or of all groups.

    Args:
        metric: a metric's name.
        truth: [rows] class codes, or values.
        groups: [rows].
        n_classes: 0 for regression.
    """
    y, g = np.asarray(truth), np.asarray(groups)
    if n_classes and metric == "tpr_at_fpr_0.01":
        return (len(np.unique(g[y == 1])),)  # the threshold stays as it was set
    if n_classes and metric in BY_CLASS:
        return tuple(len(np.unique(g[y == code])) for code in range(n_classes) if (y == code).any())
    return (len(np.unique(g)),)


def interval(
    estimate: float, draws: Floats, n_groups: int | Sequence[int], metric: str
) -> tuple[float, float, str | None]:
    """95 % bounds from bootstrap draws, and why there are none.

    The bootstrap's spread is widened by what n groups lack of infinitely many: n/(n−1), and t for normal
    quantiles. Where a score averages within classes, each class lacks its own: degrees of freedom are
    Welch-Satterthwaite's. Metrics between 0 and 1 are laid out on the logit scale, correlations on Fisher's,
    R² as log(1 − R²) and squared errors as logarithms: there they are closer to symmetric.

    Args:
        estimate: on the data as they are.
        draws: [draws].
        n_groups: held-out groups, or those of each class (`deciding_groups`).
        metric: its name; any other for a difference.
    """
    from scipy.special import stdtrit

    counts = np.atleast_1d(np.asarray(n_groups, dtype=np.float64))
    known = draws[np.isfinite(draws)]
    if not np.isfinite(estimate):
        if metric == "tpr_at_fpr_0.01":
            return (
                np.nan,
                np.nan,
                "not defined: a rate of 1 % takes 99 held-out negatives, which there are not",
            )
        return np.nan, np.nan, "not defined on these rows"
    if metric == "ece":
        return np.nan, np.nan, "no interval: sampling biases a calibration error upwards, draw upon draw"
    fewest = int(counts.min())
    if fewest < FEWEST:
        of = "held-out groups" if len(counts) == 1 else "held-out groups with the rarest class"
        return np.nan, np.nan, f"no interval: {fewest} {of}, fewer than {FEWEST}"
    if len(known) < 0.9 * len(draws):
        return np.nan, np.nan, "no interval: many draws of groups leave a class without rows"
    share = is_share(metric)
    if share and estimate in (0, 1):
        bound = perfect_bound(metric, counts)
        return (bound, 1.0, None) if estimate == 1 else (0.0, 1 - bound, None)
    if share and np.ptp(known) == 0:
        return np.nan, np.nan, "no interval: every row is given the same answer, so no draw differs"
    inverse = 1 / counts
    freedom = inverse.sum() ** 2 / (inverse**2 / (counts - 1)).sum()
    widened = np.sqrt(inverse.sum() / (inverse * (1 - inverse)).sum())
    quantile = float(stdtrit(freedom, 0.975) * widened)
    if share:
        spread = known.clip(1e-9, 1 - 1e-9).std(ddof=1)
        if metric == "balanced_accuracy" and spread < least_spread_of_recalls(counts):
            # the spread of recalls with two more of each outcome belongs to the mean of such recalls
            spread, mean = least_spread_of_recalls(counts), 1 / (1 / counts).mean()
            pulled = (estimate * mean + 2) / (mean + 4)
            lo, hi = _on_logit(pulled, quantile * spread)
            return min(lo, estimate), max(hi, _on_logit(estimate, quantile * spread)[1]), None
        return *_on_logit(estimate, quantile * spread), None
    if metric in CORRELATIONS and abs(estimate) < 1:
        half = quantile * np.arctanh(known.clip(-1 + 1e-9, 1 - 1e-9)).std(ddof=1)
        centre = np.arctanh(estimate)
        return float(np.tanh(centre - half)), float(np.tanh(centre + half)), None
    if metric == "r2" and estimate < 1:
        half = quantile * np.log((1 - known).clip(min=1e-12)).std(ddof=1)
        return float(1 - (1 - estimate) * np.exp(half)), float(1 - (1 - estimate) * np.exp(-half)), None
    if metric == "mse" and estimate > 0:
        half = quantile * np.log(known.clip(min=1e-300)).std(ddof=1)
        return float(estimate * np.exp(-half)), float(estimate * np.exp(half)), None
    lo, hi = np.quantile(known, [0.025, 0.975])
    # widen about the estimate by the same small-sample factor
    factor = quantile / 1.959964
    found = bounded(
        metric, estimate, estimate - factor * (estimate - lo), estimate + factor * (hi - estimate)
    )
    return found["lo"], found["hi"], None


def _on_logit(centre: float, half: float) -> tuple[float, float]:
    """centre ± half, laid out where shares are closer to symmetric."""
    odds, half = np.log(centre / (1 - centre)), half / (centre * (1 - centre))
    return float(1 / (1 + np.exp(half - odds))), float(1 / (1 + np.exp(-half - odds)))


def perfect_bound(metric: str, counts: Floats) -> float:
    """The lowest true value at which a perfect score is seen in 2.5 % of samples.

    A bootstrap of all-perfect groups never varies. As many successes in as many trials bound a plain share.
    A mean over classes is bounded by its rarest class. Rankings are perfect by chance less often than that:
    for two normal distributions the exact bound is met by as many trials as twice the harmonic mean of the
    classes' groups, less two, or more (`tests/analyses/test_score_intervals.py`).

    Args:
        metric: a share.
        counts: groups, or groups of each class.
    """
    if metric == "balanced_accuracy":
        return float((len(counts) - 1 + 0.025 ** (1 / counts.min())) / len(counts))
    trials = counts[0] if len(counts) == 1 else 2 * len(counts) / (1 / counts).sum() - 2
    return float(0.025 ** (1 / trials))


def least_spread_of_recalls(counts: Floats) -> float:
    """Standard error of a mean of perfect recalls by Agresti & Coull's (1998) two more of each outcome.

    Of few rows of a class all are often right, and then no bootstrap draw differs in that class.

    Args:
        counts: groups of each class.
    """
    share = (counts + 2) / (counts + 4)
    return float(np.sqrt((share * (1 - share) / (counts + 4)).sum()) / len(counts))
