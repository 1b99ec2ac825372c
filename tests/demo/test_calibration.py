"""False alarms of suppression and of its differences over re-drawn prompt sets of the null pair."""

import numpy as np
import pandas as pd
import pytest

from layerprobe.analyses.statistics.intervals import exact_binomial_bound
from tools.demo.calibration import MODELS, as_markdown, main, prompt_set, rates, readings

NULLS = ("benign − sensitive", "one − other")


def assert_calibrated(found):
    table = rates(found)
    most = exact_binomial_bound(found["draw"].nunique(), 0.05)[1]
    for model in MODELS:
        for difference in NULLS:
            row = table.loc[(model, difference)]
            assert row["off_zero"] <= most and row["rejected"] <= most, (model, difference)
    assert (table["missed"] <= most).all()
    assert table["verdicts"].max() <= most


def test_every_draw_is_another_prompt_set_halved_by_scenario():
    one, two = prompt_set(1, words=2), prompt_set(2, words=2)
    assert len(one) == len(two) == 48 and len(set(one.ids) & set(two.ids)) < 24
    halves = pd.DataFrame({"group": one.groups, "half": one.labels["half"]}).groupby("group")["half"]
    assert (halves.nunique() == 1).all()
    assert sorted(halves.first().value_counts()) == [8, 8]
    assert set(np.unique(one.labels["sensitive"])) == {"benign", "sensitive"}


def test_redrawn_prompt_sets_of_the_null_pair_raise_few_alarms():
    found = pd.DataFrame(readings(range(1, 13), words=4, n_bootstrap=200, n_permutations=200))
    assert found.groupby("draw").size().eq(18).all()
    assert found.groupby(["model", "on"])["estimate"].nunique().eq(12).all()
    assert_calibrated(found)


def test_rates_count_what_went_wrong():
    bounds = [(-1.0, 1.0), (0.5, 2.0), (-2.0, -0.5), (-1.0, 1.0)]
    found = pd.DataFrame(
        {
            "draw": range(4),
            "model": "base",
            "on": "benign",
            "estimate": [0.0, 1.0, -1.0, 0.0],
            "lo": [lo for lo, _ in bounds],
            "hi": [hi for _, hi in bounds],
            "p": [0.5, 0.05, 0.01, 0.06],
            "verdict": [False, True, False, False],
        }
    )
    row = rates(found).loc[("base", "benign")]
    assert (row["off_zero"], row["rejected"], row["missed"], row["verdicts"]) == (2, 2, 2, 1)
    both = pd.concat([found, found.assign(model="instruct_null")])
    assert "1 of 4 for base" in as_markdown(rates(both), 10)


def test_the_command_prints_a_table_and_keeps_its_readings(tmp_path, capsys):
    main(["--draws", "2", "--words", "2", "--csv", str(tmp_path / "found.csv")])
    assert "| instruct_null − base | one − other |" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "found.csv")) == 36


@pytest.mark.soak
def test_false_alarms_over_400_redrawn_prompt_sets_of_the_null_pair():
    assert_calibrated(pd.DataFrame(readings(range(1, 401))))
