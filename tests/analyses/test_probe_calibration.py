"""Every interval in the table covers the fitted probe's own score on new groups, signal or not, rare or not.

The score of the very probe that was fitted is taken on 8,000 new groups. Coverage is held to the lower exact
binomial bound at 0.1 %; it may be above 95 %, since held-out groups have the share of every class
that the sample has, which the bootstrap lets vary.
"""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.probes.fit import probabilities
from layerprobe.analyses.statistics.metrics import Predicted, score
from layerprobe.analyses.statistics.resampling import exact_binomial_bound

CLASSES = ("auroc", "average_precision", "balanced_accuracy", "log_loss", "brier")
VALUES = ("r2", "pearson", "mse")
WIDTH = 6


def rows(rng, n_groups, signal, share):
    """Two rows a group, alike within it; `share` of the groups are positive, or `None`: a graded label."""
    groups = np.repeat(np.arange(n_groups), 2)
    if share is None:
        y = rng.normal(size=n_groups)[groups] + 0.5 * rng.normal(size=2 * n_groups)
    else:
        y = (rng.random(n_groups) < share).astype(int)[groups]
    x = 0.7 * (rng.normal(size=(n_groups, WIDTH))[groups] + rng.normal(size=(2 * n_groups, WIDTH)))
    x[:, 0] += signal * y
    return x, y, groups


def coverage(draws, *, signal, share, n_groups=100):
    """By metric: intervals that hold the true score, and intervals."""
    metrics = VALUES if share is None else CLASSES
    found = {metric: [] for metric in metrics}
    alarms = 0
    new_x, new_y, _ = rows(np.random.default_rng(99), 8000, signal, share)
    for draw in range(draws):
        x, y, groups = rows(np.random.default_rng((7, draw)), n_groups, signal, share)
        result = lp.linear_probe(
            lp.from_arrays({"resid_post": x[None]}, labels={"y": y}, groups=groups),
            label="y",
            method="ridge" if share is None else "logistic",
            permute="within" if share is None else "auto",
            strengths=[0.01, 1.0],
            metrics=list(metrics),
            n_permutations=99,
            n_bootstrap=300,
            baselines=False,
            seed=draw,
            threads=1,
        )
        margin = result.directions.score(new_x, "resid_post", 0)
        truth = Predicted(margin, None if share is None else probabilities(margin))
        table = result.table.set_index("metric").reindex(columns=["estimate", "lo", "hi", "p_familywise"])
        alarms += table["p_familywise"].iloc[0] <= 0.05
        for metric in metrics:
            row = table.loc[metric]
            if np.isfinite(row["lo"]):
                assert row["lo"] <= row["estimate"] <= row["hi"]
                true = float(score(metric, new_y, truth)[0])
                found[metric].append(row["lo"] <= true <= row["hi"])
    return found, alarms


def held_to_the_bound(draws, **arm):
    found, alarms = coverage(draws, **arm)
    if not arm["signal"]:
        assert alarms <= exact_binomial_bound(draws, 0.05)[1]
    some = [metric for metric, hits in found.items() if len(hits) >= draws / 10]
    assert len(some) >= 3
    for metric in some:
        hits = found[metric]
        assert sum(hits) >= exact_binomial_bound(len(hits), 0.95)[0], (metric, np.mean(hits), len(hits))


ARMS = [(signal, share) for signal in (0.0, 1.2) for share in (0.5, 0.15, None)]


@pytest.mark.parametrize("signal, share", [(1.2, 0.5), (1.2, None)])
def test_a_few_data_sets_are_covered(signal, share):
    held_to_the_bound(20, signal=signal, share=share)


@pytest.mark.soak
@pytest.mark.parametrize("signal, share", ARMS)
def test_many_data_sets_are_covered_with_and_without_signal_and_where_a_class_is_rare(signal, share):
    held_to_the_bound(400, signal=signal, share=share)
