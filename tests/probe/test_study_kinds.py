"""Every public analysis is a kind of study and a command; options are the function's own; sections speak."""

import inspect
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from small_study import study_mapping

import layerprobe as lp
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.probes.token_pooling import POOLS
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.cli.commands import COMMANDS
from layerprobe.probe.study.calls_of import accepted_by, function_of
from layerprobe.probe.study.checks import _check_structure
from layerprobe.probe.study.kinds import KINDS, TABLES
from layerprobe.probe.study.options_probes import ProbeOptions, TokenProbeOptions

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
COMMON = {"kind", "models", "group", "where", "n_permutations", "n_bootstrap"}


def test_every_public_analysis_is_a_kind():
    public = {n for n, home in lp._HOME.items() if home.startswith("analyses.")} - NO_KIND
    called = {kind.function.rpartition(":")[2] for kind in KINDS.values()}
    renamed = {"generalisation_matrix": "generalisation", "mean_difference_readout": "readout"}
    assert {renamed.get(name, name) for name in public} <= called


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_options_are_the_arguments_of_the_function(kind):
    asked = set(TABLES[kind].model_fields) - COMMON
    assert asked <= accepted_by(kind), asked - accepted_by(kind)
    needed = {
        name
        for name, p in inspect.signature(function_of(kind)).parameters.items()
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty
    }
    assert needed - {"model"} <= set(TABLES[kind].model_fields)
    assert KINDS[kind].command in COMMANDS


def test_the_methods_offered_are_those_there_are():
    assert set(ProbeOptions.model_fields["method"].annotation.__args__) == set(METHODS)
    assert set(TokenProbeOptions.model_fields["method"].annotation.__args__) == set(POOLS)


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


def test_each_is_computed_and_shown_with_figure_table_and_sentences(run):
    assert run.failures == {}
    report = json.loads((run.out / "results.json").read_text())
    sections = {part["title"]: part for part in report["sections"]}
    for title in (
        "How well would a probe of “kind” do?",
        "Which preference dimensions can be read?",
        "Can the scores be read?",
        "Can “kind” be read from pairs of statements, without its labels?",
        "How much data does a probe of “kind” need?: base",
        "Does a probe of “kind” hold on a half it has not seen?",
        "Which words does the difference point to?",
    ):
        part = sections[title]
        assert part["figures"] and part["tables"] and part["sentences"], title
        assert not part["notes"], part["notes"]
    methods = " ".join(note["text"] for note in report["methods"])
    assert "Nested cross-validation" in methods and "Contrast pairs" in methods


def test_labels_that_cannot_be_read_are_said_first(run):
    said = next(line for line in run.findings().splitlines() if line.startswith("Preference dimensions"))
    for model in re.findall(r"(base|tuned) ([^|]*)", said):
        assert "not above chance" in model[1].split(";")[0]
        assert "mood" in model[1].split(";")[0]
    read = next(line for line in run.findings().splitlines() if line.startswith("Score heads"))
    assert "score R² 0." in read


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
    assert " at final_norm" in run.findings()
    sections = json.loads((tmp_path / "results.json").read_text())["sections"]
    assert len(sections) == 5
    assert all(part["tables"] and part["sentences"] and not part["notes"] for part in sections)
    assert "<NA>" not in run.report.read_text(encoding="utf-8").partition('id="figures"')[0]


@pytest.mark.parametrize(
    "item, says",
    [
        ({"kind": "preferences", "dimensions": ["kind", "mod"]}, "did you mean 'mood'?"),
        ({"kind": "preference", "dimensions": ["kind"]}, "did you mean 'preferences'?"),
        ({"kind": "preferences", "dimension": ["kind"]}, "did you mean 'dimensions'?"),
        ({"kind": "nested_cv", "label": "kind", "method": "logistc"}, "did you mean 'logistic'?"),
        ({"kind": "nested_cv", "label": "kind", "n_permutations": 3}, "leave n_permutations out"),
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
        item = TABLES["separation"](label="y", **asked)
        with pytest.raises(LayerprobeError, match='permute = "within"'):
            _check_structure(item, prompts, everything)
    for fine in ({"permute": "within"}, {"group": "none"}, {"n_permutations": 0}):
        _check_structure(TABLES["separation"](label="y", **fine), prompts, everything)
    _check_structure(TABLES["separation"](label="y"), prompts, np.array([True, True, False, False]))
    _check_structure(
        TABLES["linear_probe"](label="y"), prompts, everything
    )  # leaves p-values out, and says so


def test_domains_are_told_apart_by_a_column(run):
    from layerprobe.probe.study.calls import generalisation

    store = run.stores["base"]
    table = generalisation(store, label="kind", across="half", layers=[1], n_bootstrap=20).table
    assert set(zip(table["train_on"], table["test_on"], strict=True)) == {
        (a, b) for a in ("one", "two") for b in ("one", "two")
    }
    labels = {"kind": list("abab"), "d": ["x"] * 4}
    only = lp.from_arrays({"resid_post": np.zeros((1, 4, 2))}, labels=labels)
    with pytest.raises(LayerprobeError, match="has the one value 'x'"):
        generalisation(only, label="kind", across="d")
