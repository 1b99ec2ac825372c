"""Near-duplicates are found exactly, at scale, across held-out splits and inner folds."""

import time

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.probes.baselines import words_of
from layerprobe.analyses.probes.duplicates import alike_between, near_duplicate_note, near_duplicates
from layerprobe.analyses.reading.task import make_task


def sentences(n, seed=0, vocabulary=400, length=25):
    rng = np.random.default_rng(seed)
    return [" ".join(f"w{word}" for word in row) for row in rng.integers(0, vocabulary, (n, length))]


def runs(text):
    tokens = words_of(text)
    return {tuple(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))}


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
def test_every_pair_that_brute_force_finds_is_found(similarity):
    rng = np.random.default_rng(1)
    texts = [*sentences(60, vocabulary=4, length=8), "a", "a", "a b", ""]
    for text in texts[:20]:
        words = text.split()
        words[int(rng.integers(len(words)))] = "other"
        texts.append(" ".join(words))
    groups = rng.integers(0, 30, len(texts))
    sets = [runs(text) for text in texts]
    wanted = [
        [i, j]
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if groups[i] != groups[j] and len(sets[i] & sets[j]) >= similarity * len(sets[i] | sets[j]) - 1e-9
    ]
    assert near_duplicates(texts, groups, similarity=similarity).tolist() == wanted


def test_twelve_thousand_prompts_with_a_template_take_seconds():
    template = "you are a helpful assistant please answer the following question as well as you can : "
    texts = [template + text for text in sentences(12_000, vocabulary=3000)]
    texts[7] = texts[11_000] + " !"
    start = time.perf_counter()
    assert near_duplicates(texts, np.arange(len(texts))).tolist() == [[7, 11_000]]
    assert time.perf_counter() - start < 30


def test_duplicates_across_inner_folds_are_said_and_cut_to_where_they_differ():
    texts = sentences(200)
    template = "you are a helpful assistant please answer the following question as well as you possibly can "
    store = lp.from_arrays(
        {"resid_post": np.zeros((1, 200, 2))}, labels={"y": np.arange(200) % 2}, texts=texts
    )
    task = make_task(store, "y", groups=None, held_out=0.3, n_folds=5, seed=0)
    assert near_duplicate_note(store, task) is None
    train = [index for index in range(200) if task.train[index]]
    one = train[0]
    other = next(index for index in train if task.fold[index] != task.fold[one])
    rows = task.rows
    long = template + texts[rows[one]] + " "
    texts[rows[one]], texts[rows[other]] = long + "red", long + "blue"
    store = lp.from_arrays(
        {"resid_post": np.zeros((1, 200, 2))}, labels={"y": np.arange(200) % 2}, texts=texts
    )
    note = near_duplicate_note(store, task)
    assert "2 of 140 prompts are near-duplicates" in note and "in other folds" in note
    assert "red'" in note and "blue'" in note and "helpful" not in note


def test_texts_scored_are_compared_with_texts_seen():
    seen = sentences(50)
    scored = [seen[3], seen[5] + " !", *sentences(10, seed=9)]
    assert alike_between(seen, scored).tolist() == [[5, 1]]
