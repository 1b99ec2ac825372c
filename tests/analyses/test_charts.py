"""Every kind of picture: it can be saved, says what it shows, and no name in it is ever read as markup."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

import layerprobe as lp
from layerprobe.analyses.result.alt_text import describe, describe_cells
from layerprobe.analyses.result.charts import (
    Reference,
    forest,
    layer_curves,
    layer_map,
    matrix,
    notebook_bundle,
    save_figure,
    scatter,
    to_svg,
)
from layerprobe.analyses.result.curve_rows import spread_out
from layerprobe.analyses.result.saving import specification
from layerprobe.analyses.result.theme import colours, config, dark_colours, themed, with_models
from layerprobe.hooks.errors import LayerprobeError

HOSTILE = ("<a href=x>", "<think>", "a&b \"'", "datum.x || alert(1)", "${x}", "line\nbreak", "back\\slash\\")


def rows_of(models=("base", "instruct"), layers=8, subsets=("all",), sites=()):
    """Curves that rise to 1, with intervals, nulls and tests; single points for sites without layers."""
    rng = np.random.default_rng(0)
    rows = []
    for model in models:
        for subset in subsets:
            places = [("resid_post", layer) for layer in range(layers)] + [(site, pd.NA) for site in sites]
            for i, (site, layer) in enumerate(places):
                y = 0.5 + 0.4 * i / len(places) + rng.normal(0, 0.01)
                rows.append((model, subset, site, layer, y))
    frame = pd.DataFrame(rows, columns=["model", "subset", "site", "layer", "estimate"])
    y = frame["estimate"]
    frame = frame.assign(lo=y - 0.04, hi=y + 0.03, null_lo=0.43, null_hi=0.57, found=y > 0.6)
    return frame.assign(p_familywise=np.where(y > 0.6, 0.001, 0.4), layer=frame["layer"].astype("Int64"))


def values_of(spec):
    return spec["datasets"][spec["data"]["name"]]


def cells(names=("age", "faith", "gender")):
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {"layer": i, "head": j, "trained": a, "tested": b, "estimate": rng.uniform(), "found": i == j}
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
    )


CHARTS = {
    "curves": lambda: layer_curves(
        rows_of(sites=("embed", "final_norm")),
        y_title="AUROC",
        found="found",
        references=[Reference(0.5, "chance"), Reference(0.7, "bag of words")],
        untrusted=pd.DataFrame({"layer": [6, 7]}),
        title="A title",
    ),
    "panels": lambda: layer_curves(
        rows_of(subsets=("a", "b", "c")),
        y_title="AUROC",
        facet="subset",
        titles={"a": "first"},
        references=[Reference(pd.DataFrame({"subset": ["a", "b"], "value": [0.5, 0.6]}), "words")],
    ),
    "depth": lambda: layer_curves(
        pd.concat([rows_of(("small",), 4).assign(n_layers=4), rows_of(("large",), 9).assign(n_layers=9)]),
        y_title="AUROC",
    ),
    "log": lambda: layer_curves(
        rows_of().assign(
            n_train=lambda f: 10 * 2.0 ** f["layer"].astype(float), estimate=lambda f: f["hi"] ** 9
        ),
        x="n_train",
        y_title="loss",
        log=True,
        log_x=True,
    ),
    "numbered": lambda: layer_curves(
        rows_of(("base",)).assign(
            n_train=lambda f: f["layer"].astype(int) % 4, part=lambda f: f["layer"] // 4
        ),
        x="n_train",
        y_title="AUROC",
        colour="part",
    ),
    "map": lambda: layer_map(cells(), x="layer", y="head", value_title="logits", found="found"),
    "large map": lambda: layer_map(
        pd.DataFrame([{"layer": i, "head": j, "estimate": i - j} for i in range(20) for j in range(16)]),
        y="head",
        value_title="logits",
    ),
    "matrix": lambda: matrix(cells(), x="tested", y="trained", value_title="AUROC", found="found"),
    "forest": lambda: forest(
        rows_of(layers=1, subsets=("a", "b")), y="subset", colour="model", x_title="effect", found="found"
    ),
    "scatter": lambda: scatter(
        rows_of(), x="estimate", y="hi", x_title="one", y_title="two", colour="subset", hover=["model"]
    ),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_every_kind_is_saved_as_vectors_and_describes_itself(kind, tmp_path):
    chart = CHARTS[kind]()
    svg = to_svg(chart)
    ElementTree.fromstring(svg)  # well-formed
    assert "NaN" not in svg and "undefined" not in svg
    pdf = save_figure(chart, tmp_path / "a.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"FontFile" in pdf
    description = specification(chart)["description"]
    assert re.search(r"\d\.\d|points", description)
    json.dumps(specification(chart), allow_nan=False)


def test_marks_without_a_column_of_colours_are_painted():
    rows = rows_of(("m",), layers=1, subsets=("a", "b"))
    for chart in (
        forest(rows, y="subset", x_title="effect"),
        scatter(rows, x="estimate", y="hi", x_title="one", y_title="two"),
    ):
        assert to_svg(chart).count("#0072b2") + to_svg(chart).count("#44607a") >= 2


@pytest.mark.parametrize("ending", ["svg", "pdf", "png", "json", "html"])
def test_a_file_is_the_same_every_time(ending, tmp_path):
    first = save_figure(CHARTS["curves"](), tmp_path / f"a.{ending}").read_bytes()
    again = save_figure(CHARTS["curves"](), tmp_path / f"b.{ending}").read_bytes()
    assert first == again


def test_an_unknown_ending_or_folder_is_said_before_drawing(tmp_path):
    chart = CHARTS["map"]()
    with pytest.raises(LayerprobeError, match=r"name it \*\.svg"):
        save_figure(chart, tmp_path / "picture.gif")
    with pytest.raises(LayerprobeError, match="no folder"):
        save_figure(chart, tmp_path / "nowhere" / "a.svg")


def shown(svg):
    """Every text that the picture shows, as a reader sees it."""
    texts = []
    for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        texts.append(" ".join("".join(node.itertext()).split()))
    return texts


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(name):
    whole = " ".join(name.split())
    curves = layer_curves(
        rows_of((name, "other"), sites=(name,)),
        y_title=name,
        references=[Reference(0.5, name)],
        title=name,
    )
    svg = to_svg(curves)
    assert not re.search(r"<(a|think|b|script)[ >]", svg)
    texts = shown(svg)
    # its title, its vertical axis, the end of its curve, its reference and the site's tick
    assert sum(whole == text for text in texts) >= 4, texts
    panels = layer_curves(rows_of(("m", "n"), subsets=(name, "other")), y_title="y", facet="subset")
    assert whole in shown(to_svg(panels))
    assert (
        shown(to_svg(matrix(cells((name, "b")), x="tested", y="trained", value_title=name))).count(whole) >= 3
    )
    effects = forest(rows_of(layers=1, subsets=(name,)), y="subset", colour="model", x_title=name)
    assert shown(to_svg(effects)).count(whole) >= 2


def test_panels_wrap_at_four():
    for n, columns in ((2, 2), (4, 4), (5, 3), (6, 3), (8, 4), (12, 4)):
        frame = rows_of(("m",), layers=2, subsets=[f"s{i}" for i in range(n)])
        spec = specification(layer_curves(frame, y_title="y", facet="subset"))
        assert spec["columns"] == columns
        assert len({row["f"] for row in values_of(spec)}) == n


def test_rows_that_would_lie_on_one_another_are_refused():
    frame = pd.concat([rows_of().assign(site="a"), rows_of().assign(site="b")])
    with pytest.raises(LayerprobeError, match=r"differ in model, site.*pass colour="):
        layer_curves(frame, y_title="y")
    layer_curves(frame, y_title="y", dash="site")
    with pytest.raises(LayerprobeError, match="two rows for layer"):
        layer_map(pd.concat([cells(), cells()]), y="head", value_title="v")
    with pytest.raises(LayerprobeError, match="facet"):
        layer_curves(frame, y_title="y", facet="facet")
    with pytest.raises(LayerprobeError, match="no rows"):
        layer_curves(frame.iloc[:0], y_title="y")


def test_null_bands_come_from_quantiles_or_from_mean_and_sd():
    frame = rows_of(("m",), 1)
    row = values_of(specification(layer_curves(frame, y_title="y")))[0]
    assert (row["nlo"], row["nhi"]) == (0.43, 0.57)
    frame = frame.drop(columns=["null_lo", "null_hi"]).assign(null_mean=0.5, null_sd=0.1)
    row = values_of(specification(layer_curves(frame, y_title="y")))[0]
    assert (row["nlo"], row["nhi"]) == pytest.approx((0.304, 0.696))


def test_a_label_that_was_moved_aside_draws_no_second_level():
    close = [Reference(0.5, "chance"), Reference(0.501, "words")]
    chart = layer_curves(rows_of(("m",)), y_title="y", references=close)
    svg = ElementTree.fromstring(to_svg(chart))
    dashed = [node for node in svg.iter() if node.get("stroke-dasharray") == "4,3"]
    assert len(dashed) == 2


def test_relative_depth_ends_at_one_for_every_model():
    values = values_of(specification(CHARTS["depth"]()))
    for model in ("small", "large"):
        places = [row["x"] for row in values if row.get("s") == model and row["role"] == "curve"]
        assert (min(places), max(places)) == (0, 1)


def test_a_model_keeps_its_colour_in_a_picture_of_its_own():
    names = ["base", "instruct", "third"]
    spec = with_models(specification(layer_curves(rows_of(("instruct",)), y_title="y")), names)
    scales = re.findall(r'"range": \["(#\w+)"\]', json.dumps(spec))
    assert set(scales) == {colours(names)["instruct"]}
    other = specification(layer_curves(rows_of(("m",)).assign(part="base"), y_title="y", colour="part"))
    assert with_models(other, names) == other  # a subset called "base" is no model


def test_themes_differ_in_colours_only():
    chart = CHARTS["curves"]()
    light, dark = specification(chart, "light"), specification(chart, "dark")
    assert light["data"] == dark["data"]
    assert set(re.findall(r"#[0-9a-f]{6}\b", json.dumps({**light, "config": 0}))) <= set(dark_colours())
    assert config("dark")["background"] != config("light")["background"]
    named = {"title": "#ffffff", "data": {"values": [{"s": "#ffffff"}]}, "mark": {"color": "#ffffff"}}
    assert themed(named, "dark") | {"config": 0} == {
        **named,
        "mark": {"color": dark_colours()["#ffffff"]},
        "config": 0,
    }


def contrast(one, two):
    def light(colour):
        parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(one), light(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("kind", ["model", "other"])
def test_colours_stand_out_on_both_backgrounds(kind):
    names = [str(i) for i in range(8)]
    for colour in colours(names, kind).values():
        assert contrast(colour, "#ffffff") >= 3
        assert contrast(dark_colours()[colour], dark_colours()["#ffffff"]) >= 4.5
    assert not set(colours(names).values()) & set(colours(names, "other").values())


def test_a_notebook_gets_vega_lite_and_svg():
    shown_as = notebook_bundle(CHARTS["map"]())
    assert set(shown_as) == {"application/vnd.vegalite.v6+json", "image/svg+xml", "text/plain"}
    assert "v6" in shown_as["application/vnd.vegalite.v6+json"]["$schema"]
    assert "url" not in json.dumps(shown_as["application/vnd.vegalite.v6+json"])


def test_descriptions_tell_the_shape():
    def told(*y):
        return describe(pd.DataFrame({"layer": range(len(y)), "estimate": y}))

    assert told(0.9, 0.5) == "falls from 0.900 at layer 0 to 0.500 at layer 1"
    assert (
        told(0.5, 0.9, 0.6)
        == "rises from 0.500 at layer 0 to 0.900 at layer 1, then falls to 0.600 at layer 2"
    )
    assert told(0.5) == "0.500 at layer 0"
    assert told(0.5, np.nan) == "0.500 at layer 0"
    assert told(np.nan) == "no values"
    assert (
        describe_cells(cells().assign(estimate=0.5), x="layer", y="head", value="estimate")
        == "0.500 everywhere"
    )
    many = pd.DataFrame({"model": [str(i) for i in range(20)], "layer": 0, "estimate": 0.5})
    assert describe(many).endswith("and 12 more curves")


def test_labels_are_moved_apart_as_little_as_needed():
    rng = np.random.default_rng(3)
    for _ in range(50):
        places = list(rng.uniform(0, 100, rng.integers(1, 7)))
        moved = spread_out(places, 12.0, 0.0, 100.0)
        ordered = np.array(moved)[np.argsort(places)]
        assert (np.diff(ordered) >= 12 - 1e-9).all() or len(places) * 12 > 100
        assert ordered[0] >= -1e-9 and ordered[-1] <= 100 + 1e-9
    assert spread_out([10, 50], 12, 0, 100) == [10, 50]


def test_a_picture_shows_itself_without_a_network():
    """In a notebook: the specification with an SVG beside it, no script to fetch; copies do as well."""
    x = np.random.default_rng(0).normal(size=(2, 40, 4))
    store = lp.from_arrays({"resid_post": x}, labels={"y": np.arange(40) % 2})
    picture = lp.separation(store, label="y", groups=None, n_permutations=20, n_bootstrap=10).plot()
    for shown in (picture, picture.properties(title="another")):
        bundle = shown._repr_mimebundle_(None, None)
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        assert "image/svg+xml" in bundle and "text/html" not in bundle
        assert "http" not in bundle["image/svg+xml"].replace("http://www.w3.org", "")
