"""The fault matrix: whatever goes wrong at whatever moment, the same command run again ends in the same
bytes, or says by name why not; nothing that was there before is lost.

Faults come from a shim over the functions of `os` that the library writes and reads with. HDF5 writes by
itself only to a temporary file that has no name yet; those writes are not shimmed. Sampled here; `make soak`
goes through every point.
"""

import errno
import os
import random
import shutil
import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest
from cache_support import SMALL_BLOCK, datasets, in_child, stopped, texts
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, merge, open_store
from layerprobe.cache.capture import assembly
from layerprobe.cache.file import writer
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.workers.jobs import capture_shard, shard_of

COUNT = 24
OPTIONS = {"sites": ["resid_post"], "tokens": "all", "progress": False, "batch_tokens": 64}
ERRORS = ("ENOSPC", "EMFILE", "EACCES", "EROFS", "EIO")
SHIMMED = ("open", "pwrite", "preadv", "fsync", "link", "replace", "unlink")


def table():
    return PromptTable(tuple(f"p{i}" for i in range(COUNT)), tuple(texts(COUNT)), name="t")


def act_capture(model, folder):
    return capture(model, table(), path=folder / "new.h5", **OPTIONS)


def act_resume(model, folder):
    return capture(model, table(), path=folder / "begun.h5", **OPTIONS)


def act_extend(model, folder):
    wanted = {**OPTIONS, "sites": ["resid_post", "embed"]}
    return capture(model, table(), path=folder / "done.h5", extend=True, **wanted)


def act_merge(model, folder):
    return merge(sorted(folder.glob("shard-*.h5")), folder / "index.h5")


def act_consolidate(model, folder):
    return merge(sorted(folder.glob("shard-*.h5")), folder / "one.h5", consolidate=True)


ACTS = {
    "capture": act_capture,
    "resume": act_resume,
    "extend": act_extend,
    "merge": act_merge,
    "consolidate": act_consolidate,
}


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture(scope="module")
def world(model, tmp_path_factory):
    """A finished store, one that was interrupted, and three shards."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)
        with stopped(after=2), pytest.raises(KeyboardInterrupt):
            capture(model, table(), path=folder / "begun.h5", **OPTIONS)
        capture(model, table(), path=folder / "done.h5", **OPTIONS)
        options = {name: value for name, value in OPTIONS.items() if name != "progress"}
        for index in range(3):
            part = shard_of(table(), index, 3)
            named = {"index": index, "of": 3, "prompts": table().sha256, "folder": folder}
            capture_shard(model, part, options=options, **named)
    return folder


@pytest.fixture(scope="module")
def expected(model, world, tmp_path_factory):
    """What every act ends in when nothing goes wrong, and how many calls it makes."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)
        for name, act in ACTS.items():
            folder = tmp_path_factory.mktemp(name) / "w"
            shutil.copytree(world, folder)
            with shim(lambda number, call, arguments: None) as calls:
                act(model, folder)
            found[name] = (everything(folder), calls[0])
    return found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)


def everything(folder):
    """Every dataset of every file."""
    return {path.name: datasets(path) for path in sorted(folder.iterdir())}


@contextmanager
def shim(fault):
    """Every call of `os` that reads or writes goes by `fault(number, name, arguments)` first."""
    count = [0]
    real = {name: getattr(os, name) for name in SHIMMED}
    sync = writer._sync

    def wrapped(name, call):
        def wrapper(*arguments, **keywords):
            count[0] += 1
            other = fault(count[0], name, arguments)
            return call(*arguments, **keywords) if other is None else other()

        return wrapper

    try:
        for name, call in real.items():
            setattr(os, name, wrapped(name, call))
        writer._sync = wrapped("sync", sync)
        yield count
    finally:
        for name, call in real.items():
            setattr(os, name, call)
        writer._sync = sync


def failing(at, number):
    def fault(count, name, arguments):
        if count >= at and name in ("open", "pwrite", "preadv", "fsync", "sync", "link", "replace"):
            raise OSError(number, os.strerror(number))

    return fault


def interrupting(at):
    def fault(count, name, arguments):
        if count == at:
            raise KeyboardInterrupt

    return fault


def short_writes(count, name, arguments):
    """The kernel takes one byte in two."""
    if name != "pwrite" or len(arguments[1]) < 2:
        return None
    descriptor, data, offset = arguments
    half = memoryview(data)[: len(data) // 2]
    return lambda: _pwrite(descriptor, half, offset)


_pwrite = os.pwrite


def trial(model, world, expected, folder, name, fault):
    """An act under a fault, then again without: the same bytes, and nothing beside them."""
    shutil.copytree(world, folder)
    act, (wanted, _) = ACTS[name], expected[name]
    said = None
    with shim(fault):
        try:
            act(model, folder)
        except LayerprobeError as error:
            said = str(error)
        except KeyboardInterrupt:
            pass
    assert said is None or (str(folder) in said and "\n" not in said)
    finish(model, folder, act, wanted, world)


def finish(model, folder, act, wanted, world):
    for path in world.iterdir():
        if path.name != "begun.h5":
            assert (folder / path.name).read_bytes() == path.read_bytes(), "nothing that was there is lost"
    done = folder / {act_merge: "index.h5", act_consolidate: "one.h5"}.get(act, "")
    if done.is_file():  # finished before the fault
        with pytest.raises(LayerprobeError, match="exists already"):
            act(model, folder)
    else:
        act(model, folder)
    assert everything(folder) == wanted


def points(expected, name, how_many, seed):
    return sorted(random.Random(seed).sample(range(1, expected[name][1] + 1), how_many))


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ACTS)
def test_an_error_of_the_file_system_at_some_moment(model, world, expected, tmp_path, name, error):
    (at,) = points(expected, name, 1, f"{name} {error}")
    trial(model, world, expected, tmp_path / "w", name, failing(at, getattr(errno, error)))


