"""What is read of a lens, layer by layer, against the same computed by hand."""

import numpy as np
import pytest

from layerprobe.analyses.lens.trajectories import (
    crossfit_index,
    handoff,
    is_late,
    middle_layers,
    over_variants,
    read_trajectory,
)
from layerprobe.cache.store.lens_table import LensTable
from layerprobe.hooks.errors import LayerprobeError


@pytest.fixture(scope="module")
def lens():
    """Full logits over ten tokens: the answer has two variants (2 and 5), the foil one (7), in every row."""
    logits = np.random.default_rng(0).normal(size=(6, 8, 10)) * 2
    order = np.argsort(np.argsort(-logits, axis=-1), axis=-1)
    ids = np.tile(np.array([[2, 5], [7, -1]]), (8, 1, 1))
    picked, ranks = logits[..., ids[0]], order[..., ids[0]]
    picked[..., 1, 1], ranks[..., 1, 1] = np.nan, -1
    total = np.log(np.exp(logits).sum(-1))
    table = LensTable(
        layers=tuple(range(6)),
        columns=("answer", "foil"),
        candidate_ids=ids,
        candidate_logits=picked.astype(np.float32),
        candidate_ranks=ranks.astype(np.int32),
        logsumexp=total.astype(np.float32),
        top_ids=logits.argmax(-1)[..., None].astype(np.int32),
        top_logits=logits.max(-1)[..., None].astype(np.float32),
        kl_to_final=np.zeros((6, 8), np.float32),
    )
    return table, logits, order, total


def test_difference_probabilities_and_ranks_are_those_of_the_full_logits(lens):
    table, logits, order, total = lens
    found = read_trajectory(table, "answer", "foil")
    best = np.maximum(logits[..., 2], logits[..., 5])
    np.testing.assert_allclose(found.difference, best - logits[..., 7], atol=1e-5)
    np.testing.assert_allclose(found.answer_log_probability, best - total, atol=1e-5)
    np.testing.assert_allclose(found.foil_log_probability, logits[..., 7] - total, atol=1e-5)
    np.testing.assert_array_equal(found.answer_rank, np.minimum(order[..., 2], order[..., 5]))
    np.testing.assert_array_equal(found.foil_rank, order[..., 7])


def test_variants_by_logsumexp_add_their_probabilities(lens):
    table, logits, _, total = lens
    found = read_trajectory(table, "answer", "foil", variants="logsumexp")
    both = np.exp(logits[..., 2]) + np.exp(logits[..., 5])
    np.testing.assert_allclose(np.exp(found.answer_log_probability), both / np.exp(total), atol=1e-5)
    np.testing.assert_allclose(over_variants([[np.nan, 2.0]], "logsumexp"), [2.0])
    with pytest.raises(LayerprobeError, match="logsumexp"):
        over_variants([[1.0]], "mean")


def test_the_words_middle_and_late():
    assert np.flatnonzero(middle_layers(range(12), 12)).tolist() == list(range(3, 11))
    assert [is_late(layer, 8) for layer in (3, 3.9, 4, 7)] == [False, False, True, True]
    assert not is_late(float("nan"), 8)


def test_a_handoff_needs_one_middle_layer_in_the_lead_and_the_end_behind():
    curves = np.array([[-1, 2, -1, -3], [9, -1, -1, -3], [-1, 2, 2, 3], [-1, 2, 2, -3]], float).T
    assert handoff(curves, np.array([False, True, True, False])).tolist() == [True, False, False, True]


def test_the_half_that_chooses_a_peak_does_not_score_it():
    """One half leads at layer 1, the other at layer 2: each is scored where the other leads."""
    curves = np.array([[0, 5, 1, 0], [0, 5, 1, 0], [0, 1, 7, 0], [0, 1, 7, 0]], float).T
    half = np.array([[True, True, False, False]])
    weights = np.ones((1, 4))
    found = crossfit_index(curves, range(4), np.array([False, True, True, False]), weights, half)
    assert found.index[0] == found.peak[0] == 1.0 and found.final[0] == 0.0
    assert found.scores.tolist() == [1.0] * 4
