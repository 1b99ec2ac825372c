"""Nested cross-validation says beside its score what the prompts alone would have scored."""

import numpy as np

import layerprobe as lp
from layerprobe.analyses.probes.baselines import word_features


def test_activations_that_are_the_words_score_like_the_words():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 160)
    said = np.where(rng.random(160) < 0.75, y, 1 - y)
    texts = [f"{'yes' if one else 'no'} w{rng.integers(5)}" for one in said]
    x = word_features(texts, np.ones(160, bool))[None].repeat(2, axis=0)
    labels, lengths = {"y": y, "grade": 1.0 * said + 0.1 * rng.normal(size=160)}, rng.integers(5, 9, 160)
    store = lp.from_arrays(
        {"resid_post": x}, labels=labels, groups=np.arange(160), texts=texts, lengths=lengths
    )
    row = lp.nested_cv(store, label="y", repeats=2, layers=[0]).table.iloc[0]
    assert abs(row["baseline_text"] - row["estimate"]) < 0.03 and row["baseline_majority"] == 0.5
    assert abs(row["baseline_length"] - 0.5) < 0.15
    graded = lp.nested_cv(store, label="grade", method="ridge", repeats=2, layers=[0], baselines=False)
    row = graded.table.iloc[0]
    assert row["baseline_majority"] > row["estimate"] and "baseline_text" not in row
    assert any("switched off" in note for note in graded.notes)


def test_near_duplicates_of_other_groups_are_reported():
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{word}" for word in row) for row in rng.integers(0, 500, (60, 20))]
    texts[40] = texts[3] + " !"
    x, y = rng.normal(size=(1, 60, 3)), np.arange(60) % 2
    store = lp.from_arrays({"resid_post": x}, labels={"y": y}, groups=np.arange(60), texts=texts)
    notes = lp.nested_cv(store, label="y", repeats=1, strengths=[0.1]).notes
    assert any("2 of 60 prompts are near-duplicates" in note and "other folds" in note for note in notes)
