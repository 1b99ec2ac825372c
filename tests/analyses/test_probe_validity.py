"""Curves, codelength, transfer and selectivity say what is known to be true of planted data."""

import numpy as np
import pytest
from chart_support import rows_of, values_of
from planted_probes import planted_store

import layerprobe as lp
from layerprobe.analyses.probes.selectivity import selectivity
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.result.charts import to_svg
from layerprobe.analyses.validation.curves import learning_curve
from layerprobe.analyses.validation.transfer import generalisation_matrix, leave_one_domain_out
from layerprobe.hooks.errors import LayerprobeError


def test_codelength_is_short_where_the_label_is_and_uniform_where_it_is_not():
    store, _ = planted_store(strength=3.0)
    result = learning_curve(store, label="truth", layers=[0, 3], n_draws=2)
    code = result.table[result.table["metric"] == "codelength"].set_index("layer")
    assert code.loc[3, "estimate"] < 0.6 * code.loc[0, "estimate"]
    assert code.loc[0, "estimate"] == pytest.approx(code.loc[0, "uniform"], rel=0.35)
    assert code.loc[3, "uniform"] == store.n_rows
    curve = result.table[(result.table["metric"] == "auroc") & (result.table["layer"] == 3)]
    assert curve["n_train"].is_monotonic_increasing and curve["estimate"].iloc[-1] > 0.9
    task = make_task(store, "truth", groups=store.groups, held_out=0.3, n_folds=5, seed=0)
    whole = task.train.sum()
    assert curve["n_train"].iloc[-1] == whole and (curve["n"] == task.test.sum()).all()
    wanted = np.maximum(curve["share"] * whole, 30)  # never fewer than ten groups of three
    np.testing.assert_allclose(curve["n_train"], wanted, atol=2)
    score, code = result.findings
    assert (score.quantity, code.quantity) == ("auroc", "codelength") and score.lead and not code.lead
    assert code.layer == 3 and code.verdict == score.verdict == "not_tested"
    assert to_svg(result.plot()).startswith("<svg")
    (points,) = rows_of(result.plot())
    assert {row["s"] for row in points} == {0, 3}


def test_a_direction_travels_only_where_it_means_the_same():
    texts = [f"prompt {row}" for row in range(180)]  # the same items in all
    one, _ = planted_store(seed=1, texts=texts)
    same, _ = planted_store(seed=1, labels={}, texts=texts)
    other, _ = planted_store(seed=3, texts=texts)  # its axis is at right angles to the first one's
    result = generalisation_matrix({"one": one, "same": same, "other": other}, label="truth", layers=[3])
    matrix = result.table.pivot(index="train_on", columns="test_on", values="estimate")
    assert matrix.loc["one", "one"] > 0.9 and matrix.loc["one", "same"] > 0.9
    assert matrix.loc["one", "other"] < 0.8
    (finding,) = result.findings
    assert finding.verdict == "undecided" and "pairs of datasets" in finding.why
    assert to_svg(result.plot()).startswith("<svg")


def test_leaving_a_domain_out():
    rng = np.random.default_rng(0)
    y, domain = np.arange(240) % 2, np.repeat(["a", "b", "c"], 80)
    x = rng.normal(size=(1, 240, 6))
    x[0, :, 0] += 3 * y
    x[0, domain == "c", 0] -= 6 * y[domain == "c"]  # in c the direction is reversed
    store = lp.from_arrays({"resid_post": x}, labels={"y": y, "domain": domain}, groups=np.arange(240))
    result = leave_one_domain_out(store, label="y", domain="domain", n_permutations=0)
    rows = result.table[result.table["metric"] == "auroc"].set_index("subset")
    assert rows.loc["domain=c", "hi"] < 0.5
    (lead,) = [finding for finding in result.findings if finding.lead]
    assert lead.subset == "domain=c" and lead.estimate == rows.loc["domain=c", "estimate"]
    assert lead.verdict == "not_tested" and "below chance" in " ".join(lead.caveats)
    assert {row["f"] for row in values_of(result.plot())[0]} >= set("abc")


