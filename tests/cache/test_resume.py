"""A capture that was killed goes on and ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cache_support import datasets, run
from tiny_models import tiny_model

from layerprobe import LayerprobeError, load_model, open_store
from layerprobe.cache.capture import assembly, pipeline
from layerprobe.cache.file import creation
from layerprobe.cache.file.opening import read_layout
from layerprobe.cache.file.writer import StoreWriter
from layerprobe.cache.store.verify import verify
from layerprobe.probe.cli.entry import main


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK_BYTES", 20_000)


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


class Stop(Exception):
    """Stands for whatever ends a process."""


def interrupted(model, path, after):
    """Capture until `after` blocks are written, then fail."""
    original = StoreWriter.write

    def write(self, block, buffers):
        if block == after:
            raise Stop
        original(self, block, buffers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoreWriter, "write", write)
        with pytest.raises(Stop):
            run(model, path)


def test_a_failed_capture_resumes_to_the_same_bytes(llama, tmp_path, small_blocks):
    whole, broken = tmp_path / "whole.h5", tmp_path / "broken.h5"
    run(llama, whole)
    for after in (0, 1, 3):
        interrupted(llama, broken, after)
        store = open_store(broken)
        assert not store.complete
        assert "INCOMPLETE" in repr(store)
        with pytest.raises(LayerprobeError, match="never written"):
            store.activations("resid_post", 0)
        run(llama, broken)
        assert datasets(broken) == datasets(whole)
        broken.unlink()


def test_rows_that_were_written_can_be_read_before_the_rest_is(llama, tmp_path, small_blocks):
    interrupted(llama, tmp_path / "s.h5", 2)
    part = open_store(tmp_path / "s.h5")
    whole = run(llama, tmp_path / "t.h5")
    readable = []
    for row in range(part.n_rows):
        try:
            np.testing.assert_array_equal(
                part.activations("resid_post", 1, rows=[row]), whole.activations("resid_post", 1, rows=[row])
            )
            readable.append(row)
        except LayerprobeError:
            pass
    assert 0 < len(readable) < part.n_rows


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}]
import layerprobe.cache.capture.assembly as c
c.BLOCK_BYTES = 20_000
import cache_support
from layerprobe import load_model
model = load_model({folder!r}, check=False)
print("ready", flush=True)
cache_support.run(model, sys.argv[1])
print("done", flush=True)
"""


def test_kill_9_resumes_to_the_same_bytes(llama, tmp_path, small_blocks):
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    run(llama, whole)
    here = Path(__file__).parent
    code = SCRIPT.format(tests=str(here.parent), folder=str(tiny_model("llama")))
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(killed)], stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout.readline() == b"ready\n"
    while not killed.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(llama, killed)
    assert datasets(killed) == datasets(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]


def test_two_writers_are_kept_apart(llama, tmp_path, small_blocks):
    path = tmp_path / "s.h5"
    interrupted(llama, path, 1)
    with StoreWriter.resume(path), pytest.raises(LayerprobeError, match="another process is writing"):
        run(llama, path)
    assert run(llama, path).complete


def test_a_capture_in_its_first_run_holds_the_lock_too(llama, tmp_path, small_blocks, monkeypatch):
    path, original, refused = tmp_path / "s.h5", StoreWriter.write, []

    def write(self, block, buffers):
        with pytest.raises(LayerprobeError, match="another process is writing"):
            StoreWriter.resume(path)
        refused.append(block)
        original(self, block, buffers)

    monkeypatch.setattr(StoreWriter, "write", write)
    assert run(llama, path).complete
    assert len(refused) > 3


def test_a_file_that_appears_meanwhile_is_left_alone(llama, tmp_path, monkeypatch):
    path, lock = tmp_path / "s.h5", creation.lock_exclusively

    def appears(descriptor, name):
        lock(descriptor, name)
        path.write_bytes(b"another process's")

    monkeypatch.setattr(creation, "lock_exclusively", appears)
    with pytest.raises(LayerprobeError, match="just been made by another process"):
        run(llama, path)
    assert path.read_bytes() == b"another process's"
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def test_resuming_runs_the_batches_of_the_stored_plan(llama, tmp_path, small_blocks, monkeypatch):
    path, ran, original = tmp_path / "s.h5", [], pipeline.run_batch
    interrupted(llama, path, 2)
    plan = read_layout(path).plan

    def noted(model, request, batch):
        ran.append(batch.prompts.tolist())
        return original(model, request, batch)

    monkeypatch.setattr(pipeline, "run_batch", noted)
    run(llama, path, batch_tokens=3)  # whatever is asked for now
    stored = [batch.tolist() for block in range(2, plan.n_blocks) for batch in plan.batches_of(block)]
    assert ran == stored
    assert max(map(len, stored)) > 1


def test_verify_says_of_an_incomplete_store_what_it_compared(llama, tmp_path, small_blocks, capsys):
    path = tmp_path / "s.h5"
    interrupted(llama, path, 2)
    report = verify(path)
    assert report.ok and not report.complete and report.blocks == 2
    assert f"INCOMPLETE (2 blocks, {report.bytes:,} bytes compared" in str(report)
    assert f"{report.of - 2} of {report.of} blocks were never written" in str(report)
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(path)])
    assert stop.value.code == 3
    run(llama, path)
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(path)])
    assert not stop.value.code
    assert f"sound ({report.of} blocks" in capsys.readouterr().out
