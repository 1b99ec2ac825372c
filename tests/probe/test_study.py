"""A study from models to report: what is there is kept, what changed is redone."""

import pytest
from small_study import study_mapping

import layerprobe as lp
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.study.toml import read_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def mapping(folder):
    return study_mapping(folder)


@pytest.fixture(scope="module")
def first(folder, mapping):
    return lp.run_study(mapping, out=folder / "out", progress=False)


def times(folder):
    return {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("*") if p.suffix in (".h5", ".parquet")}


def test_everything_is_there(folder, first):
    out = folder / "out"
    assert first.report == out / "report.html"
    assert (out / "results.json").is_file()
    assert (out / "study.toml").is_file()
    assert len(list((out / "activations").glob("*.h5"))) == 2
    assert set(first.stores) == {"base", "tuned"}
    assert {r.kind for r in first.results.values()} == {
        "linear_probe",
        "separation",
        "suppression",
        "compare",
    }
    assert len(first.results) == 7
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]


def test_tables_name_the_models_as_the_study_does(first):
    for result in first.results.values():
        assert set(result.table["model"].dropna()) <= {"base", "tuned"}


def test_the_second_run_redoes_nothing(folder, mapping, first):
    before = times(folder)
    page = first.report.read_bytes()
    again = lp.run_study(mapping, out=folder / "out", progress=False)
    assert again.redone == ()
    assert times(folder) == before
    assert again.report.read_bytes() == page


def test_only_what_changed_is_redone(folder, mapping, first):
    out = folder / "out"
    kept = first.stores["base"].path
    changed = {**mapping, "analysis": [{**mapping["analysis"][0], "seed": 7}, *mapping["analysis"][1:]]}
    again = lp.run_study(changed, out=out, progress=False)
    assert again.redone == ("linear_probe-kind-base", "linear_probe-kind-tuned")
    gone = next((out / "results").glob("separation-kind-tuned.parquet"))
    gone.write_bytes(b"damaged")
    again = lp.run_study(changed, out=out, progress=False)
    assert again.redone == ("separation-kind-tuned",)
    assert again.stores["base"].path == kept
    back = lp.run_study(mapping, out=out, progress=False)
    assert back.redone == ("linear_probe-kind-base", "linear_probe-kind-tuned")


def test_a_changed_capture_goes_to_a_new_file_and_the_finished_one_stays(tmp_path, mapping):
    small = {**mapping, "models": {"base": mapping["models"]["base"]}, "analysis": mapping["analysis"][1:2]}
    first = lp.run_study(small, out=tmp_path, progress=False)
    other = {**small, "capture": {"sites": ["resid_post[1]"]}}
    second = lp.run_study(other, out=tmp_path, progress=False)
    assert first.stores["base"].path != second.stores["base"].path
    assert first.stores["base"].path.is_file()
    assert second.stores["base"].layers("resid_post") == (1,)


def test_a_study_made_again_from_what_it_left(folder, first):
    study = read_study(folder / "out" / "study.toml")
    again = lp.run_study(study, out=folder / "out", progress=False)
    assert again.redone == ()


def test_where_looks_at_some_rows(tmp_path, mapping):
    item = {**mapping["analysis"][1], "where": {"topic": "a"}}
    small = {**mapping, "models": {"base": mapping["models"]["base"]}, "analysis": [item]}
    run = lp.run_study(small, out=tmp_path, progress=False)
    table = next(iter(run.results.values())).table
    assert set(table["n"]) == {32}


def test_an_answer_may_be_said_literally(tmp_path, mapping):
    item = {
        "kind": "suppression",
        "target": "answer",
        "foil": "unknown",
        "n_permutations": 20,
        "n_bootstrap": 20,
    }
    small = {**mapping, "models": {"base": mapping["models"]["base"]}, "capture": {}, "analysis": [item]}
    run = lp.run_study(small, out=tmp_path, progress=False)
    assert run.stores["base"].lens.columns == ("answer", "unknown")
    assert "suppression-answer-unknown-base" in run.results


def test_out_that_is_a_file_is_refused(tmp_path, mapping):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(LayerprobeError, match="is a file"):
        lp.run_study(mapping, out=tmp_path / "x", progress=False)
    assert (tmp_path / "x").read_text() == "mine"
