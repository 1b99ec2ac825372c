"""Represented is more than a lead, and a lead before the middle layers lies outside what was looked at."""

from dataclasses import replace

import numpy as np
import pytest
from lens_worlds import EARLY, FLAT, world

from layerprobe.analyses.lens.represented import mean_of_uniforms
from layerprobe.analyses.lens.suppression import suppression
from layerprobe.analyses.statistics.intervals import exact_binomial_bound
from layerprobe.cache.prompts.candidates import check_candidates
from layerprobe.cache.store.lens_table import LensTable
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError

VOCABULARY = 300
FEW = {"n_bootstrap": 100, "n_permutations": 100, "n_splits": 4}


def random_model(seed, answers=2, n=40, layers=8, raised=None):
    """The lens of random weights: every token has a logit of its own per layer, which prompts hardly move."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(size=(layers, VOCABULARY)), axis=0)
    logits = drift[:, None] + 0.3 * rng.normal(size=(layers, n, VOCABULARY))
    tokens = rng.permutation(VOCABULARY)[: 2 * answers].reshape(answers, 2)
    ids = tokens[np.arange(n) % answers]
    if raised is not None:
        where, by = raised
        logits[where, np.arange(n), ids[:, 0]] += by
    ranks = np.argsort(np.argsort(-logits, axis=-1), axis=-1)
    rows = np.arange(n)
    picked = logits[:, rows[:, None], ids], ranks[:, rows[:, None], ids]
    top = np.argsort(-logits, axis=-1)[..., :2]
    lens = LensTable(
        layers=tuple(range(layers)),
        columns=("answer", "foil"),
        candidate_ids=ids[..., None],
        candidate_logits=picked[0][..., None].astype(np.float32),
        candidate_ranks=picked[1][..., None].astype(np.int32),
        logsumexp=np.log(np.exp(logits).sum(axis=-1)).astype(np.float32),
        top_ids=top.astype(np.int32),
        top_logits=np.take_along_axis(logits, top, -1).astype(np.float32),
        kl_to_final=np.ones((layers, n), np.float32),
    )
    return from_arrays({"resid_post": np.zeros((layers, n, 2), np.float32)}, lens=lens)


def verdict(store, **options):
    found = suppression(store, target="answer", foil="foil", groups=None, **{**FEW, **options})
    return found.frames["verdicts"].iloc[0]


@pytest.mark.parametrize("answers", [1, 4])
def test_random_weights_represent_nothing(answers):
    found = [verdict(random_model(seed, answers)) for seed in range(20)]
    alarms = sum(row["verdict"] != "none" for row in found)
    assert alarms <= exact_binomial_bound(20, 0.05)[1]  # about half without looking at ranks
    assert sum(bool(row["represented"]) for row in found) <= exact_binomial_bound(20, 0.05)[1]


def test_an_answer_that_is_lifted_to_the_top_is_represented():
    row = verdict(random_model(3, answers=4, raised=(slice(3, 6), 25.0)))
    assert row["represented"] and row["rank_share"] < 0.02 and row["verdict"] != "none"
    assert 3 <= row["peak_layer"] <= 5


def test_where_too_few_tokens_are_known_nothing_is_said():
    row = verdict(world(), by="sensitive")
    assert row["represented"] is None and np.isnan(row["rank_share"])


def test_the_mean_of_uniform_numbers_is_irwin_and_halls():
    rng = np.random.default_rng(0)
    for n in (1, 3, 8, 30):
        draws = rng.random((20_000, n)).mean(axis=1)
        for at in (0.3, 0.5):
            assert mean_of_uniforms([at] * n) == pytest.approx((draws <= at).mean(), abs=0.012)


def test_a_lead_lost_before_the_middle_layers_is_outside_with_where():
    early = [0.0, 5.0, -4.0, -5.0, -6.0, -6.0, -6.0, -6.0]
    rows = (
        suppression(world(sensitive=early, benign=FLAT), target="answer", foil="foil", by="sensitive", **FEW)
        .frames["verdicts"]
        .set_index("subset")
    )
    row = rows.loc["sensitive=sensitive"]
    assert row["outside"] and row["early_peak_layer"] == 1 and row["lead_lost_layer"] == 2
    assert row["verdict"] == "none" and not rows.loc["sensitive=benign", "outside"]
    inside = (
        suppression(world(sensitive=EARLY), target="answer", foil="foil", by="sensitive", **FEW)
        .frames["verdicts"]
        .set_index("subset")
        .loc["sensitive=sensitive"]
    )
    assert not inside["outside"] and inside["lead_lost_layer"] == inside["onset_layer"] == 3


def test_an_answer_that_is_its_own_foil_is_refused():
    store = world()
    with pytest.raises(LayerprobeError, match="one column"):
        suppression(store, target="answer", foil="answer", **FEW)
    ids = np.array(store.lens.candidate_ids)
    ids[5, 1] = ids[5, 0]
    twice = from_arrays(
        {"resid_post": np.zeros((8, store.n_rows, 2), np.float32)},
        lens=replace(store.lens, candidate_ids=ids),
    )
    with pytest.raises(LayerprobeError, match="first row 5"):
        suppression(twice, target="answer", foil="foil", groups=None, **FEW)
    with pytest.raises(LayerprobeError, match="same 'answer' and 'foil'"):
        check_candidates([[[1], [1]]], [("yes", "yes")], ("answer", "foil"), ["p1"])
