"""Pictures and sentences of probes show what the table says: every place by its name, nothing averaged."""

import numpy as np
import pytest
from chart_support import is_map, rows_of

import layerprobe as lp
from layerprobe.analyses.probes.linear_view import summarise
from layerprobe.analyses.result.analysis import AnalysisResult, tidy
from layerprobe.analyses.result.charts import to_svg
from layerprobe.analyses.result.panels import panels_of, place_name

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
}


CONVERTED = ("learning_curve", "selectivity")
"""Drawn in Vega-Lite; the others still with plotly."""


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("sites", SETS, ids="+".join)
def test_every_kind_of_site_can_be_told_and_drawn(sites, verb, tmp_path):
    result = VERBS[verb](mixed_store(*sites))
    text, figure = str(result.summary()), result.plot()
    assert "nan" not in text.lower() and "NA>" not in text and "None" not in text
    assert "<div>" in result._repr_html_()
    if verb in CONVERTED:
        maps = [rows for rows in rows_of(figure) if is_map(rows)]
        grids = [{(row["x"], row["y"]) for row in rows} for rows in maps]
        whole = all(len(grid) == 8 for grid in grids)
        assert "undefined" not in to_svg(figure)
    else:
        assert figure.data
        maps = [trace for trace in figure.data if trace.type == "heatmap"]
        whole = all(np.asarray(trace.z).shape == (2, 4) for trace in maps)
    back = lp.read_result(result.to_parquet(tmp_path / "r.parquet"))
    assert str(back.summary()) == text
    if "head_out" in sites and verb != "generalisation_matrix":
        assert maps and whole
        assert "head_out[1] head 2" in text
    if "final_norm" in sites:
        assert "final_norm" in text and "final_norm[" not in text


def test_maps_of_heads_hold_the_numbers_of_the_table():
    result = lp.linear_probe(mixed_store(), label=["y", "w"], **FEW)
    figure = result.plot()
    rows = result.table[result.table["metric"] == "auroc"]
    maps = [trace for trace in figure.data if trace.type == "heatmap"]
    titles = [note.text for note in figure.layout.annotations]
    assert titles == [
        f"{target}: {what}"
        for target in "yw"
        for what in ("resid_post, mlp_out", "embed, final_norm", "head_out by head", "q by head")
    ]
    wanted = [(t, s) for t in "yw" for s in ("head_out", "q")]
    assert len(maps) == len(wanted)
    for (target, site), drawn in zip(wanted, maps, strict=True):
        mine = rows[(rows["target"] == target) & (rows["site"] == site)]
        grid = mine.pivot(index="layer", columns="head", values="estimate")
        np.testing.assert_array_equal(np.asarray(drawn.z), grid.to_numpy())
    assert np.asarray(maps[0].text)[1, 2] == "•"  # above chance, and seen to be
    assert "head_out[1] head 2" in maps[0].customdata[1, 2]


def test_references_are_those_of_the_label_they_stand_behind():
    result = lp.linear_probe(mixed_store("resid_post", "embed"), label=["y", "w"], **FEW)
    rows = result.table[result.table["metric"] == "auroc"].set_index(["target", "site"])
    panels = {}
    for trace in result.plot().data:
        panels.setdefault((trace.xaxis, trace.name), []).append(trace)
    axes = {("y", "resid_post"): "x", ("y", "embed"): "x2", ("w", "resid_post"): "x3", ("w", "embed"): "x4"}
    for (target, site), axis in axes.items():
        for name, column in (("bag of words", "baseline_text"), ("prompt length", "baseline_length")):
            (line,) = panels[axis, name]
            assert set(line.y) == set(rows.loc[[(target, site)], column])
        (band,) = panels[axis, f"null (95 %) of {site}"]
        middle = rows.loc[[(target, site)], "null_mean"].to_numpy()
        half = len(middle) if site == "resid_post" else None
        drawn = np.asarray(band.y, dtype=float)
        np.testing.assert_allclose((drawn + drawn[::-1])[:half] / 2, middle)


def test_one_name_in_the_legend_for_lines_in_several_panels():
    shown = lp.linear_probe(mixed_store("resid_post"), label=["y", "w"], **FEW).plot().data
    named = [trace.name for trace in shown if trace.showlegend]
    assert sorted(named) == sorted({trace.name for trace in shown})


def test_panels_refuse_two_numbers_for_one_head():
    result = lp.linear_probe(mixed_store("head_out"), label="y", **FEW)
    doubled = tidy([*result.table.to_dict("records"), *result.table.to_dict("records")])
    with pytest.raises(ValueError, match="duplicate"):
        AnalysisResult("linear_probe", doubled).plot()


def test_places_are_named_with_all_they_have():
    rows = lp.linear_probe(mixed_store(), label="y", **FEW).table
    names = [place_name(row) for _, row in rows.iterrows()]
    assert {"embed", "resid_post[2]", "q[0] head 3"} <= set(names)
    parts = panels_of(rows[rows["metric"] == "auroc"])
    assert sum(len(panel.rows) for panel in parts) == (rows["metric"] == "auroc").sum()


def test_generalisation_is_told_of_one_head_and_not_of_their_mean():
    result = VERBS["generalisation_matrix"](mixed_store("head_out"))
    table = result.table
    here = table[(table["layer"] == 1) & (table["head"] == 2)]
    away = here[here["train_on"] != here["test_on"]]["estimate"].mean()
    assert "At head_out[1] head 2, where probes travel best, AUROC is" in result.summary()[0]
    assert f"{away:.3f} on others" in result.summary()[0]
    grid = here.pivot(index="train_on", columns="test_on", values="estimate")
    np.testing.assert_array_equal(np.asarray(result.plot().data[0].z), grid.to_numpy())


def test_a_probe_that_reads_nothing_beats_nothing():
    result = lp.linear_probe(mixed_store("mlp_out"), label="w", **FEW)
    above = (result.table["p_familywise"].dropna() <= 0.05).any()
    leads = result.frames["against_baselines"].assign(lo=0.1, hi=0.3)
    told = summarise(
        AnalysisResult("linear_probe", result.table, frames={**result.frames, "against_baselines": leads})
    )
    assert not above and len(told) == 3
    assert "beat" not in str(told) and "bag of words alone has AUROC" in str(told)


def test_a_graded_label_that_words_explain_is_flagged():
    rng = np.random.default_rng(0)
    words = [f"w{k} " * 3 + f"n{rng.integers(9)}" for k in rng.integers(0, 4, 300)]
    grade = np.array([int(text[1]) for text in words]) + 0.8 * rng.normal(size=300)
    x = rng.normal(size=(1, 300, 6))
    x[0, :, 0] += [int(text[1]) for text in words]
    store = lp.from_arrays({"resid_post": x}, labels={"g": grade}, groups=np.arange(300), texts=words)
    told = str(lp.linear_probe(store, label="g", method="ridge", **FEW).summary())
    assert "What it reads may be no more than bag of words." in told


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


def test_a_memorising_probe_is_not_praised():
    rng = np.random.default_rng(1)
    n, types = 800, rng.integers(0, 40, 800)
    embedding = rng.normal(size=(40, 60))
    store = lp.from_arrays(
        {"resid_post": embedding[types][None]},
        labels={"tag": rng.integers(0, 2, n)},
        groups=np.arange(n) // 8,
    )
    first = lp.selectivity(store, label="tag", types=types, n_controls=3, n_bootstrap=50).summary()[0]
    assert first.startswith("The one place probed does not read 'tag' better than random labels")
    assert "most selectively" not in first