@pytest.mark.soak
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ACTS)
def test_an_error_of_the_file_system_at_every_moment(model, world, expected, tmp_path, name, error):
    for at in range(1, expected[name][1] + 1):
        trial(model, world, expected, tmp_path / f"w{at}", name, failing(at, getattr(errno, error)))
        shutil.rmtree(tmp_path / f"w{at}")


@pytest.mark.parametrize("name", ACTS)
def test_ctrl_c_at_some_moments(model, world, expected, tmp_path, name):
    for at in points(expected, name, 2, name):
        trial(model, world, expected, tmp_path / f"w{at}", name, interrupting(at))


@pytest.mark.soak
@pytest.mark.parametrize("name", ACTS)
def test_ctrl_c_at_every_moment(model, world, expected, tmp_path, name):
    for at in range(1, expected[name][1] + 1):
        trial(model, world, expected, tmp_path / f"w{at}", name, interrupting(at))
        shutil.rmtree(tmp_path / f"w{at}")


@pytest.mark.parametrize("name", ["capture", "consolidate"])
def test_writes_that_the_kernel_takes_in_parts(model, world, expected, tmp_path, name):
    trial(model, world, expected, tmp_path / "w", name, short_writes)


def dying(source, folder, name, at, how):
    """An act that ends, by a signal that nobody catches, before its `at`-th call."""
    import torch

    torch.set_num_threads(1)
    assembly.BLOCK_BYTES = SMALL_BLOCK
    model = load_model(source, check=False) if name in ("capture", "resume", "extend") else None
    if model is not None:
        _ = model.identity  # its hashes are remembered in a file of their own, which is not counted

    def fault(count, call, arguments):
        if count == at:
            os.kill(os.getpid(), how)

    with shim(fault):
        ACTS[name](model, folder)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("name", ["extend", "merge", "consolidate"])
def test_killed_at_some_moment(model, world, expected, tmp_path, name, how):
    (at,) = points(expected, name, 1, f"{name} {how}")
    killed(model, world, expected, tmp_path / "w", name, at, how)


@pytest.mark.soak
@pytest.mark.parametrize("name", ACTS)
def test_killed_at_every_moment(model, world, expected, tmp_path, name):
    for at in range(1, expected[name][1] + 1):
        killed(model, world, expected, tmp_path / f"w{at}", name, at, signal.SIGKILL)
        shutil.rmtree(tmp_path / f"w{at}")


def killed(model, world, expected, folder, name, at, how):
    shutil.copytree(world, folder)
    assert in_child(dying, model.source, folder, name, at, how) == -how
    finish(model, folder, ACTS[name], expected[name][0], world)


@pytest.mark.parametrize("name", ["capture", "resume"])
def test_readers_and_a_second_writer_while_it_writes(model, world, expected, tmp_path, name):
    whole = open_store(world / "done.h5").activations("resid_post")
    target = tmp_path / "w" / ("new.h5" if name == "capture" else "begun.h5")
    seen = {"rows": 0, "refused": 0}

    def fault(count, call, arguments):
        if call != "pwrite" or count % 17:
            return
        with pytest.raises(LayerprobeError, match="another process is writing"):
            writer.StoreWriter.resume(target)
        seen["refused"] += 1
        store = open_store(target)
        for row in range(0, store.n_rows, 5):
            try:
                found = store.activations("resid_post", rows=[row])
            except LayerprobeError:
                continue
            np.testing.assert_array_equal(found, whole[:, [row]])
            seen["rows"] += 1

    trial(model, world, expected, tmp_path / "w", name, fault)
    assert min(seen.values()) > 0


@pytest.mark.parametrize("name", ["capture", "consolidate"])
def test_a_clock_that_jumps(model, world, expected, tmp_path, name, monkeypatch):
    real, rng = {n: getattr(time, n) for n in ("time", "perf_counter")}, random.Random(0)
    for which, call in real.items():
        monkeypatch.setattr(time, which, lambda call=call: call() + rng.choice([-1e9, 0, 1e9]))
    trial(model, world, expected, tmp_path / "w", name, lambda count, call, arguments: None)


def test_a_file_replaced_while_it_is_captured_is_noticed(model, world, tmp_path):
    other, path = tmp_path / "other.h5", tmp_path / "new.h5"
    capture(model, table(), path=other, **{**OPTIONS, "sites": ["embed"]})

    def fault(count, call, arguments):
        if call == "pwrite" and other.exists():
            other.rename(path)

    with shim(fault), pytest.raises(LayerprobeError, match=r"new\.h5 .*replaced"):
        capture(model, table(), path=path, **OPTIONS)
    assert open_store(path).sites == ("embed",), "what another put there is left alone"
