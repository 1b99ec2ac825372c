import numpy as np
import pytest

from layerprobe.analyses.lens.failures import main, null_world, selected_gap
from layerprobe.analyses.statistics.resampling import exact_binomial_bound
from layerprobe.hooks.errors import LayerprobeError

FAST = {"n_bootstrap": 200, "n_splits": 4}


def test_the_naive_protocol_makes_a_gap_out_of_nothing_and_ours_does_not():
    naive, ours, alarms = [], [], 0
    for seed in range(60):
        world = null_world(seed)
        naive.append(selected_gap(*world, protocol="naive", **FAST).estimate)
        gap = selected_gap(*world, **FAST)
        ours.append(gap.estimate)
        alarms += not gap.lo <= 0 <= gap.hi
    assert np.mean(naive) > 1.0
    assert abs(np.mean(ours)) < 3 * np.std(ours) / np.sqrt(len(ours))
    assert alarms <= exact_binomial_bound(60, 0.07)[1]


def test_a_true_suppression_is_still_seen():
    found = [selected_gap(*null_world(seed, suppression=1.5), **FAST) for seed in range(10)]
    assert np.mean([gap.lo > 0 for gap in found]) > 0.7


def test_a_constant_gap_is_itself_whichever_model_fails():
    """Both models fail on some groups, or only one does: the gap is 1.5 on every row all the same."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    for centre in (0.5, 4.0):
        theirs = rng.normal(centre, 2.0, 160)
        assert selected_gap(theirs - 1.5, theirs, groups, **FAST).estimate == pytest.approx(1.5)


def test_exchanging_the_models_turns_the_sign():
    mine, theirs, groups = null_world(0, suppression=1.0)
    one, two = selected_gap(mine, theirs, groups, **FAST), selected_gap(theirs, mine, groups, **FAST)
    assert one.estimate == pytest.approx(-two.estimate)


def test_single_rows_cannot_be_cross_fitted():
    with pytest.raises(LayerprobeError, match="single row"):
        selected_gap([1.0, -1.0], [1.0, 1.0], [0, 1])
    with pytest.raises(LayerprobeError, match="protocol"):
        selected_gap([1.0, -1.0], [1.0, 1.0], [0, 0], protocol="other")


def test_the_command_prints_and_draws(tmp_path, capsys):
    main(["--worlds", "2", "--figure", str(tmp_path / "trap.svg")])
    assert "no suppression, naive" in capsys.readouterr().out
    assert (tmp_path / "trap.svg").read_text().startswith("<svg")
