"""The command line: it answers at once; a mistake gets one line, code 2, and leaves nothing."""

import json
import subprocess
import sys

import pytest
from small_study import study_mapping, write_prompts
from tiny_models import tiny_model

from layerprobe.probe.cli.commands import model_of, names
from layerprobe.probe.cli.entry import main
from layerprobe.probe.study.toml import check_study, study_toml

HEAVY = [
    "torch",
    "transformers",
    "transformer_lens",
    "nnsight",
    "plotly",
    "datasets",
    "pandas",
    "sklearn",
    "scipy",
    "numpy",
    "jinja2",
    "h5py",
]


def run(capsys, *args):
    """Exit code, stdout, stderr of one command."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    out = capsys.readouterr()
    return stop.value.code or 0, out.out, out.err


def one_line(err):
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("layerprobe: ")
    return lines[0]


def test_nothing_heavy_is_imported_before_a_command_is_understood():
    code = (
        "import sys, layerprobe, layerprobe.probe.cli.entry\n"
        "try: layerprobe.probe.cli.entry.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "demo" in done.stdout


@pytest.mark.parametrize("name", sorted(names()))
def test_every_command_explains_itself(capsys, name):
    code, out, err = run(capsys, name, "--help")
    assert code == 0
    assert "usage: layerprobe" in out
    assert err == ""


def test_the_commands_are_those_of_the_contract():
    wanted = [
        "demo",
        "run",
        "capture",
        "info",
        "probe",
        "separate",
        "suppress",
        "compare",
        "report",
        "plan",
        "verify",
        "merge",
    ]
    assert set(wanted) <= set(names())


def test_an_option_that_an_analysis_does_not_take_is_not_offered(capsys):
    drift = run(capsys, "drift", "--help")[1]
    assert "--third" in drift and "--n-bootstrap" in drift
    assert "--n-permutations" not in drift and "--device" not in drift
    assert "--group" not in run(capsys, "refusal-direction", "--help")[1]
    selectivity = run(capsys, "selectivity", "--help")[1]
    assert "--class-weight" in selectivity and "--n-permutations" not in selectivity  # it draws none


def test_former_names_of_analyses_are_commands_too(capsys):
    for word in ("alignment_quality", "alignment-quality", "linear_probe", "generalisation_matrix"):
        code, out, _ = run(capsys, word, "--help")
        assert code == 0 and "--label" in out


def test_suppress_has_its_defaults_and_another_name_for_by():
    fields = model_of("suppress").model_fields
    assert (fields["target"].default, fields["foil"].default) == ("answer", "foil")
    assert {"label", "by"} <= set(fields)


@pytest.mark.parametrize(
    "args, says",
    [
        ([], "Expected one of"),
        (["prob"], "did you mean 'probe'?"),
        (["probe", "a.h5", "--lable", "y", "--out", "o"], "did you mean '--label'?"),
        (["probe", "a.h5", "--out", "o"], "probe needs --label; see: layerprobe probe --help"),
        (["probe", "--label", "y", "a.h5", "--out", "o"], "store first: layerprobe probe FILE.h5 --label"),
        (["probe", "a.h5", "--label", "y", "--out", "o", "--seed", "hi"], "invalid literal for int()"),
        (["capture", "--model", "m", "--prompts", "p", "--out", "o", "--engine", "jax"], "huggingface"),
        (["drift", "a.h5", "--n-permutations", "9"], "drift has no option '--n-permutations'"),
        (["compare", "a.h5", "--label", "y", "--out", "o"], "NAME=STORE"),
        (["run", "nowhere.toml", "--out", "o"], "no study file"),
        (["report", "nowhere"], "no results in"),
        (["info"], "info needs a store"),
        (["verify"], "verify needs a store"),
        (["merge", "--out", "o"], "merge needs the shards"),
    ],
)
def test_a_mistake_in_the_options_is_one_line_and_code_2(capsys, tmp_path, monkeypatch, args, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *args)
    assert code == 2
    assert says in one_line(err)
    assert out == ""
    assert not list(tmp_path.iterdir())


def broken_studies(folder):
    """name -> (change to the study, what the error must say)."""
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    table = lambda d, key, **update: {**d, key: {**d[key], **update}}
    return {
        "wrong path": (lambda d: table(d, "prompts", file=str(folder / "none.jsonl")), "no prompts at"),
        "wrong column": (lambda d: table(d, "prompts", text="promt"), "did you mean 'prompt'?"),
        "wrong label": (
            lambda d: {**d, "analysis": [{"kind": "separation", "label": "knd"}]},
            "did you mean 'kind'?",
        ),
        "misspelt answer": (
            lambda d: {**d, "analysis": [{"kind": "suppression", "target": "anser", "foil": "no"}]},
            "did you mean 'answer'?",
        ),
        "unknown site": (lambda d: table(d, "capture", sites=["resid_pots"]), "resid_pots"),
        "layer out of range": (lambda d: table(d, "capture", sites=["resid_post[7]"]), "resid_post[7]"),
        "no such part": (lambda d: table(d, "capture", sites=["router_logits"]), "router"),
        "one class": (
            lambda d: {**d, "analysis": [{"kind": "linear_probe", "label": "one"}]},
            "one class 'same'",
        ),
        "one class left": (
            lambda d: {
                **d,
                "analysis": [{"kind": "linear_probe", "label": "kind", "where": {"kind": "late"}}],
            },
            "one class 'late'",
        ),
        "no such rows": (
            lambda d: {**d, "analysis": [{"kind": "linear_probe", "label": "kind", "where": {"topic": "z"}}]},
            "topic is one of a, b",
        ),
        "no groups": (lambda d: table(d, "prompts", group=None), 'group = "none"'),
        "no model": (lambda d: table(d, "models", base={"source": str(empty)}), "not a model folder"),
        "no folder": (lambda d: table(d, "models", base={"source": str(folder / "gone")}), "gone"),
        "no shipped model": (lambda d: table(d, "models", base={"source": "demo:big"}), "demo:base"),
        "too long": (lambda d: d, "tokens"),
    }


BROKEN = (
    *("wrong path", "wrong column", "wrong label", "misspelt answer", "unknown site", "layer out of range"),
    *("no such part", "one class", "one class left", "no such rows", "no groups", "no model", "no folder"),
    *("no shipped model", "too long"),
)


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_study_is_refused_before_anything_is_written(capsys, tmp_path, name):
    change, says = broken_studies(tmp_path)[name]
    study = change(study_mapping(tmp_path))
    if name == "too long":
        with open(study["prompts"]["file"], "a", encoding="utf-8") as file:
            row = {
                "id": "long",
                "prompt": "the cat was late . " * 40,
                "kind": "late",
                "topic": "a",
                "one": "same",
            }
            file.write(json.dumps({**row, "answer": "yes", "foil": "no", "group": "g0"}) + "\n")
    prompts = {k: v for k, v in study["prompts"].items() if v is not None}
    file = tmp_path / "study.toml"
    file.write_text(study_toml(check_study({**study, "prompts": prompts}, "study")), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    code, out, err = run(capsys, "run", file, "--out", tmp_path / "out")
    assert code == 2, err
    assert says in one_line(err)
    assert out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_capture_info_probe_and_report_by_hand(capsys, tmp_path):
    """The commands that take a store, one after the other, as a user would type them."""
    prompts, store, out = write_prompts(tmp_path), tmp_path / "a.h5", tmp_path / "out"
    code, said, _ = run(
        capsys, "capture", "--model", tiny_model("llama"), "--prompts", prompts, "--text", "prompt",
        "--labels", "kind", "topic", "--group", "group", "--sites", "resid_post", "lens", "--tokens", "last",
        "--lens-tokens", "answer", "foil", "--out", store, "--quiet",
    )  # fmt: skip
    assert code == 0
    assert "3 layers x 64 rows x 32" in said
    assert "resid_post" in run(capsys, "info", store)[1]
    few = ["--n-permutations", 20, "--n-bootstrap", 20, "--out", out, "--quiet"]
    assert run(capsys, "probe", store, "--label", "kind", *few)[0] == 0
    assert run(capsys, "separate", store, "--label", "kind", "--indices", "silhouette", *few)[0] == 0
    assert run(capsys, "suppress", store, "--label", "topic", *few)[0] == 0
    code, said, _ = run(capsys, "compare", f"base={store}", f"same={store}", "--label", "kind", *few)
    assert code == 0
    assert len(list((out / "results").glob("*.parquet"))) >= 4
    where = ["--where", "topic=a"]
    code, said, _ = run(capsys, "probe", store, "--label", "kind", "--permute", "within", *where, *few)
    assert code == 0
    code, said, _ = run(capsys, "aqi", store, "--label", "kind", *few)  # one model needs no name
    assert code == 0
    code, said, _ = run(capsys, "report", out)
    assert code == 0
    assert said.splitlines()[-1] == str(out / "report.html")
    code, _, err = run(capsys, "probe", store, "--label", "mood", *few)
    assert code == 2
    assert "mood" in one_line(err)
    code, _, err = run(capsys, "probe", tmp_path / "none.h5", "--label", "kind", *few)
    assert code == 2
    one_line(err)


def test_analyses_that_run_the_model_find_it_where_the_capture_did(capsys, tmp_path):
    prompts, store, out = write_prompts(tmp_path), tmp_path / "a.h5", tmp_path / "out"
    code, _, err = run(
        capsys, "capture", "--model", tiny_model("llama"), "--prompts", prompts, "--labels", "kind", "topic",
        "score", "--group", "group", "--sites", "resid_post", "lens", "--lens-tokens", "answer", "foil",
        "--out", store, "--quiet",
    )  # fmt: skip
    assert code == 0, err
    draws = ["--n-permutations", 20, "--n-bootstrap", 20, "--out", out, "--quiet"]
    few = ["--limit", 16, *draws]
    code, _, err = run(capsys, "attribution", store, "--by", "topic", *few[:2], *few[4:])
    assert code == 0, err
    code, _, err = run(capsys, "ablation", store, "--model", tiny_model("llama"), *few)
    assert code == 0, err
    code, _, err = run(capsys, "patching", store, "--source", tiny_model("llama", seed=1), *few)
    assert code == 0, err
    code, _, err = run(capsys, "score-heads", store, "--scores", "score", *draws)
    assert code == 0, err
    code, _, err = run(capsys, "probe", store, "--label", "kind", "topic", *draws)
    assert code == 0, err
    results = json.loads((out / "results/manifest.json").read_text())["results"].values()
    kinds = [entry["options"]["kind"] for entry in results]
    assert kinds == ["attribution", "ablation", "patching", "score_heads", "linear_probe"]
    assert run(capsys, "report", out)[0] == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Which scores can be read off?" in page and "Can “kind, topic” be read off?" in page
    code, _, err = run(capsys, "attribution", store, "--model", tmp_path / "gone", *few[:2], *few[4:])
    assert code == 2
    assert "gone" in one_line(err)
    code, _, err = run(capsys, "nested-cv", store, "--label", "kind", *draws)
    assert code == 2
    assert "no option '--n-permutations'" in one_line(err)