def test_memorised_words_are_not_selective():
    rng = np.random.default_rng(1)
    n, vocabulary = 1200, 60
    types = rng.integers(0, vocabulary, n)
    prompt = np.repeat(np.arange(120), 10)
    embedding = rng.normal(size=(vocabulary, 80))
    y = rng.integers(0, 2, n)
    x = np.stack([embedding[types], embedding[types]])
    x[1] = 0.05 * x[1] + 0.05 * rng.normal(size=(n, 80))
    x[1, :, 0] += 2 * y
    store = lp.from_arrays(
        {"resid_post": x},
        labels={"by_type": np.arange(120) % 2},
        groups=np.arange(120),
        examples=prompt,
        positions=np.tile(np.arange(10), 120),
    )
    with pytest.raises(LayerprobeError, match="types="):
        selectivity(store, label="by_type")
    flat = lp.from_arrays({"resid_post": x}, labels={"tag": y, "grade": rng.normal(size=n)}, groups=prompt)
    result = selectivity(flat, label="tag", types=types, permute="within")
    (finding,) = result.findings
    assert (finding.layer, finding.verdict) == (1, "found") and finding.lo > 0
    (points,) = rows_of(result.plot())
    assert {(row["x"], row["d"]) for row in points} == {
        (layer, read) for layer in (0, 1) for read in ("on the label", "on random labels per word type")
    }
    rows = result.table.set_index("layer")
    assert rows.loc[0, "control"] > 0.9 and rows.loc[0, "estimate"] < -0.2
    assert rows.loc[1, "accuracy"] > 0.9 and rows.loc[1, "estimate"] > 0.1
    assert 0 < rows.loc[1, "lo"] < rows.loc[1, "estimate"] < rows.loc[1, "hi"]
    assert rows.loc[1, "control_sd"] > 0
    # a constant prediction beside perfectly memorised controls varies in no draw, and claims no precision
    assert np.isnan(rows.loc[0, "lo"]) and "all predictions are alike" in rows.loc[0, "note"]
    assert to_svg(result.plot()).startswith("<svg")
    (shown,) = [row for row in points if row["d"] == "on the label" and row["x"] == 1]
    assert shown["hi"] - shown["lo"] == pytest.approx(rows.loc[1, "hi"] - rows.loc[1, "lo"], abs=1e-4)
    single = selectivity(flat, label="tag", types=types, n_controls=1, layers=[1]).table
    assert "lo" not in single and single["note"].str.contains("n_controls=5").all()
    for method in ("ridge", "logistic"):  # the former's cut is Platt's, not zero
        one = selectivity(flat, label="tag", types=types, layers=[1], n_controls=1, method=method).table
        two = lp.linear_probe(flat, label="tag", layers=[1], n_permutations=0, method=method).table
        assert one["accuracy"][0] == two.set_index("metric")["estimate"]["balanced_accuracy"]
    with pytest.raises(LayerprobeError, match="needs classes"):
        selectivity(flat, label="grade", types=types)


def test_length_stratified_score_falls_when_length_is_all_there_is():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 60, 600)
    y = (lengths + rng.normal(size=600) * 6 > 32).astype(int)
    x = rng.normal(size=(1, 600, 5))
    x[0, :, 0] = lengths / 10
    store = lp.from_arrays({"resid_post": x}, labels={"y": y}, groups=np.arange(600), lengths=lengths)
    table = lp.linear_probe(store, label="y", n_permutations=0).table.set_index("metric")
    assert table.loc["auroc", "estimate"] > 0.95
    assert table.loc["auroc_within_length", "lo"] < 0.5 < table.loc["auroc_within_length", "hi"]


def test_stores_of_different_width_are_refused():
    texts = [f"prompt {row}" for row in range(180)]
    one, _ = planted_store(width=8, texts=texts)
    two, _ = planted_store(width=9, texts=texts)
    with pytest.raises(LayerprobeError, match="capture both with the same one"):
        generalisation_matrix({"one": one, "two": two}, label="truth")


def test_selectivity_needs_word_types_and_has_its_own_metric():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    store = lp.from_arrays(
        {"resid_post": rng.normal(size=(1, 120, 3))}, labels={"y": y}, groups=np.arange(120)
    )
    with pytest.raises(LayerprobeError, match="1 word type"):
        selectivity(store, label="y", types=np.zeros(120))
    with pytest.raises(LayerprobeError, match="leave metrics= out"):
        selectivity(store, label="y", types=np.arange(120) % 7, metrics=["accuracy", "auroc"])
