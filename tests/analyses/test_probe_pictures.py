"""Findings and pictures of probes show what the table says: every place by its name, nothing averaged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from chart_support import values_of

import layerprobe as lp
from layerprobe.analyses.result.analysis import AnalysisResult, joined, tidy
from layerprobe.analyses.result.charts import to_svg
from layerprobe.hooks.errors import LayerprobeError

FEW = {"n_permutations": 60, "n_bootstrap": 60}
N = 120


def mixed_store(*sites, seed=0):
    """Labels `y` (read at head 2 of layer 1, in later layers and at both ends) and `w` (read nowhere)."""
    rng = np.random.default_rng(seed)
    y, w = rng.integers(0, 2, N), rng.integers(0, 2, N)
    arrays = {
        "resid_post": rng.normal(size=(3, N, 6)),
        "mlp_out": rng.normal(size=(2, N, 6)),
        "head_out": rng.normal(size=(2, N, 4, 5)),
        "q": rng.normal(size=(2, N, 4, 5)),
        "embed": rng.normal(size=(N, 6)),
        "final_norm": rng.normal(size=(N, 6)),
    }
    arrays["head_out"][1, :, 2, 0] += 3 * y
    arrays["resid_post"][1:, :, 0] += 2 * y
    arrays["final_norm"][:, 0] += 2 * y
    return lp.from_arrays(
        {site: arrays[site] for site in sites or arrays},
        labels={"y": y, "w": w, "dom": np.array(["a", "b", "c"])[np.arange(N) % 3]},
        groups=np.arange(N),
        texts=[f"thing {rng.integers(9)} of {k}" for k in range(N)],
        lengths=rng.integers(5, 20, N),
    )


SETS = [
    ("final_norm",),
    ("embed", "final_norm"),
    ("head_out", "q"),
    ("resid_post", "embed"),
    ("resid_post", "head_out", "embed"),
]
VERBS = {
    "linear_probe": lambda s: lp.linear_probe(s, label="y", **FEW),
    "two labels": lambda s: lp.linear_probe(s, label=["y", "w"], **FEW),
    "learning_curve": lambda s: lp.learning_curve(s, label="y", n_draws=1, shares=(0.2, 1.0)),
    "generalisation_matrix": lambda s: lp.generalisation_matrix(
        {"a": s, "b": mixed_store(*s.sites, seed=1)}, label="y", n_bootstrap=30
    ),
    "selectivity": lambda s: lp.selectivity(
        s, label="y", types=np.arange(N) % 20, n_controls=2, n_bootstrap=30
    ),
    "leave_one_domain_out": lambda s: lp.leave_one_domain_out(s, label="y", domain="dom", **FEW),
    "nested_cv": lambda s: lp.nested_cv(s, label="y", repeats=1, strengths=[0.1], n_folds=4),
}


def of_models(result, *names):
    """The same result as if several models had given it."""

    def called(frame, name):
        return frame.assign(model=name) if "model" in frame else frame

    parts = [
        replace(
            result,
            table=called(result.table, name),
            frames={key: called(frame, name) for key, frame in result.frames.items()},
        )
        for name in names
    ]
    return joined(parts, names)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("sites", SETS, ids="+".join)
def test_every_kind_of_site_can_be_told_and_drawn(sites, verb, tmp_path):
    result = VERBS[verb](mixed_store(*sites))
    text = str(result.summary())
    assert (
        "nan" not in text.lower()
        and "NA>" not in text
        and "None" not in text
        and "<div>" in (result._repr_html_())
    )
    assert {finding.claim.words(finding.verdict) for finding in result.findings} <= {
        getattr(finding.claim, verdict)
        for finding in result.findings
        for verdict in ("found", "not_found", "undecided", "not_tested")
    }
    assert len([f for f in result.findings if f.lead]) == (2 if verb == "two labels" else 1)
    back = lp.read_result(result.to_parquet(tmp_path / "r.parquet"))
    assert str(back.summary()) == text
    two = of_models(result, "base", "it")
    for drawn in (result, two):
        svg = to_svg(drawn.plot())
        assert svg.startswith("<svg") and "NaN" not in svg
    assert sorted(f.model for f in two.findings if f.lead) == sorted(
        ["base", "it"] * (2 if verb == "two labels" else 1)
    )
    if "head_out" in sites and verb not in ("generalisation_matrix", "nested_cv"):
        assert "head 2 of head_out[1]" in text
    if "final_norm" in sites:
        assert "final_norm" in text and "final_norm[" not in text


def test_maps_of_heads_hold_the_numbers_of_the_table():
    result = lp.linear_probe(mixed_store(), label=["y", "w"], **FEW)
    curves, maps = map(pd.DataFrame, values_of(result.plot()))
    rows = result.table[result.table["metric"] == "auroc"]
    assert set(curves["f"].dropna()) - {""} == {
        "y · resid_post",
        "y · mlp_out",
        "w · resid_post",
        "w · mlp_out",
    }
    heads = rows[rows["head"].notna()]
    assert len(maps) == len(heads)
    for row in heads.to_dict("records"):
        panel = maps["f"] == f"{row['target']} · {row['site']}"
        cell = maps[panel & (maps["x"] == str(int(row["head"]))) & (maps["y"] == str(row["layer"]))]
        assert cell["value"].item() == pytest.approx(row["estimate"], abs=1e-5)
        assert cell["found"].item() == (row["p_familywise"] <= 0.05)
    found = heads[heads["p_familywise"] <= 0.05]
    assert ("y", 1, 2) in set(zip(found["target"], found["layer"], found["head"], strict=True))


def test_references_are_those_of_the_label_they_stand_behind():
    result = lp.linear_probe(mixed_store("resid_post", "embed"), label=["y", "w"], **FEW)
    rows = result.table[result.table["metric"] == "auroc"].set_index("target")
    (data,) = map(pd.DataFrame, values_of(result.plot()))
    labels = data[data["t"].notna()].set_index("t")["r"]
    for target in ("y", "w"):
        levels = data[(data["role"] == "level") & (data["f"] == target)].set_index("r")["y"]
        for said, column in (("bag of words", "baseline_text"), ("prompt length", "baseline_length")):
            assert levels[labels[said]] == pytest.approx(rows.loc[[target], column].iloc[0], abs=1e-5)
        assert levels[labels["chance"]] == 0.5
        mine = data[data["role"].isin(["curve", "site"]) & (data["f"] == target)]
        for drawn, column in (("nlo", "null_lo"), ("nhi", "null_hi")):
            np.testing.assert_allclose(
                sorted(mine[drawn]), rows.loc[[target], column].sort_values(), atol=1e-5
            )


def test_so_many_panels_that_nobody_compares_them_are_one_map():
    store = mixed_store("resid_post")
    names = [f"w{k}" for k in range(13)]
    rng = np.random.default_rng(0)
    many = lp.from_arrays(
        {"resid_post": store.activations("resid_post", 0)[None]},
        labels={name: rng.integers(0, 2, N) for name in names},
        groups=np.arange(N),
    )
    result = lp.linear_probe(many, label=names, n_permutations=20, n_bootstrap=20)
    (data,) = map(pd.DataFrame, values_of(result.plot()))
    assert set(data["y"]) == set(names) and set(data["x"]) == {"0"}


def test_panels_refuse_two_numbers_for_one_head():
    result = lp.linear_probe(mixed_store("head_out"), label="y", **FEW)
    doubled = tidy([*result.table.to_dict("records"), *result.table.to_dict("records")])
    with pytest.raises(LayerprobeError, match="two rows"):
        AnalysisResult("linear_probe", doubled).plot()


def test_generalisation_is_told_of_one_head_and_not_of_their_mean():
    result = VERBS["generalisation_matrix"](mixed_store("head_out"))
    table = result.table
    here = table[(table["layer"] == 1) & (table["head"] == 2)]
    away = here[here["train_on"] != here["test_on"]]["estimate"]
    (finding,) = result.findings
    assert (finding.layer, finding.head, finding.estimate) == (1, 2, away.min())
    assert {number.name: number.value for number in finding.numbers}["mean elsewhere"] == away.mean()
    (cells,) = map(pd.DataFrame, values_of(result.plot()))
    for row in here.to_dict("records"):
        cell = cells[(cells["y"] == row["train_on"]) & (cells["x"] == row["test_on"])]
        assert cell["value"].item() == pytest.approx(row["estimate"], abs=1e-5)


def test_the_place_of_a_transfer_is_chosen_at_home():
    """Scores elsewhere are not chosen by themselves: raising them at one layer moves no choice."""
    result = VERBS["generalisation_matrix"](mixed_store("resid_post"))
    table = result.table.copy()
    away = (table["train_on"] != table["test_on"]) & (table["layer"] == 0)
    table.loc[away, ["estimate", "lo", "hi"]] = [1.0, 0.99, 1.0]
    assert replace(result, table=table).findings[0].layer == result.findings[0].layer != 0


def test_a_probe_that_reads_nothing_beats_nothing():
    result = lp.linear_probe(mixed_store("mlp_out", seed=2), label="w", **FEW)
    above = (result.table["p_familywise"].dropna() <= 0.05).any()
    leads = result.frames["against_baselines"].assign(lo=0.1, hi=0.3)
    told = AnalysisResult("linear_probe", result.table, frames={**result.frames, "against_baselines": leads})
    (finding,) = told.findings
    assert not above and finding.verdict == "not_found"
    assert [number.name for number in finding.numbers] == ["bag of words", "prompt length"]


def test_a_label_read_only_where_training_groups_did_not_say_is_undecided():
    result = lp.linear_probe(mixed_store("resid_post"), label="y", **FEW)
    chosen = int(result.frames["best_layer"]["layer"].iloc[0])
    table = result.table.copy()
    table.loc[table["layer"] == chosen, "p_familywise"] = 0.4
    finding = replace(result, table=table).findings[0]
    assert finding.verdict == "undecided" and finding.layer == chosen and chosen not in finding.layers
    assert finding.layers and f"layer {finding.layers[0]}" in finding.why


def test_the_site_that_leads_is_not_chosen_on_what_scores_it():
    result = lp.linear_probe(mixed_store("resid_post", "embed"), label="y", **FEW)
    best = result.frames["best_layer"].copy()
    best["inner_estimate"] = np.where(best["site"] == "embed", 0.99, 0.6)
    moved = replace(result, frames={**result.frames, "best_layer": best})
    assert [f.site for f in moved.findings if f.lead] == ["embed"]


def test_leads_keep_their_sign_where_less_is_better():
    result = lp.linear_probe(mixed_store("resid_post"), label="y", metrics=["log_loss"], **FEW)
    leads = result.frames["against_baselines"].set_index("reference")
    beyond = {f.claim.name: f for f in result.findings}.get("beyond_length")
    assert result.findings[0].verdict == "found" and beyond is not None
    assert beyond.estimate == -leads.loc["length", "estimate"]
    assert beyond.verdict == ("found" if leads.loc["length", "lo"] > 0 else "not_found")
    assert (beyond.hi < 0) == (beyond.verdict == "found")


def test_a_graded_label_that_words_explain_is_flagged():
    rng = np.random.default_rng(0)
    words = [f"w{k} " * 3 + f"n{row}" for row, k in enumerate(rng.integers(0, 4, 300))]
    grade = np.array([int(text[1]) for text in words]) + 0.8 * rng.normal(size=300)
    x = rng.normal(size=(1, 300, 6))
    x[0, :, 0] += [int(text[1]) for text in words]
    store = lp.from_arrays({"resid_post": x}, labels={"g": grade}, groups=np.arange(300), texts=words)
    finding = lp.linear_probe(store, label="g", method="ridge", **FEW).findings[0]
    assert finding.verdict == "found" and "no more than a bag of words" in finding.caveats[0]


def test_a_missing_interval_is_said_once():
    x = np.random.default_rng(0).normal(size=(1, 120, 6))
    store = lp.from_arrays(
        {"resid_post": x}, labels={"third": np.arange(120) % 3 == 0}, groups=np.arange(120)
    )
    told = str(
        lp.linear_probe(
            store, label="third", metrics=["balanced_accuracy"], strengths=[1e-12], **FEW
        ).summary()
    )
    assert "(no interval: " in told and told.count("no interval") == 1


def test_probes_that_did_not_converge_are_counted():
    result = lp.linear_probe(mixed_store("resid_post"), label="y", **FEW)
    table = result.table.assign(converged=result.table["layer"] != 0)
    (said,) = [c for c in replace(result, table=table).findings[0].caveats if "converged" in c]
    assert said.startswith("1 of 3 probes had not converged")


def test_a_memorising_probe_is_not_praised():
    rng = np.random.default_rng(1)
    n, types = 800, rng.integers(0, 40, 800)
    embedding = rng.normal(size=(40, 60))
    store = lp.from_arrays(
        {"resid_post": embedding[types][None]},
        labels={"tag": rng.integers(0, 2, n)},
        groups=np.arange(n) // 8,
        texts=[f"row {row}" for row in range(n)],
    )
    (finding,) = lp.selectivity(store, label="tag", types=types, n_controls=3, n_bootstrap=50).findings
    assert finding.verdict == "not_found" and finding.estimate < 0
