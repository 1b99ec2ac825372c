"""Intervals of shares: exact where rows are independent, and honest about groups where they are not."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .group_codes import group_codes

CI_METHOD = "Clopper-Pearson at the effective number of rows"


class Share(NamedTuple):
    """A share with its bounds."""

    estimate: float
    lo: float
    hi: float
    note: str | None = None
    """Why there is no interval, where there is none."""

    @property
    def row(self) -> dict[str, float | str | None]:
        """Fields of a table row."""
        method = None if self.note else CI_METHOD
        found = {"estimate": self.estimate, "lo": self.lo, "hi": self.hi, "ci_method": method}
        return found | ({"note": self.note} if self.note else {})


def share_interval(
    hits: ArrayLike, groups: ArrayLike, *, trials: ArrayLike | None = None, level: float = 0.95
) -> Share:
    """A share of rows with an interval that covers it also where it is near 0 or 1.

    Clopper & Pearson's (1934) exact bounds at the effective number of rows: as many independent rows as would
    vary as the groups' totals do, corrected for how few groups there are (Korn & Graubard 1998). Where all
    rows agree nothing can be seen of the variation between groups, and every group counts as one row. One row
    per group gives the exact interval.

    Args:
        hits: [rows] 0 or 1.
        groups: [rows] rows that belong together.
        trials: [rows] 0 for rows that do not count (of a rate among some rows); default: all count.
        level: nominal coverage.

    >>> [round(float(value), 6) for value in share_interval([0] * 20, range(20))[:3]]
    [0.0, 0.0, 0.168433]
    """
    count = np.ones(len(np.asarray(hits))) if trials is None else np.asarray(trials, dtype=np.float64)
    hit = np.asarray(hits, dtype=np.float64) * count
    n = float(count.sum())
    if not n:
        return Share(np.nan, np.nan, np.nan, "not defined: no row counts")
    codes = group_codes(groups)
    kept = np.bincount(codes, count) > 0
    n_groups, share = int(kept.sum()), float(hit.sum() / n)
    if n_groups < 2:
        return Share(share, np.nan, np.nan, "no interval: one group")
    gaps = np.bincount(codes, hit - share * count)[kept] / n
    lo, hi = exact_bounds(share, _effective(share, n, n_groups, gaps, level), level)
    return Share(share, lo, hi)


def _effective(share: float, n: float, n_groups: int, gaps: NDArray[np.float64], level: float) -> float:
    """How many independent rows say as much as these groups."""
    from scipy.special import stdtrit

    if share in (0, 1):
        return float(n_groups)
    variance = float((gaps**2).sum()) * n_groups / (n_groups - 1)
    alone = share * (1 - share) / (n - 1)  # the variance that as many rows of their own would have
    free = n * alone / variance if variance > 0 else n
    tail = (1 + level) / 2
    few = float(stdtrit(max(n - 1, 1), tail) / stdtrit(n_groups - 1, tail)) ** 2
    return min(n, free * few)


def exact_bounds(share: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Clopper & Pearson's bounds of a share of n rows, which need not be a whole number.

    >>> [round(bound, 4) for bound in exact_bounds(0.1, 50)]
    [0.0333, 0.2181]
    """
    from scipy.special import betaincinv

    tail, hits = (1 - level) / 2, share * n
    lo = 0.0 if share <= 0 else float(betaincinv(hits, n - hits + 1, tail))
    hi = 1.0 if share >= 1 else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return min(lo, share), max(hi, share)


def difference_of_shares(one: Share, two: Share) -> tuple[float, float, float]:
    """One share minus another, with bounds from those of both (Newcombe 1998, method 10, without pairing).

    >>> lo = difference_of_shares(Share(0.0, 0.0, 0.1), Share(0.0, 0.0, 0.2))
    >>> [round(x, 3) for x in lo]
    [0.0, -0.2, 0.1]
    """
    gap = one.estimate - two.estimate
    down = np.hypot(one.estimate - one.lo, two.hi - two.estimate)
    up = np.hypot(one.hi - one.estimate, two.estimate - two.lo)
    return gap, float(max(-1.0, gap - down)), float(min(1.0, gap + up))
