"""Probes find what was planted where it was planted, and nothing where there is nothing."""

import numpy as np
import pandas as pd
import pytest
from planted_probes import planted_store
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import layerprobe as lp
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.result.charts import to_svg
from layerprobe.analyses.statistics.resampling import exact_binomial_bound
from layerprobe.hooks.errors import LayerprobeError


def auroc_rows(result):
    return result.table[result.table["metric"] == "auroc"].set_index("layer")


@pytest.mark.parametrize("method", ["logistic", "ridge", "mass_mean", "mass_mean_covariance", "shrunk_lda"])
def test_signal_is_found_from_its_layer_on(method):
    within = method == "logistic"
    store, axis = planted_store(label="within" if within else "between", seed=int(within))
    result = lp.linear_probe(store, label="truth", method=method, n_permutations=500)
    rows = auroc_rows(result)
    assert (rows.loc[2:, "p_familywise"] < 0.01).all() and (rows.loc[:1, "p_familywise"] > 0.05).all()
    assert (rows.loc[2:, "lo"] > 0.75).all()  # nine groups of each class, all ranked right
    assert (rows["lo"] <= rows["estimate"]).all() and (rows["estimate"] <= rows["hi"]).all()
    assert result.frames["best_layer"]["layer"][0] >= 2
    direction = result.directions["resid_post", 3]
    assert abs(direction @ axis) / np.linalg.norm(direction) > 0.6


def test_directions_score_raw_activations_as_the_scores_do():
    store, _ = planted_store()
    result = lp.linear_probe(store, label="truth", n_permutations=0)
    scores = result.scores[(result.scores["layer"] == 3) & (result.scores["split"] == "held_out")]
    raw = result.directions.score(store.activations("resid_post", 3), "resid_post", 3)
    by_id = dict(zip(store.ids, raw, strict=True))
    np.testing.assert_allclose([by_id[i] for i in scores["id"]], scores["score"], rtol=1e-4, atol=1e-4)


