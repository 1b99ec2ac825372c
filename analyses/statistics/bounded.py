"""Fields of table rows: an estimate with bounds in its range, a null with its quantiles."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import bootstrap_interval
from .quantities import quantity


def bounded(metric: str, estimate: Any, lo: Any, hi: Any, *, difference: bool = False) -> dict[str, float]:
    """Estimate and bounds as fields of a row, cut to where the quantity can lie; bounds hold the estimate.

    A normal or jackknife interval may reach beyond what is possible, and a percentile interval may miss an
    estimate that resampling biases: the first is cut, the second widened to hold it.

    Args:
        metric: a metric's name.
        estimate: as computed; cut to its range as well, where a correction for bias passed it.
        lo: lower bound, or NaN.
        hi: upper bound, or NaN.
        difference: whether the row is one value of the metric minus another.

    >>> bounded("direction_cosine_ceiling", 0.9, 0.7, 1.15)
    {'estimate': 0.9, 'lo': 0.7, 'hi': 1.0}
    """
    what = quantity(metric)
    what = what.difference() if difference else what
    value = what.clip(float(estimate))
    low, high = what.clip(float(lo)), what.clip(float(hi))
    if not np.isnan(value):
        low, high = (
            (low if np.isnan(low) else min(low, value)),
            (high if np.isnan(high) else max(high, value)),
        )
    return {"estimate": value, "lo": low, "hi": high}


def from_draws(
    metric: str, draws: ArrayLike, *, difference: bool = False, level: float = 0.95
) -> dict[str, float]:
    """The same from the value on the data followed by bootstrap draws; no bounds where many are undefined."""
    values = np.asarray(draws, dtype=np.float64)
    rest = values[1:]
    if not len(rest) or np.isnan(rest).mean() > 0.05:
        return bounded(metric, values[0], np.nan, np.nan, difference=difference)
    lo, hi = bootstrap_interval(rest, level=level)
    return bounded(metric, values[0], float(lo), float(hi), difference=difference)


def null_fields(draws: ArrayLike, *, ddof: int = 1) -> dict[str, Any]:
    """Mean, sd and the central 95 % of a null's draws, as fields of a row; empty without draws.

    >>> {name: round(value, 2) for name, value in null_fields(range(101)).items()}
    {'null_mean': 50.0, 'null_sd': 29.3, 'null_lo': 2.5, 'null_hi': 97.5}
    """
    values: NDArray[np.float64] = np.asarray(draws, dtype=np.float64)
    known = values[np.isfinite(values)]
    if len(known) <= ddof:
        return {}
    lo, hi = np.quantile(known, [0.025, 0.975])
    mean, spread = float(known.mean()), float(known.std(ddof=ddof))
    return {"null_mean": mean, "null_sd": spread, "null_lo": float(lo), "null_hi": float(hi)}
