"""Every public analysis is a kind of study and a command; options are the function's own; sections speak."""

import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_study import study_mapping

import layerprobe as lp
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.probes.token_pooling import POOLS
from layerprobe.analyses.result.catalogue import listed, name_of
from layerprobe.analyses.result.registry import find
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.cli.commands import names
from layerprobe.probe.study.calls import result_parts
from layerprobe.probe.study.checks import _check_structure
from layerprobe.probe.study.option_models import options_of, table_of

FEW = {"n_permutations": 20, "n_bootstrap": 20}
# what is no analysis of stores: parts of others, files, edits, arrays alone
NO_KIND = {
    "read_result",
    "AnalysisResult",
    "online_codelength",
    "reward_head",
    "bbq_pairs",
    "pairs_from_table",
}
NO_KIND |= {"known_pairs", "selected_gap", "ablate_everywhere"}


def test_every_public_analysis_is_a_kind():
    homes = {name: str(getattr(getattr(lp, name), "__module__", "")) for name in lp.__all__}
    public = {name for name, home in homes.items() if home.startswith("layerprobe.analyses.")} - NO_KIND
    assert len(public) > 20
    assert public <= set(listed())


@pytest.mark.parametrize("kind", sorted(listed()))
def test_options_are_those_of_the_function(kind):
    options = options_of(kind)
    call = options.analysis.call
    parameters = inspect.signature(call).parameters
    passed_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if not passed_on:
        assert {"groups" if name == "group" else name for name in options.reads} <= set(parameters)
    needed = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY and p.default is p.empty}
    assert needed - {"model"} <= set(options.model_fields)
    assert listed()[kind].command in names()
    for name, field in options.model_fields.items():
        assert field.description, f"{kind}: nothing is said of {name}"


def test_the_page_on_studies_lists_every_kind_and_no_option_that_is_not():
    page = (Path(__file__).parents[2] / "docs/study_file.md").read_text("utf-8").partition("| kind |")[2]
    rows = dict(re.findall(r"^\| `(\w+)`(?: \(also `\w+`\))? \| (.*) \| \[", page, flags=re.M))
    assert set(rows) == set(listed())
    for kind, said in rows.items():
        shown = re.sub(r"\([^)]*\)|;[^|]*|as `\w+`( but `\w+`)?", "", said)  # values in brackets, remarks
        unknown = set(re.findall(r"`(\w+)`", shown)) - set(table_of(kind).model_fields)
        assert not unknown, kind


def test_what_was_not_said_is_left_to_the_analysis():
    asked = options_of("linear_probe")(label="y", layers=3, held_out="test", group="none", seed=0)
    assert asked.call_options() == {"label": "y", "layers": [3], "held_out": "test", "groups": None}
    assert options_of("patching")().option_columns() == ("role",)
    assert options_of("patching")(source="base").option_columns() == ()


@pytest.mark.parametrize(
    "kind, options, name",
    [
        ("linear_probe", {"label": ["a", "b"], "method": "ridge"}, "a_b-ridge"),
        ("nested_cv", {"label": "a", "where": {"c": "x"}}, "a-c_x"),
        ("contrast_probe", {"label": "a", "side": "s", "pair": "p"}, "a-ccs"),
        ("patching", {}, "answer-foil-contrast"),
        ("causal", {"source": "base"}, "answer-foil-base"),
        ("compare", {"label": "a", "target": "t", "foil": "f", "by": "b"}, "a-t-f-b"),
        ("generalisation", {"label": "a", "across": "d"}, "a-d"),
    ],
)
def test_results_are_told_apart_by_what_was_asked(kind, options, name):
    assert "-".join(result_parts(options_of(kind)(**options))) == name


def test_the_methods_offered_are_those_there_are():
    assert set(options_of("linear_probe").model_fields["method"].annotation.__args__) == set(METHODS)
    assert set(options_of("token_probe").model_fields["method"].annotation.__args__) == set(POOLS)


ANALYSES = [
    {"kind": "nested_cv", "label": "kind", "repeats": 2},
    {"kind": "preferences", "dimensions": ["kind", "mood"], **FEW},
    {"kind": "score_heads", "scores": "score", "layers": [0, 2], "device": "cpu", **FEW},
    {"kind": "contrast_probe", "label": "kind", "side": "kind", "pair": "statement", "layers": 1, **FEW},
    {"kind": "learning_curve", "label": "kind", "n_draws": 1, "layers": [1]},
    {"kind": "leave_one_domain_out", "label": "kind", "domain": "half", "models": ["base"], "layers": [1]},
    {"kind": "readout", "top_k": 3},
]


@pytest.fixture(scope="module")
def mapping(tmp_path_factory):
    asked = study_mapping(tmp_path_factory.mktemp("kinds"))
    return {**asked, "capture": {"sites": ["resid_post"]}, "analysis": ANALYSES}


@pytest.fixture(scope="module")
def run(mapping, tmp_path_factory):
    return lp.run_study(mapping, out=tmp_path_factory.mktemp("out"), progress=False)


