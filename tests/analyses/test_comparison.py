from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from lens_worlds import FLAT, lens_table, world

from layerprobe.analyses.comparison.models import compare
from layerprobe.analyses.comparison.transfer_of_directions import weighted_auroc
from layerprobe.analyses.reading.pairing import pair_stores
from layerprobe.analyses.result.analysis import AnalysisResult, read_result
from layerprobe.analyses.result.saving import to_svg
from layerprobe.analyses.result.words import sentence
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError

FAST = {"n_bootstrap": 200, "n_permutations": 200}
SENSITIVE, BENIGN = "sensitive=sensitive", "sensitive=benign"


def differences(table, metric="suppression_index"):
    """Rows of a model minus the reference on one kind of prompts."""
    rows = table[(table["metric"] == metric) & table["reference"].notna()]
    return rows[rows["minus"].isna()] if "minus" in rows else rows


def told(result, quantity):
    return [finding for finding in result.findings if finding.quantity == quantity]


def resid(n=160, layers=8, width=12, *, seed=0, change=None, strength=3.0):
    """Residuals in which `sensitive` is a direction from layer 1 on; `change` turns it over from there."""
    rng = np.random.default_rng(seed)
    kind = np.tile([1.0, 1.0, -1.0, -1.0], n // 4)
    x = rng.normal(size=(layers, n, width)).astype(np.float32)
    x[1:, :, 0] += strength * kind
    if change is not None:
        x[change:, :, 0] -= 2 * strength * kind
        x[change:, :, 5] += 4
    return x


@pytest.fixture(scope="module")
def pair():
    base = world(sensitive=FLAT, name="base", resid=resid())
    noise = np.random.default_rng(9).normal(size=resid().shape).astype(np.float32) * 0.3
    return {"base": base, "instruct": world(name="instruct", seed=4, resid=resid(change=5) + noise)}


def test_a_change_from_layer_five_on_is_found_there(pair):
    result = compare(pair, label="sensitive", by="sensitive", target="answer", foil="foil", **FAST)
    table = result.table

    def at(metric, layer, **more):
        found = table[
            (table["metric"] == metric) & (table["layer"] == layer) & (table["site"] == "resid_post")
        ]
        for key, value in more.items():
            found = found[found[key] == value]
        return found.iloc[0]

    assert at("cka_debiased", 2, space="raw")["estimate"] > 0.85
    change = table[table["metric"] == "class_difference_change"].set_index("layer")
    assert (change.loc[5:, "p_familywise"] <= 0.05).all() and (change.loc[:4, "p_familywise"] > 0.05).all()
    assert at("direction_cosine", 3)["estimate"] > 0.8 and at("direction_cosine", 6)["estimate"] < -0.8
    assert at("direction_cosine_ratio", 3)["lo"] < 1.02
    assert at("transfer_auroc", 3)["estimate"] > 0.95 and at("transfer_auroc", 6)["estimate"] < 0.05
    assert at("own_auroc", 6)["estimate"] > 0.95
    assert at("mean_shift", 6)["lo"] > 0 and at("mean_shift", 3)["lo"] < 0.2
    verdicts = result.frames["verdicts"].set_index(["model", "subset"])["verdict"]
    assert verdicts["instruct", "sensitive=sensitive"] == "override"
    assert (verdicts.drop(("instruct", "sensitive=sensitive")) == "none").all()
    gap = differences(table).set_index("subset")
    assert gap.loc[SENSITIVE, "lo"] > 0
    assert gap.loc[BENIGN, "lo"] < 0 < gap.loc[BENIGN, "hi"]


def test_findings_tell_differences_only_and_place_the_change(pair):
    result = compare(pair, label="sensitive", by="sensitive", target="answer", foil="foil", **FAST)
    assert all((f.model, f.reference) == ("instruct", "base") for f in result.findings)
    index = {(f.subset, f.minus): f.verdict for f in result.findings if f.quantity == "suppression_index"}
    assert index == {
        (BENIGN, None): "not_found",
        (SENSITIVE, None): "found",
        (SENSITIVE, BENIGN): "found",
    }
    (lead,) = [f for f in result.findings if f.lead]
    assert (lead.subset, lead.minus) == (SENSITIVE, BENIGN)
    (change,) = told(result, "class_difference_change")
    assert change.verdict == "found" and change.layers == (5, 6, 7) and change.layer >= 5
    (moved,) = told(result, "transfer_auroc")
    assert moved.verdict == "undecided" and "layers 1–4" in moved.why
    for metric in ("cka_debiased", "procrustes_r2", "rsa_spearman"):
        (least,) = told(result, metric)
        assert least.verdict == "not_tested" and least.layer >= 5
    assert "instruct against base: RSA" in str(result.summary())


def test_a_model_against_itself_is_told_to_differ_in_nothing(pair):
    base = pair["base"]
    result = compare({"base": base, "again": base}, label="sensitive", by="sensitive", **FAST)
    said = {f.quantity: f.verdict for f in result.findings if f.verdict != "not_tested"}
    moved = said.pop("transfer_auroc")
    assert set(said.values()) == {"not_found"} and moved == "found"  # its own direction reads the label
    assert sum(f.lead for f in result.findings) == 1


def test_one_picture_shows_all_pairs_and_draws_transfer_only_where_it_can_be_judged(pair):
    two = compare(pair, label="sensitive", by="sensitive", target="answer", foil="foil", **FAST)
    three = compare({**pair, "other": pair["base"]}, label="sensitive", **FAST)
    for result in (two, three):
        chart = result.plot()
        assert "NaN" not in to_svg(chart)
        panels = {row.get("f") for row in chart.data.values}
        assert {"debiased CKA", "AUROC of the reference's direction", "RSA"} <= panels
        moved = [r for r in chart.data.values if r.get("f") == "AUROC of the reference's direction"]
        assert 0 not in {row.get("x") for row in moved if row.get("role") == "curve"}  # nothing to read there


def test_a_model_against_itself_differs_in_nothing(pair):
    base = pair["base"]
    table = compare({"base": base, "again": base}, label="sensitive", by="sensitive", **FAST).table
    differences = table[table["reference"].notna()]
    zero = differences[
        differences["metric"].isin(["suppression_index", "mean_shift", "class_difference_change", "lens_kl"])
    ]
    np.testing.assert_allclose(zero["estimate"].astype(float), 0, atol=1e-9)
    same = differences[differences["metric"].isin(["cka_debiased", "procrustes_r2", "rsa_spearman"])]
    np.testing.assert_allclose(same["estimate"].astype(float), 1, atol=1e-9)


def test_rows_are_matched_by_id_whatever_their_order(pair):
    base, instruct = pair["base"], pair["instruct"]
    order = np.random.default_rng(1).permutation(base.n_rows)
    shuffled = from_arrays(
        {"resid_post": instruct.activations("resid_post")[:, order]},
        ids=instruct.ids[order],
        labels={"sensitive": instruct.labels("sensitive")[order]},
        groups=instruct.groups[order],
        lens=lens_table(np.asarray(instruct.lens.candidate_logits)[..., 0, 0][:, order] * 2),
    )
    one = compare({"base": base, "instruct": instruct}, by="sensitive", **FAST).table
    two = compare({"base": base, "instruct": shuffled}, by="sensitive", **FAST).table
    np.testing.assert_allclose(one["estimate"].astype(float), two["estimate"].astype(float), atol=1e-6)


def test_it_reads_back(pair, tmp_path):
    result = compare(pair, by="sensitive", **FAST)
    again = read_result(result.to_parquet(tmp_path / "c.parquet"))
    assert str(again.summary()) == str(result.summary())


def test_stores_without_a_lens_are_compared_by_geometry_alone():
    stores = {
        (w, "plain"): from_arrays({"resid_post": resid(seed=s)}, groups=np.arange(160) // 4)
        for s, w in enumerate(["base", "it"])
    }
    result = compare(stores, **FAST)
    assert set(result.table["model"]) == {"base/plain", "it/plain"}
    assert "lens" not in set(result.table["site"])


def test_weighted_auroc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 6, 50).astype(float), rng.random(50) < 0.4
    weights = rng.integers(0, 3, (5, 50)).astype(float)
    expected = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    np.testing.assert_allclose(weighted_auroc(scores, labels, weights), expected, atol=1e-12)


def test_mismatched_stores_are_refused(pair):
    with pytest.raises(LayerprobeError, match="at least two"):
        compare({"base": pair["base"]})
    other = world(n_groups=39, resid=resid(156))
    with pytest.raises(LayerprobeError, match="do not hold the same rows"):
        compare({"base": pair["base"], "other": other})
    with pytest.raises(LayerprobeError, match="not one of the models"):
        pair_stores(pair, "missing")
    with pytest.raises(LayerprobeError, match="not in every store"):
        compare(pair, sites="mlp_out")


def test_a_label_that_no_layer_carries_is_reported_and_does_not_crash():
    rng = np.random.default_rng(0)
    groups = np.arange(80) // 2
    stores = {
        name: from_arrays(
            {"resid_post": rng.normal(size=(2, 80, 5))}, groups=groups, labels={"kind": groups % 2}
        )
        for name in ("base", "instruct")
    }
    result = compare(stores, label="kind", **FAST)
    ratio = result.table[result.table["metric"] == "direction_cosine_ratio"]
    assert ratio[ratio["estimate"].isna()]["note"].notna().all()
    blank = result.table["metric"] == "direction_cosine_ratio"
    table = result.table.assign(estimate=result.table["estimate"].where(~blank))
    (finding,) = told(replace(result, table=table), "direction_cosine_ratio")
    assert finding.verdict == "not_tested" and finding.estimate is None
    assert "could not be estimated in any layer" in sentence(finding)


def test_any_number_of_checkpoints_is_compared_with_one(pair):
    """Between base and instruct stand checkpoints that are base still; only the last one differs."""
    base, instruct = pair["base"], pair["instruct"]
    stores = {"base": base, ("sft", "1"): base, "sft-2": base, "instruct": instruct}
    result = compare(stores, label="sensitive", by="sensitive", target="answer", foil="foil", **FAST)
    table = result.table
    against = table[table["reference"].notna()]
    assert set(against["model"]) == {"sft/1", "sft-2", "instruct"} and set(against["reference"]) == {"base"}
    gap = differences(against)[lambda rows: rows["subset"] == SENSITIVE].set_index("model")["estimate"]
    assert gap["sft/1"] == gap["sft-2"] == 0 and gap["instruct"] > 5
    other = compare(stores, by="sensitive", reference="instruct", **FAST).table
    assert set(other["reference"].dropna()) == {"instruct"}
    assert set(result.frames["verdicts"]["model"]) == {"base", "sft/1", "sft-2", "instruct"}


def test_differences_between_models_are_paired_over_prompts():
    """What varies between prompts is the same in both models here, so their difference hardly varies."""
    stores = {"base": world(sensitive=FLAT, noise=4.0), "instruct": world(noise=4.0)}
    table = compare(stores, by="sensitive", **FAST).table
    rows = table[(table["metric"] == "logit_difference") & (table["layer"] == 7) & table["minus"].isna()]
    rows = rows.set_index("subset")
    width = rows["hi"] - rows["lo"]
    between = rows["reference"].notna() & rows["model"].eq("instruct")
    alone = rows["reference"].isna() & rows["model"].eq("instruct")
    for subset in ("sensitive=sensitive", "sensitive=benign"):
        assert width[between][subset] < 1e-4 < 1 < width[alone][subset]


def test_activations_that_do_not_vary_are_said_not_to():
    """As before any block, where all prompts end in the same token: similarity is undefined there."""
    stores = {"base": world(sensitive=FLAT), "instruct": world()}
    table = compare(stores, label="sensitive", by="sensitive", sites=["resid_post"], **FAST).table
    rows = table[(table["site"] == "resid_post") & table["reference"].notna()]
    assert rows[rows["metric"] == "procrustes_r2"]["note"].str.contains("do not vary").all()
    assert rows[rows["metric"].isin(["class_difference_change", "mean_shift"])]["estimate"].isna().all()


def test_the_interaction_is_the_difference_of_the_differences(pair):
    table = compare(pair, by="sensitive", target="answer", foil="foil", **FAST).table
    index = table[(table["metric"] == "suppression_index") & table["reference"].notna()]
    one, two = (differences(table).set_index("subset").loc[kind, "estimate"] for kind in (BENIGN, SENSITIVE))
    (crossed,) = index[index["minus"].notna()].to_dict("records")
    assert (crossed["subset"], crossed["minus"]) == (BENIGN, SENSITIVE)
    assert crossed["estimate"] == pytest.approx(one - two)


def test_lens_kl_is_from_the_reference_to_the_model(pair):
    table = compare(pair, target="answer", foil="foil", **FAST).table
    found = table[table["metric"] == "lens_kl"].set_index("layer")["estimate"].astype(float)
    shares = []
    for store in pair.values():
        logits = np.asarray(store.lens.candidate_logits)[..., 0].astype(float)
        two = np.exp(logits - np.asarray(store.lens.logsumexp)[..., None])
        shares.append(np.concatenate([two, 1 - two.sum(-1, keepdims=True)], axis=-1))
    base, instruct = shares
    expected = (base * np.log(base / instruct)).sum(-1).mean(-1)
    np.testing.assert_allclose(found.loc[range(8)], expected, rtol=1e-4)


def test_differences_of_subsets_are_told_in_one_order(pair):
    """The order in which the largest is positive, for every model: sensitive minus benign here."""
    stores = {**pair, "other": pair["base"]}
    result = compare(stores, by="sensitive", target="answer", foil="foil", **FAST)
    crossed = [f for f in result.findings if f.minus]
    assert [(f.model, f.subset, f.minus) for f in crossed] == [
        ("instruct", SENSITIVE, BENIGN),
        ("other", SENSITIVE, BENIGN),
    ]
    assert crossed[0].verdict == "found" and crossed[0].lo > 0 and crossed[1].verdict == "not_found"


def test_transfer_is_judged_only_where_the_reference_reads_the_label_at_all():
    rng = np.random.default_rng(0)
    noise = world(sensitive=FLAT, name="base", resid=rng.normal(size=(8, 160, 12)).astype(np.float32))
    model = world(name="instruct", resid=resid())
    result = compare({"base": noise, "instruct": model}, label="sensitive", **FAST)
    (finding,) = told(result, "transfer_auroc")
    assert finding.verdict == "not_tested" and finding.estimate is None
    assert "own direction is at chance" in sentence(finding)
    assert "AUROC of the reference's direction" not in {row.get("f") for row in result.plot().data.values}
    result = compare(
        {"base": world(name="base", resid=resid()), "instruct": model}, label="sensitive", **FAST
    )
    (finding,) = told(result, "transfer_auroc")
    assert finding.verdict == "found" and finding.test.looks == 7
    own = result.table[result.table["metric"] == "reference_auroc"].set_index("layer")["estimate"]
    assert own[0] < 0.7 < 0.95 < own[1]


def test_one_estimable_layer_is_not_called_the_lowest():
    rows = pd.DataFrame(
        {
            "model": "instruct",
            "reference": "base",
            "metric": "direction_cosine_ratio",
            "site": "resid_post",
            "layer": range(3),
            "estimate": [np.nan, np.nan, 1.0],
            "lo": np.nan,
            "hi": np.nan,
            "note": ["a direction does not agree with itself", None, None],
        }
    )
    (finding,) = AnalysisResult(kind="compare", table=rows).findings
    said = sentence(finding)
    assert "is 1.000 at resid_post[2]" in said and "least alike" not in said
    assert "estimated at 1 of 3 layers: a direction does not agree with itself" in said
