"""The exercise of CONTRIBUTING.md: one file of a package of its own is an analysis everywhere."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from small_study import study_mapping

import layerprobe as lp
from layerprobe.analyses.result import catalogue, registry
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.cli import commands
from layerprobe.probe.cli.entry import main

FILE = Path(__file__).with_name("activation_norm.py")


def forget():
    """What was read of packages so far."""
    catalogue.listed.cache_clear()
    commands.model_of.cache_clear()


def package(folder, module, entry):
    """A distribution as pip leaves it: metadata that names a module under `layerprobe.analyses`."""
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{catalogue.ENTRY_POINTS}]\n{entry} = {module}\n")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The exercise as somebody's package `norms_of_mine`."""
    folder = package(tmp_path / "site", "norms_of_mine", "norms")
    shutil.copy(FILE, folder / "norms_of_mine.py")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    forget()
    yield importlib.import_module("norms_of_mine").activation_norm
    registry._ANALYSES.pop("activation_norm")
    del sys.modules["norms_of_mine"]
    monkeypatch.undo()
    forget()


def store(shift, *, n=240, seed=0):
    rng = np.random.default_rng(seed)
    y = np.tile(["a", "b"], n // 2)
    x = rng.normal(size=(2, n, 6))
    x[1, y == "b"] *= 1 + shift
    return lp.from_arrays({"resid_post": x}, labels={"y": y}, groups=np.arange(n) // 4), x, y


def test_the_file_is_short():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 60


def test_its_numbers_are_those_of_numpy(installed):
    given, x, y = store(0.5)
    table = installed(given, label="y").table
    for row in table[table["minus"].isna()].to_dict("records"):
        lengths = np.sqrt((x[row["layer"]][y == row["subset"]] ** 2).sum(axis=1))
        assert row["estimate"] == pytest.approx(lengths.mean())
        assert row["lo"] < row["estimate"] < row["hi"]


@pytest.mark.parametrize("shift, verdict", [(0.5, "found"), (0.0, "not_found")])
def test_it_finds_what_is_planted_and_nothing_else(installed, shift, verdict):
    result = installed(store(shift)[0], label="y")
    (finding,) = result.findings
    assert (finding.verdict, finding.layer, finding.subset, finding.minus) == (verdict, 1, "b", "a")
    assert "activation norm" in str(result.summary())
    assert json.loads(result.plot().to_json())["$schema"]


def test_it_is_a_kind_of_study_a_command_and_a_section(installed, tmp_path, capsys):
    mapping = study_mapping(tmp_path)
    asked = {"kind": "activation_norm", "label": "kind", "n_bootstrap": 20}
    mapping |= {"capture": {"sites": ["resid_post"]}, "analysis": [asked]}
    run = lp.run_study(mapping, out=tmp_path / "out", progress=False)
    assert run.failures == {} and len(run.results) == 2
    (part,) = json.loads((tmp_path / "out/results.json").read_text())["sections"]
    assert part["title"] == "How long are activations, by “kind”?"
    assert part["figures"] and part["tables"] and part["sentences"] and not part["notes"]
    wrong = {**mapping, "analysis": [{**asked, "n_bootstraps": 3}]}
    with pytest.raises(LayerprobeError, match="did you mean 'n_bootstrap'"):
        lp.run_study(wrong, out=tmp_path / "none", progress=False)
    path, single = str(run.stores["base"].path), str(tmp_path / "single")
    for args in (
        ["--help"],
        ["activation-norm", "--help"],
        ["activation-norm", path, "--label", "kind", "--layers", "1", "--out", single, "--quiet"],
        ["report", single],
    ):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert not stop.value.code
    said = capsys.readouterr().out
    assert "activation-norm" in said and "norms_of_mine" in said
    assert "--n-bootstrap" in said and "column whose values are compared" in said.lower()
    assert "activation norm of “kind”" in said
    assert list((tmp_path / "single/results").glob("activation_norm-kind-*.parquet"))


def test_a_package_that_cannot_be_read_costs_only_itself(tmp_path, monkeypatch):
    folder = package(tmp_path, "broken_analyses", "broken")
    (folder / "broken_analyses.py").write_text("\n@analysis(\ndef (:")
    package(tmp_path / "other", "missing_parent_xyz.module", "gone")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    forget()
    assert "linear_probe" in catalogue.listed()
    monkeypatch.undo()
    forget()
