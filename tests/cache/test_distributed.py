"""Workers that are killed while they work are replaced, and the result is that of an undivided capture."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cache_support import datasets
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, open_store
from layerprobe.cache.capture.request import CaptureRequest
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store.merge import merge
from layerprobe.cache.store.verify import verify
from layerprobe.cache.workers import distributed
from layerprobe.cache.workers.distributed import capture_shards, shard_of, shard_path
from layerprobe.cache.workers.jobs import Job
from layerprobe.cache.workers.ray_actors import RayPool, Worker
from layerprobe.cache.workers.shards import plan_shards

WORDS = ("dog", "cat", "baker", "pilot", "house", "park", "happy")
SHARDS = 6
# one prompt per batch: padding and batch shapes cannot move a bit, so shards may be compared byte for byte
OPTIONS = {"sites": ["resid_post", "lens"], "lens_tokens": ["answer"], "tokens": "all", "batch_tokens": 1}


@pytest.fixture(scope="module")
def table():
    texts = tuple(f"the {WORDS[i % 7]} was late . {' '.join(WORDS[: i % 5])} {i % 11}" for i in range(240))
    answers = np.array([["yes", "no", "Unknown"][i % 3] for i in range(240)], dtype=object)
    return PromptTable(tuple(f"p{i}" for i in range(240)), texts, {"answer": answers}, name="t")


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "w.h5"
    return capture(load_model(tiny_model("llama"), check=False), table, path=path, progress=False, **OPTIONS)


class Killer(threading.Thread):
    """Kills the process that writes an unfinished shard.

    The process is stopped first, so that the shard is certain to be unfinished at the moment of the kill.
    """

    def __init__(self, folder: Path, kills: int = 1) -> None:
        super().__init__(daemon=True)
        self.folder, self.kills = folder, kills
        self.killed: list[int] = []
        self.over = False

    def run(self) -> None:
        while not self.over and len(self.killed) < self.kills:
            for shard in self.folder.glob("shard-*.h5"):
                self._try(shard)
            time.sleep(0.002)

    def _try(self, shard: Path) -> None:
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            if pid in (os.getpid(), *self.killed) or not _writes(pid, shard):
                continue
            os.kill(pid, signal.SIGSTOP)
            if _writes(pid, shard) and not open_store(shard).complete and len(self.killed) < self.kills:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)
            else:
                os.kill(pid, signal.SIGCONT)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over = True
        self.join()


def _writes(pid: int, path: Path) -> bool:
    """Whether a process holds the file open, under whatever name it was made."""
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.path.samestat(os.stat(f"{folder}/{one}"), path.stat()) for one in os.listdir(folder))
    except OSError:
        return False


def check_undivided(out, whole, table):
    """Every dataset that does not speak of batches and blocks holds the bytes of the undivided capture."""
    assert open_store(out).complete
    assert verify(out).ok
    shards = [shard_path(out.with_name(f"{out.stem}-shards"), index) for index in range(SHARDS)]
    one = merge(shards, out.with_name("one.h5"), consolidate=True)
    ours, theirs = datasets(one.path), datasets(whole.path)
    compared = [name for name in theirs if name.startswith(("activations/", "lens/", "rows/", "prompts/"))]
    assert len(compared) > 10
    assert [name for name in compared if ours[name] != theirs[name]] == []
    assert one.identity == whole.identity


def captured(table, out, on):
    return capture_shards(
        tiny_model("llama"),
        table,
        out=out,
        workers=2,
        shards=SHARDS,
        on=on,
        load={"check": False},
        progress=False,
        **OPTIONS,
    )


@pytest.mark.parametrize("on", ["process", "ray"])
def test_one_of_two_workers_is_killed_while_it_works(table, whole, tmp_path, caplog, on):
    if on == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed: pip install 'layerprobe[ray]'")
    with Killer(tmp_path / "all-shards") as killer:
        captured(table, tmp_path / "all.h5", on)
    assert len(killer.killed) == 1
    assert "another takes it over" in caplog.text
    check_undivided(tmp_path / "all.h5", whole, table)


def test_what_is_wrong_is_said_before_workers_start(table, tmp_path):
    with pytest.raises(LayerprobeError, match="unknown site"):
        capture_shards(
            tiny_model("llama"), table, out=tmp_path / "a.h5", workers=1, sites="nope", progress=False
        )
    with pytest.raises(LayerprobeError, match="at least one worker"):
        capture_shards(tiny_model("llama"), table, out=tmp_path / "a.h5", workers=0, sites="embed")
    assert not list(tmp_path.iterdir())


class InProcess:
    """Stands for a pool: does the work here, or fails if there is any."""

    def __init__(self, job, workers):
        self.job, self.model = job, load_model(job.source, **job.load)

    def run(self, table, todo):
        for index in todo:
            self.job.capture(self.model, index, shard_of(table, index, self.job.of))
            yield index


def test_another_capture_under_the_same_name_is_refused(table, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "make_pool", lambda on, job, workers: InProcess(job, workers))
    part, out = table[:20], tmp_path / "a.h5"

    def again(source="llama", prompts=part, workers=1, **changed):
        settings = {**OPTIONS, "load": {"check": False}, "progress": False, **changed}
        return capture_shards(tiny_model(source), prompts, out=out, workers=workers, **settings)

    first = again()
    monkeypatch.setattr(distributed, "make_pool", lambda *a: pytest.fail("workers started"))
    assert again(workers=3).identity == first.identity
    out.unlink()  # the shards alone say as much
    assert again(workers=3).identity == first.identity
    for _ in ("with the index", "with the shards alone"):
        for change, field in (
            ({"tokens": "last"}, r"tokens \(all in the file, last asked for\)"),
            ({"sites": ["resid_pre", "lens"]}, "sites"),
            ({"source": "gpt2"}, "the model"),
            ({"prompts": table[:19]}, "prompts"),
            ({"load": {"dtype": "bfloat16", "check": False}}, "model.dtype"),
        ):
            with pytest.raises(LayerprobeError, match=field):
                again(**change)
        out.unlink(missing_ok=True)


def test_a_model_that_does_not_load_is_said_once(table, tmp_path):
    folder = tmp_path / "nowhere"
    with pytest.raises(LayerprobeError, match="nowhere"):
        capture_shards(folder, table, out=tmp_path / "a.h5", workers=1, progress=False, **OPTIONS)
    job = Job(str(folder), {}, CaptureRequest(**OPTIONS), tmp_path, 1, table.sha256)
    assert "nowhere" in Worker(job).load()


def test_a_shard_that_ends_every_worker_is_given_up_and_named(table, tmp_path):
    """With an actor's place taken by a stand-in: starting the real ones is tested above."""
    pool = RayPool.__new__(RayPool)
    pool._job, pool._workers, pool._failed_starts, pool._tries = None, 1, 0, {4: 3}
    with pytest.raises(LayerprobeError, match="shard 4 ended its worker 3 times"):
        pool._lost(4, RuntimeError())
    pool._tries[4] = 2
    pool._lost(4, RuntimeError())


