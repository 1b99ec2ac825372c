"""What a set of draws says: bootstrap intervals, permutation p-values, corrections for many looks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError

Floats = NDArray[np.float64]


def bootstrap_interval(
    draws: ArrayLike, *, level: float = 0.95, estimate: ArrayLike | None = None, kind: str = "percentile"
) -> tuple[Floats, Floats]:
    """Bounds from bootstrap draws.

    Args:
        draws: [n_boot, …] the statistic under each draw; NaN draws (a class missing) are left out.
        level: nominal coverage.
        estimate: […] the statistic on the data; needed for `basic` and `normal`.
        kind: `percentile`, `basic` (reflected around the estimate) or `normal` (estimate ± z · sd).

    Returns:
        lo and hi, shaped as one draw.

    >>> lo, hi = bootstrap_interval(np.arange(101.0), level=0.9)
    >>> round(float(lo), 6), round(float(hi), 6)
    (5.0, 95.0)
    """
    values = np.asarray(draws, dtype=np.float64)
    tail = (1 - level) / 2
    if kind == "percentile":
        lo, hi = np.nanquantile(values, [tail, 1 - tail], axis=0)
        return lo, hi
    if estimate is None:
        raise LayerprobeError(f"kind={kind!r} needs estimate=, the statistic on the data itself")
    centre = np.asarray(estimate, dtype=np.float64)
    if kind == "basic":
        lo, hi = np.nanquantile(values, [tail, 1 - tail], axis=0)
        return 2 * centre - hi, 2 * centre - lo
    if kind == "normal":
        from scipy.special import ndtri

        half = ndtri(1 - tail) * np.nanstd(values, axis=0, ddof=1)
        return centre - half, centre + half
    raise LayerprobeError(f"kind={kind!r}, expected 'percentile', 'basic' or 'normal'")


def permutation_p(observed: ArrayLike, null: ArrayLike, *, two_sided: bool = False) -> Floats:
    """(1 + draws at least as extreme) / (1 + draws): never zero (Phipson & Smyth 2010).

    Args:
        observed: [tests] statistics, large meaning extreme.
        null: [draws, tests].
        two_sided: compare distances from the mean of observed and null together.

    Returns:
        [tests] p-values; NaN where the observed statistic is NaN.

    >>> permutation_p([2.0], [[0.0], [1.0], [2.0]]).tolist()
    [0.5]
    """
    seen, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if two_sided:
        centre = (draws.sum(axis=0) + seen) / (len(draws) + 1)
        seen, draws = np.abs(seen - centre), np.abs(draws - centre)
    # a difference in the last bits is a tie, and a tie counts against the finding
    p = (1 + (draws >= seen - 1e-12).sum(axis=0)) / (1 + len(draws))
    return np.where(np.isnan(seen), np.nan, p)


def max_t(
    observed: ArrayLike, null: ArrayLike, *, standardise: bool = True, two_sided: bool = False
) -> Floats:
    """Family-wise p-values over everything that was looked at (Westfall & Young 1993, single step).

    Each permutation contributes its *largest* statistic; an observed one is compared with those.

    Args:
        observed: [tests] statistics, large meaning extreme.
        null: [draws, tests], each draw one relabelling applied to all tests alike.
        standardise: first put tests on one scale by mean and sd over observed and null together.
        two_sided: take absolute values after centring.

    Returns:
        [tests] p-values; NaN where the observed statistic is NaN.
    """
    seen, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    known = ~(np.isnan(seen) & np.isnan(draws).all(axis=0))
    if not known.all():  # tests without any value are no part of the family
        p = np.full(seen.shape, np.nan)
        if known.any():
            p[known] = max_t(seen[known], draws[:, known], standardise=standardise, two_sided=two_sided)
        return p
    if standardise or two_sided:
        both = np.concatenate([seen[None], draws])
        centre, spread = np.nanmean(both, axis=0), np.nanstd(both, axis=0)
        if not standardise:
            spread = np.ones_like(spread)
        spread = np.where(spread > 0, spread, 1.0)
        seen, draws = (seen - centre) / spread, (draws - centre) / spread
    if two_sided:
        seen, draws = np.abs(seen), np.abs(draws)
    top = np.nanmax(draws, axis=1)
    p = (1 + (top[:, None] >= seen[None] - 1e-12).sum(axis=0)) / (1 + len(draws))
    return np.where(np.isnan(seen), np.nan, p)


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Adjusted p-values q: calling q ≤ 0.05 keeps the expected share of false findings at 5 % (1995).

    NaN stays NaN and does not count as a test.

    >>> benjamini_hochberg([0.01, 0.02, 0.03, 0.5]).round(3).tolist()
    [0.04, 0.04, 0.04, 0.5]
    """
    values = np.asarray(p, dtype=np.float64)
    q = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values.ravel()))
    flat = values.ravel()[known]
    if len(flat) == 0:
        return q
    order = np.argsort(flat)
    scaled = flat[order] * len(flat) / np.arange(1, len(flat) + 1)
    adjusted = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    q.ravel()[known[order]] = adjusted
    return q


def exact_binomial_bound(n: int, p: float, alpha: float = 0.001) -> tuple[int, int]:
    """Counts that n trials of probability p stay within, each tail crossed with probability at most alpha.

    What a calibration run is judged by: with 200 null data sets at 5 %, 2 to 21 alarms are within the 0.1 %
    bound.

    Args:
        n: trials.
        p: probability of success in each.
        alpha: probability allowed beyond either bound.

    Returns:
        (lo, hi): P(X < lo) ≤ alpha and P(X > hi) ≤ alpha.

    >>> exact_binomial_bound(200, 0.05)
    (2, 21)
    """
    from scipy.stats import binom

    counts = np.arange(n + 1)
    below = binom.cdf(counts - 1, n, p)
    above = binom.sf(counts, n, p)
    return int(counts[below <= alpha].max()), int(counts[above <= alpha].min())
