"""The results folder: what a file says never reaches outside it; a disk that fails is said in one line."""

import errno
import json
import os
import stat

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from layerprobe.analyses.result.analysis import AnalysisResult, read_result
from layerprobe.analyses.result.directions import Directions
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.cli.entry import main
from layerprobe.probe.report.write import write_report
from layerprobe.probe.results.folder import ResultsFolder, explain, result_name, write_whole

HOSTILE = [
    *(
        "../../victim/precious",
        "/etc/passwd",
        "a/b",
        "*",
        "[a]*",
        "?",
        "..",
        ".",
        "",
        ".hidden",
        "a.b",
        "a\0b",
    ),
    *("a\\b", "x" * 300, "a\nb", "precious "),
]


def a_result():
    table = pd.DataFrame({"site": ["resid_post"], "layer": [0], "metric": ["auroc"], "estimate": [0.7]})
    directions = Directions({"resid_post": {0: np.ones(4)}}, {"resid_post": {0: np.array(0.0)}})
    frames = {"pairs": pd.DataFrame({"a": [1]})}
    return AnalysisResult("nested_cv", table, directions=directions, frames=frames, scores=table)


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    folder.mkdir()
    for name in ("precious.txt", "precious.parquet"):
        (folder / name).write_text("years of work")
    yield folder
    assert sorted(path.name for path in folder.iterdir()) == ["precious.parquet", "precious.txt"]


def written(out, names):
    """A results folder with one good result, whose manifest says there are others."""
    folder = ResultsFolder(out)
    folder.save("good", a_result(), "key", models=["m"], options={"kind": "nested_cv"})
    manifest = folder.manifest()
    entry = manifest["results"]["good"]
    manifest["results"] |= dict.fromkeys(names, entry)
    (folder.folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_from_the_manifest_never_leads_out_of_the_folder(tmp_path, victim, name):
    folder = written(tmp_path / "out", [name])
    before = sorted(folder.folder.iterdir())
    for use in (
        lambda: folder.keep_only([]),
        lambda: list(folder.read_all()),
        lambda: folder.current("good", "key"),
        lambda: folder.save("good", a_result(), "key"),
    ):
        with pytest.raises(LayerprobeError, match="no plain name"):
            use()
    with pytest.raises(LayerprobeError, match="no plain name"):
        write_report(tmp_path / "out")
    assert sorted(folder.folder.iterdir()) == before


@pytest.mark.parametrize("name", HOSTILE)
def test_a_result_is_saved_under_a_plain_name_only(tmp_path, victim, name):
    with pytest.raises(LayerprobeError, match="no plain name"):
        ResultsFolder(tmp_path / "out").save(name, a_result(), "key")
    assert not (tmp_path / "out" / "results").exists()


@pytest.mark.parametrize(
    "text",
    [
        *("[]", '{"results": []}', '{"results": {"good": 3}}', '{"results": {"good": {"kind": "x"}}}'),
        *("{", "\0", "[" * 100_000, '{"results": {}, "n": ' + "9" * 6000 + "}"),
    ],
)
def test_a_damaged_manifest_is_one_line_that_names_the_file(tmp_path, text):
    folder = written(tmp_path, [])
    (folder.folder / "manifest.json").write_text(text)
    with pytest.raises(LayerprobeError, match=r"manifest.json is damaged"):
        folder.current("good", "key")


def test_parts_of_a_result_are_beside_it(tmp_path, victim):
    path = a_result().to_parquet(tmp_path / "out" / "a.parquet")
    assert read_result(path).frames["pairs"]["a"].tolist() == [1]
    stored = pq.read_table(path)
    about = json.loads(stored.schema.metadata[b"layerprobe"])
    about["frames"] = ["../../victim/precious"]
    changed = stored.replace_schema_metadata({b"layerprobe": json.dumps(about).encode()})
    pq.write_table(changed, path)
    with pytest.raises(LayerprobeError, match="no plain name"):
        read_result(path)


def test_names_fit_into_a_file_system():
    long = result_name("linear_probe", "質問" * 200, "base")
    other = result_name("linear_probe", "質問" * 200, "base", taken=[long])
    assert long != other
    for name in (long, other):
        assert len(f"{name}.directions.safetensors".encode()) < 255


@pytest.mark.parametrize(
    "number, says",
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "may not be written"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "too many files"),
        (errno.EIO, "could not be written"),
    ],
)
@pytest.mark.parametrize("call", ["replace", "mkdir", "open"])
def test_a_disk_that_fails_is_said_in_one_line_and_leaves_nothing(tmp_path, monkeypatch, number, says, call):
    folder = written(tmp_path, [])
    before = {path: path.read_bytes() for path in folder.folder.iterdir()}

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), "somewhere")

    with monkeypatch.context() as patch:
        if call == "open":
            patch.setattr("builtins.open", fail)
            patch.setattr(pq, "write_table", fail)
        else:
            patch.setattr(os, call, fail)
        with pytest.raises(LayerprobeError, match=says) as raised:
            folder.save("other", a_result(), "key")
        assert "\n" not in str(raised.value)
        assert str(tmp_path) in str(raised.value)
    assert {path: path.read_bytes() for path in folder.folder.iterdir()} == before


def test_a_folder_that_is_a_file_is_said_in_one_line(tmp_path):
    (tmp_path / "results").write_text("mine")
    with pytest.raises(LayerprobeError, match="results"):
        ResultsFolder(tmp_path).save("a", a_result(), "key")
    with pytest.raises(LayerprobeError, match=r"mine\.txt"):
        write_whole(tmp_path / "results" / "mine.txt", "x")


def test_files_have_the_rights_that_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        folder = ResultsFolder(tmp_path / "out")
        folder.save("a", a_result(), "key")
        write_whole(tmp_path / "out" / "report.html", "x")
    finally:
        os.umask(old)
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path


def test_what_the_system_says_is_no_fault_of_ours():
    assert "please report" not in explain(OSError(errno.ENOSPC, "No space left on device", "/x/y"))
    assert "/x/y" in explain(OSError(errno.ENOSPC, "No space left on device", "/x/y"))
    assert "please report" in explain(ValueError("oh"))


def test_the_command_line_says_a_failing_disk_in_one_line(tmp_path, monkeypatch, capsys):
    written(tmp_path, [])

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "report.html"))

    monkeypatch.setattr("layerprobe.probe.report.summarise.summarise", full)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert stop.value.code == 1 and len(lines) == 1 and "no space left" in lines[0]