def test_paraphrases_leak_nothing():
    """200 prompts in five paraphrases with labels drawn at random per prompt: shuffled folds say 0.998."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    x = rng.normal(size=(1, 200, 400))[:, groups] + 0.1 * rng.normal(size=(1, 1000, 400))
    y = rng.integers(0, 2, 200)[groups]
    store = lp.from_arrays({"resid_post": x}, labels={"random": y}, groups=groups)
    rows = auroc_rows(lp.linear_probe(store, label="random"))
    assert rows.loc[0, "lo"] < 0.5 < rows.loc[0, "hi"] and rows.loc[0, "p"] > 0.05
    shuffled = lp.linear_probe(store, label="random", groups=None, n_permutations=0)
    assert auroc_rows(shuffled).loc[0, "estimate"] > 0.95


def calibrate(draws, *, width, method="logistic", seed=0):
    """Null data sets: how often any layer alarms, and how often the interval covers one half."""
    alarms = covered = 0
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        store = lp.from_arrays(
            {"resid_post": rng.normal(size=(3, 200, width))},
            labels={"null": rng.permutation(np.arange(200) % 2)},
            groups=np.repeat(np.arange(100), 2),
        )
        table = lp.linear_probe(
            store,
            label="null",
            method=method,
            permute="within",
            n_permutations=199,
            n_bootstrap=400,
            strengths=[1e-3, 1e-1],
            metrics=["auroc"],
            seed=draw,
            threads=1,
        ).table
        alarms += (table["p_familywise"] <= 0.05).any()
        covered += (table["lo"][0] <= 0.5) & (table["hi"][0] >= 0.5)
    return alarms, covered


def within_bounds(draws, alarms, covered):
    assert alarms <= exact_binomial_bound(draws, 0.05)[1]
    lo, hi = exact_binomial_bound(draws, 0.95)
    assert lo <= covered <= hi


def test_null_data_sets_stay_within_the_exact_bound():
    within_bounds(25, *calibrate(25, width=64))


@pytest.mark.soak
@pytest.mark.parametrize("width", [64, 1024])
def test_a_thousand_null_data_sets_stay_within_the_exact_bound(width):
    within_bounds(1000, *calibrate(1000, width=width, seed=1))


def test_row_order_and_threads_change_nothing():
    store, _ = planted_store(label="within")
    first = lp.linear_probe(store, label="truth", threads=1)
    order = np.random.default_rng(5).permutation(store.n_rows)
    shuffled = lp.from_arrays(
        {"resid_post": store.activations("resid_post")[:, order]},
        labels={"truth": store.labels("truth")[order]},
        groups=store.groups[order],
        ids=np.asarray(store.ids)[order],
        texts=[store.texts[i] for i in order],
        lengths=store.lengths[order],
    )
    second = lp.linear_probe(shuffled, label="truth", threads=2)
    pd.testing.assert_frame_equal(first.table, second.table, rtol=1e-6)


def test_multinomial_and_regression():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 8))
    three = np.array(["a", "b", "c"])[np.argmax(z[:, :3] + 0.3 * rng.normal(size=(300, 3)), axis=1)]
    store = lp.from_arrays(
        {"resid_post": z[None]},
        labels={"three": three, "value": z[:, 0] - z[:, 1] + 0.5 * rng.normal(size=300)},
        groups=np.arange(300),
    )
    result = lp.linear_probe(store, label="three")
    table = result.table.set_index("metric")
    assert table.loc["balanced_accuracy", "lo"] > 0.7 and table.loc["balanced_accuracy", "p"] < 0.01
    assert table.loc["balanced_accuracy", "baseline_majority"] == pytest.approx(1 / 3)
    assert result.directions["resid_post", 0].shape == (3, 8) and result.directions.names == ("a", "b", "c")
    regression = lp.linear_probe(store, label="value", method="ridge").table.set_index("metric")
    assert 0.8 < regression.loc["r2", "lo"] < regression.loc["r2", "hi"] < 1
    assert abs(regression.loc["r2", "baseline_majority"]) < 0.1


def test_a_two_dimensional_subspace_is_spanned_by_its_directions():
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(12, 2)))[0]
    angle = rng.uniform(0, 2 * np.pi, 600)
    x = rng.normal(size=(600, 12)) + 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ plane.T
    quarter = np.array(["e", "n", "w", "s"])[(angle // (np.pi / 2)).astype(int)]
    store = lp.from_arrays({"resid_post": x[None]}, labels={"quarter": quarter}, groups=np.arange(600))
    result = lp.linear_probe(store, label="quarter", method="shrunk_lda", n_permutations=0)
    assert result.table.set_index("metric").loc["balanced_accuracy", "lo"] > 0.7
    weight = result.directions["resid_post", 0]
    _, size, axes = np.linalg.svd(weight - weight.mean(axis=0))
    assert size[2] < 0.4 * size[1]  # two directions carry it
    assert np.linalg.svd(axes[:2] @ plane)[1].min() > 0.9  # and they span the planted plane


def test_heads_are_probed_one_by_one():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 200, 3, 4)).astype(np.float32)
    y = np.arange(200) % 2
    x[1, :, 2, 0] += 3 * y
    store = lp.from_arrays({"head_out": x}, labels={"y": y}, groups=np.arange(200))
    result = lp.linear_probe(store, label="y")
    rows = result.table[result.table["metric"] == "auroc"]
    found = rows[rows["p_familywise"] < 0.01]
    assert found[["layer", "head"]].to_numpy().tolist() == [[1, 2]]
    assert result.directions["head_out", 1].shape == (3, 4)
    assert [finding.head for finding in result.findings if finding.lead] == [2]


def test_baselines_expose_what_the_prompt_alone_says():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    # the label is in the words, and the activations carry the words
    texts = [("lovely " if value else "dreadful ") + f"thing {rng.integers(50)}" for value in y]
    x = rng.normal(size=(1, 400, 8))
    x[0, :, 0] += 6 * y
    lengths = np.where(y, 12, 8) + rng.integers(0, 3, 400)
    common = {"labels": {"y": y}, "groups": np.arange(400)}
    result = lp.linear_probe(lp.from_arrays({"resid_post": x}, texts=texts, **common), label="y")
    assert result.table["baseline_text"][0] > 0.99
    assert _verdicts(result) == {"readable": "found", "beyond_text": "not_found"}
    assert "no more than a bag of words" in result.findings[0].caveats[0]
    result = lp.linear_probe(lp.from_arrays({"resid_post": x}, lengths=lengths, **common), label="y")
    assert result.table["baseline_length"][0] > 0.99
    assert _verdicts(result) == {"readable": "found", "beyond_length": "not_found"}
    assert "no more than prompt length" in result.findings[0].caveats[0]


def _verdicts(result):
    return {finding.claim.name: finding.verdict for finding in result.findings}


def test_summary_and_plot_of_nothing_say_so():
    store, _ = planted_store(first=9)
    result = lp.linear_probe(store, label="truth")
    (finding,) = result.findings
    assert finding.verdict == "not_found" and finding.lead and finding.layers == () and finding.looked == 4
    assert [number.name for number in finding.numbers] == ["bag of words", "prompt length"]
    assert to_svg(result.plot()).startswith("<svg")
    assert "<script" not in result._repr_html_()


def test_worst_examples_bring_their_text():
    store, _ = planted_store()
    worst = lp.linear_probe(store, label="truth", n_permutations=0).examples(layer=1, worst=5)
    assert (
        len(worst) == 5
        and worst["margin"].is_monotonic_increasing
        and worst["text"].str.startswith("prompt").all()
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_class_weights_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(150, int), np.ones(40, int), np.full(50 * (classes - 2), 2, int)]
    x = rng.normal(size=(len(y), 4)) + 0.8 * np.eye(4)[y] + 2
    store = lp.from_arrays({"resid_post": x[None]}, labels={"y": y}, groups=np.arange(len(y)))
    options = {"n_permutations": 0, "n_bootstrap": 50, "strengths": [0.3]}
    result = lp.linear_probe(store, label="y", class_weight="balanced", **options)
    seen = make_task(store, "y", groups=store.groups, held_out=0.3, n_folds=5, seed=0)
    rows, truth = x[seen.rows][seen.train], seen.y[seen.train]
    weight = len(truth) / (classes * np.bincount(truth))[truth]
    scaler = StandardScaler().fit(rows, sample_weight=weight)
    model = LogisticRegression(C=0.3, tol=1e-10, class_weight="balanced").fit(scaler.transform(rows), truth)
    found = np.atleast_2d(result.directions["resid_post", 0])
    np.testing.assert_allclose(found, model.coef_ / scaler.scale_, atol=1e-4)
    plain = np.atleast_2d(lp.linear_probe(store, label="y", **options).directions["resid_post", 0])
    assert np.abs(found - plain).max() > 1e-2


def test_summaries_claim_no_more_than_was_tested():
    store, _ = planted_store(first=3)
    tested = lp.linear_probe(store, label="truth").findings[0]
    assert (tested.verdict, tested.layer, tested.layers, tested.looked) == ("found", 3, (3,), 4)
    assert tested.test.looks == 4
    (untested,) = lp.linear_probe(store, label="truth", n_permutations=0).findings
    assert untested.verdict == "not_tested" and untested.test is None


def test_a_constant_predictor_has_no_interval_of_no_width():
    x = np.random.default_rng(0).normal(size=(1, 120, 6))
    y = np.arange(120) % 3 == 0
    store = lp.from_arrays({"resid_post": x}, labels={"third": y}, groups=np.arange(120))
    result = lp.linear_probe(
        store, label="third", metrics=["balanced_accuracy"], strengths=[1e-12], n_permutations=50
    )
    row = result.table.iloc[0]
    assert row["estimate"] == 0.5 and "lo" not in result.table and "same answer" in row["note"]
    assert "[0.500, 0.500]" not in str(result.summary()) and "no interval: " in str(result.summary())


def test_a_perfect_score_is_no_certainty():
    y = np.arange(60) % 2
    x = 10.0 * y + 1e-3 * np.arange(60)  # bitwise equal rows would be one prompt
    store = lp.from_arrays({"resid_post": x[None, :, None]}, labels={"y": y}, groups=np.arange(60))
    row = lp.linear_probe(store, label="y", metrics=["auroc"]).table.iloc[0]
    assert row["estimate"] == row["hi"] == 1.0 and row["lo"] == pytest.approx(
        0.025 ** (1 / (row["n_groups"] - 2))
    )


def test_the_worst_examples_are_the_ones_predicted_wrong():
    store, _ = planted_store(strength=0.5)
    result = lp.linear_probe(store, label="truth", n_permutations=0)
    worst, best = result.examples(layer=3, worst=5), result.examples(layer=3, best=5)
    assert (worst["margin"] < 0).all() and (worst["predicted"] != worst["label"]).all()
    assert (best["margin"] > 0).all() and (best["predicted"] == best["label"]).all()
    sign = np.where(worst["label"] == "yes", 1, -1)
    np.testing.assert_allclose(worst["margin"], sign * worst["score"])


def test_the_majority_baseline_is_that_of_the_training_groups():
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(60, int), np.ones(60, int)]
    held_out = np.r_[np.arange(60) < 50, np.arange(60) < 10]  # classes are uneven, the other way round
    store = lp.from_arrays(
        {"resid_post": rng.normal(size=(1, 120, 3))}, labels={"y": y}, groups=np.arange(120)
    )
    table = lp.linear_probe(
        store, label="y", held_out=held_out, metrics=["log_loss", "balanced_accuracy"], n_permutations=0
    ).table.set_index("metric")
    share = 50 / 60  # of ones among the training rows
    expected = -(50 * np.log(1 - share) + 10 * np.log(share)) / 60
    assert table.loc["log_loss", "baseline_majority"] == pytest.approx(expected)
    assert table.loc["balanced_accuracy", "baseline_majority"] == 0.5


def test_mixed_labels_get_no_p_value_and_say_why():
    store, _ = planted_store(label="within")
    y = np.asarray(store.labels("truth")).copy()
    y[:3] = "no"
    result = lp.linear_probe(store, label=y)
    assert "p" not in result.table and any("permute='within' (--permute within)" in n for n in result.notes)
    assert "p" in lp.linear_probe(store, label=y, permute="within").table


@pytest.mark.parametrize(
    "change, message",
    [
        ({"label": "trooth"}, "its label columns: truth, one"),
        ({"label": "one"}, "one class only"),
        ({"label": [1, 2]}, "each of the 180 rows"),
        ({"method": "forest"}, "choose from logistic"),
        ({"sites": "mlp_out"}, "not in this store, which holds resid_post"),
        ({"layers": [9]}, r"not among the layers of resid_post of this store: \[0, 1, 2, 3\]"),
        ({"metrics": ["auc"]}, "choose from auroc"),
        ({"n_folds": 70}, "cannot fill 70 folds"),
        ({"held_out": "ood"}, "needs a split column"),
        ({"held_out": 1.5}, "share between 0 and 1"),
        ({"held_out": np.arange(180) < 7}, "1 groups have rows on both sides"),
        ({"positive": "perhaps"}, "not one of the two classes"),
        ({"kind": "regression"}, "no numbers"),
    ],
)
def test_bad_input_is_answered_with_the_next_step(change, message):
    store, _ = planted_store(labels={"one": ["same"] * 180})
    with pytest.raises(LayerprobeError, match=message):
        lp.linear_probe(store, **{"label": "truth", **change})


def test_nan_rows_are_named():
    store, _ = planted_store()
    x = np.array(store.activations("resid_post"))
    x[1, 7, 3] = np.nan
    bad = lp.from_arrays({"resid_post": x}, labels={"y": store.labels("truth")}, groups=store.groups)
    with pytest.raises(LayerprobeError, match=r"resid_post\[1\].*'7'"):
        lp.linear_probe(bad, label="y")