def test_each_is_computed_and_has_its_section(run):
    assert run.failures == {}
    assert len(run.results) == 2 * 4 + 2 + 1 + 1
    report = json.loads((run.out / "results.json").read_text())
    sections = {part["kind"]: part for part in report["sections"]}
    assert set(sections) == {table_of(name_of(item["kind"])).analysis.kind for item in ANALYSES}
    for kind, part in sections.items():
        assert part["tables"], kind
        assert bool(part["figures"]) == (find(kind).picture is not None), kind
        assert not [note for note in part["notes"] if "could not be made" in note], part["notes"]
    methods = " ".join(note["text"] for note in report["methods"])
    assert "Nested cross-validation" in methods and "Contrast pairs" in methods


def test_what_can_be_read_and_what_cannot(run):
    table = run.results["preference_dimensions-kind_mood-base"].table
    smallest = table.groupby("target")["p_familywise"].min()
    assert smallest["kind"] <= 0.05 < smallest["mood"]


def test_sites_without_layers_and_heads_alone_make_a_report_too(mapping, tmp_path):
    norm = {"sites": "final_norm", "label": "kind"}
    asked = [
        {"kind": "linear_probe", **norm, **FEW},
        {"kind": "nested_cv", "repeats": 1, **norm},
        {"kind": "separation", "indices": "silhouette", **norm, **FEW},
        {"kind": "preferences", "sites": "final_norm", "dimensions": ["kind", "mood"], **FEW},
        {"kind": "linear_probe", "label": "topic", "sites": "head_out", "layers": 1, **FEW},
    ]
    models = {"base": mapping["models"]["base"]}
    capture = {"sites": ["final_norm", "head_out[1]"]}
    study = {**mapping, "models": models, "capture": capture, "analysis": asked}
    run = lp.run_study(study, out=tmp_path, progress=False)
    assert run.failures == {}
    sections = json.loads((tmp_path / "results.json").read_text())["sections"]
    assert len(sections) == 5
    assert all(part["tables"] and part["sentences"] for part in sections)
    assert not [note for part in sections for note in part["notes"] if "could not be made" in note]
    assert "<NA>" not in run.report.read_text(encoding="utf-8").partition('id="figures"')[0]


@pytest.mark.parametrize(
    "item, says",
    [
        ({"kind": "preferences", "dimensions": ["kind", "mod"]}, "did you mean 'mood'?"),
        ({"kind": "preference", "dimensions": ["kind"]}, "did you mean 'preferences'?"),
        ({"kind": "preferences", "dimension": ["kind"]}, "did you mean 'dimensions'?"),
        ({"kind": "nested_cv", "label": "kind", "method": "logistc"}, "did you mean 'logistic'?"),
        ({"kind": "nested_cv", "label": "kind", "n_permutations": 3}, "no option 'n_permutations'"),
        ({"kind": "score_heads", "scores": ["kind"]}, "scores are numbers"),
        ({"kind": "linear_probe", "label": "kind", "sites": "resid_pots"}, "did you mean 'resid_post'?"),
        ({"kind": "linear_probe", "label": "kind", "positive": "lat"}, "did you mean 'late'?"),
        ({"kind": "token_probe", "label": "kind"}, 'tokens = "all"'),
        ({"kind": "contrast_probe", "label": "kind", "side": "kind"}, "[prompts] pair"),
        ({"kind": "linear_probe", "label": "kind", "device": "cudo"}, "expected 'auto', 'cpu', 'cuda'"),
        ({"kind": "linear_probe", "label": "kind", "device": "cuda:99"}, "CUDA devices"),
        ({"kind": "two_by_two"}, "WEIGHTS-TEMPLATE"),
        ({"kind": "reward_decomposition", "dimensions": ["kind"]}, "'final_norm' is not captured"),
    ],
)
def test_a_mistake_is_answered_before_anything_is_done(mapping, tmp_path, item, says):
    with pytest.raises(LayerprobeError) as raised:
        lp.run_study({**mapping, "analysis": [item]}, out=tmp_path / "out", progress=False)
    assert says in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_label_with_no_fair_null_is_said_before_the_capture():
    labels = {"y": np.array(["a", "a", "a", "b"]), "g": np.array([1, 1, 2, 2])}
    prompts = SimpleNamespace(groups=np.array([1, 1, 2, 2]), labels=labels)
    everything = np.ones(4, dtype=bool)
    for asked in ({}, {"group": "g"}):
        item = table_of("separation")(label="y", **asked)
        with pytest.raises(LayerprobeError, match='permute = "within"'):
            _check_structure(item, prompts, everything)
    for fine in ({"permute": "within"}, {"group": "none"}, {"n_permutations": 0}):
        _check_structure(table_of("separation")(label="y", **fine), prompts, everything)
    _check_structure(table_of("separation")(label="y"), prompts, np.array([True, True, False, False]))
    _check_structure(
        table_of("linear_probe")(label="y"), prompts, everything
    )  # leaves p-values out, and says so


def test_domains_are_told_apart_by_a_column(run):
    across = find("generalisation_matrix").call
    store = run.stores["base"]
    table = across(store, label="kind", across="half", layers=[1], n_bootstrap=20).table
    assert set(zip(table["train_on"], table["test_on"], strict=True)) == {
        (a, b) for a in ("one", "two") for b in ("one", "two")
    }
    labels = {"kind": list("abab"), "d": ["x"] * 4}
    only = lp.from_arrays({"resid_post": np.zeros((1, 4, 2))}, labels=labels)
    with pytest.raises(LayerprobeError, match="has the one value 'x'"):
        across(only, label="kind", across="d")