def test_the_plan_of_the_whole_and_of_a_share_is_said_first(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "make_pool", lambda on, job, workers: InProcess(job, workers))
    options = {"sites": ["resid_post"], "tokens": "last", "load": {"check": False}, "workers": 2}

    def said(**changed):
        store = capture_shards(tiny_model("llama"), table, out=tmp_path / "a.h5", **{**options, **changed})
        return store, [line for line in capsys.readouterr().err.splitlines() if line.startswith("capture: ")]

    store, lines = said()
    total = int(store.lengths.sum())
    size = store.n_rows * 3 * 32 * 4 / 1000
    assert lines[0].startswith(
        f"capture: the whole: 240 prompts, {total:,} tokens, 240 rows, {size:.1f} kB on"
    )
    assert lines[0].endswith("in 8 shards")
    assert lines[1].startswith("capture: 2 workers, each about 4 of 8 shards: 120 prompts, ")
    (tmp_path / "a.h5").unlink()
    for index in (0, 5):
        shard_path(tmp_path / "a-shards", index).unlink()
    _, lines = said()
    assert lines[1].startswith("capture: still to do: 2 of 8 shards: 60 prompts, ")
    assert lines[2].startswith("capture: 2 workers, each about 1 of 8 shards: 30 prompts, ")
    (tmp_path / "a.h5").unlink()
    shard_path(tmp_path / "a-shards", 0).unlink()
    assert said(progress=False)[1] == []


def test_a_worker_without_an_engine_can_say_its_share(table, tmp_path):
    model = load_model(tiny_model("llama"), check=False)
    whole = plan_shards(
        model, table, of=4, folder=tmp_path, options={"sites": ["resid_post"], "dtype": "float16"}
    )
    parts = [shard_of(table, index, 4) for index in range(4)]
    assert whole.prompts == tuple(map(len, parts))
    one = capture(model, parts[3], sites=["resid_post"], dtype="float16", progress=False)
    assert (whole.rows[3], whole.tokens[3]) == (one.n_rows, int(one.lengths.sum()))
    assert whole.row_bytes == 3 * 32 * 2
    assert whole.share([3]) == f"1 of 4 shards: 60 prompts, {whole.tokens[3]:,} tokens, 60 rows, 11.5 kB"


def test_a_prompt_too_long_is_said_before_workers_start(tmp_path):
    table = PromptTable(("a", "b"), ("the dog", "dog " * 70), name="t")
    with pytest.raises(LayerprobeError, match="prompt 'b' has 71 tokens"):
        capture_shards(tiny_model("llama"), table, out=tmp_path / "a.h5", workers=2, sites=["embed"])
    assert not list(tmp_path.iterdir())
