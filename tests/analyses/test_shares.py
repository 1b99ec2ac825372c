"""Intervals of shares cover, also near 0 and 1 and with rows that come in groups."""

import numpy as np
import pytest

from layerprobe.analyses.behaviour.on_pairs import rate_rows
from layerprobe.analyses.statistics.bounded import bounded, from_draws, null_fields
from layerprobe.analyses.statistics.intervals import exact_binomial_bound
from layerprobe.analyses.statistics.shares import Share, difference_of_shares, share_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (1, 20), (7, 33), (20, 20)])
def test_independent_rows_have_the_exact_interval(hits, n):
    from scipy.stats import binomtest

    found = share_interval(np.arange(n) < hits, np.arange(n))
    wanted = binomtest(hits, n).proportion_ci(method="exact")
    assert (found.lo, found.hi) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_copies_of_a_row_say_nothing_new():
    hit = np.arange(15) < 4
    once, thrice = share_interval(hit, np.arange(15)), share_interval(hit.repeat(3), np.arange(15).repeat(3))
    assert thrice[:3] == pytest.approx(once[:3], abs=0.05)
    assert thrice.hi - thrice.lo >= once.hi - once.lo - 1e-9


def count_covered(share, together, n_groups, runs, seed, per_group=3):
    """Intervals that hold the true share, of rows that do what their group does with a probability."""
    rng, held = np.random.default_rng(seed), 0
    groups = np.repeat(np.arange(n_groups), per_group)
    for _ in range(runs):
        own, shared = rng.random(len(groups)) < share, (rng.random(n_groups) < share)[groups]
        found = share_interval(np.where((rng.random(n_groups) < together)[groups], shared, own), groups)
        assert found.lo < found.hi and 0 <= found.lo <= found.estimate <= found.hi <= 1
        held += found.lo <= share <= found.hi
    return held


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
def test_intervals_cover(share, together):
    held = count_covered(share, together, 30, 150, int(100 * share + 10 * together))
    assert held >= exact_binomial_bound(150, 0.95)[0]


@pytest.mark.soak
@pytest.mark.parametrize("n_groups", [8, 20, 60])
@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("together", [0.0, 0.3, 0.7, 1.0])
def test_intervals_cover_everywhere(share, together, n_groups):
    """95 % where rows are alone or groups one; down to 93 % where 20 groups half decide."""
    held = count_covered(share, together, n_groups, 2000, int(1000 * share) + n_groups)
    assert held >= exact_binomial_bound(2000, 0.94)[0], held / 2000


def test_rates_of_few_pairs_are_never_degenerate():
    n = 20
    rows = rate_rows({}, np.ones(n, bool), np.ones(n, bool), np.arange(n))
    rates = {row["metric"]: row for row in rows if "lo" in row}
    mar = rates["mar_conditional"]
    assert (mar["estimate"], mar["lo"]) == (0, 0) and mar["hi"] == pytest.approx(0.1684, abs=1e-4)
    assert rates["accuracy_target"]["lo"] == pytest.approx(0.8316, abs=1e-4)
    none = {row["metric"]: row for row in rate_rows({}, np.zeros(4, bool), np.zeros(4, bool), np.arange(4))}
    assert np.isnan(none["mar_conditional"]["estimate"]) and "not defined" in none["mar_conditional"]["note"]
    assert share_interval([1, 1], [0, 0]).note == "no interval: one group"


def test_a_difference_of_two_rates_of_zero_has_width():
    zero = share_interval([0] * 30, range(30))
    gap, lo, hi = difference_of_shares(zero, zero)
    assert gap == 0 and lo == pytest.approx(-zero.hi) and hi == pytest.approx(zero.hi)
    assert difference_of_shares(Share(1, 0.9, 1), Share(0, 0, 0.1))[2] == 1


def test_bounds_hold_the_estimate_and_lie_in_the_range():
    assert bounded("auroc", 1.007, 0.98, 1.03) == {"estimate": 1.0, "lo": 0.98, "hi": 1.0}
    assert bounded("brier", 0.01, -0.02, 0.04)["lo"] == 0.0
    assert bounded("auroc", -0.4, -1.3, 0.1, difference=True)["lo"] == -1.0
    assert from_draws("onset_layer", [3.0, *[4.0] * 50])["lo"] == 3.0
    assert np.isnan(from_draws("onset_layer", [3.0, *[np.nan] * 50])["lo"])


def test_a_null_is_told_by_its_quantiles():
    draws = np.random.default_rng(0).exponential(size=4000)
    found = null_fields(draws)
    assert found["null_lo"] == pytest.approx(np.quantile(draws, 0.025))
    assert found["null_lo"] > 0 > found["null_mean"] - 1.96 * found["null_sd"]
    assert null_fields([]) == {}
