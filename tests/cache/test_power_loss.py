"""Power loss: of what was written since the last sync, any part may be missing, in any order."""

import os
import random

import numpy as np
import pytest
from cache_support import datasets, run
from tiny_models import tiny_model

from layerprobe import load_model, open_store
from layerprobe.cache.capture import assembly
from layerprobe.cache.file import writer
from layerprobe.cache.file.opening import read_layout
from layerprobe.cache.store.verify import verify


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture
def log(monkeypatch):
    """Everything that reaches the file system: ("write", offset, bytes), ("sync",), ("name",)."""
    events = []
    real = {name: getattr(os, name) for name in ("pwrite", "link", "fsync")}
    sync = writer._sync

    def noted(event, call):
        def wrapper(*arguments, **keywords):
            out = call(*arguments, **keywords)
            events.append((event,))
            return out

        return wrapper

    def pwrite(descriptor, data, offset):
        count = real["pwrite"](descriptor, data, offset)
        events.append(("write", offset, bytes(data[:count])))
        return count

    monkeypatch.setattr(assembly, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "link", noted("name", real["link"]))
    monkeypatch.setattr(os, "fsync", noted("sync", real["fsync"]))
    monkeypatch.setattr(writer, "_sync", noted("sync", sync))
    return events


def after_power_loss(created, events, cut, rng):
    """The file as a disk may hold it: everything up to the last sync, and of the rest what chance kept."""
    synced = max((at for at in range(cut) if events[at][0] == "sync"), default=-1)
    out = bytearray(created)
    for at, event in enumerate(events[:cut]):
        if event[0] == "write" and (at < synced or rng.random() < 0.5):
            out[event[1] : event[1] + len(event[2])] = event[2]
    return bytes(out)


def test_what_is_committed_is_on_disk_whatever_of_the_rest_is_lost(llama, log, tmp_path, monkeypatch):
    whole = tmp_path / "whole.h5"
    give_name, created = os.link, []

    def link(temporary, path):
        created.append(temporary.read_bytes())
        give_name(temporary, path)

    monkeypatch.setattr(os, "link", link)
    run(llama, whole)
    named = log.index(("name",))
    assert ("sync",) in log[:named], "a file is on disk before it has its name"
    assert log[named + 1] == ("sync",), "and its folder is synced then"
    events = log[named + 1 :]
    monkeypatch.undo()
    monkeypatch.setattr(assembly, "BLOCK_BYTES", 20_000)
    rng, path = random.Random(0), tmp_path / "lost.h5"
    for trial in range(40):
        path.write_bytes(after_power_loss(created[0], events, rng.randint(1, len(events)), rng))
        assert verify(path).ok, "a block that counts as committed is whole"
        if trial % 8 == 0:
            run(llama, path)
            assert datasets(path) == datasets(whole)


def test_statistics_that_changed_are_computed_anew(llama, tmp_path):
    path = tmp_path / "s.h5"
    store = run(llama, path)
    expected = store.statistics("resid_post").mean
    layout = read_layout(path)
    (size,) = (
        8 * np.prod(shape) for name, _, shape in layout.statistics_specs() if name.endswith("resid_post/mean")
    )
    offset = layout.offsets["statistics/resid_post/mean"] + (layout.plan.n_blocks - 1) % 2 * int(size)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(16))
    assert any("running statistics" in problem for problem in verify(path).problems)
    np.testing.assert_allclose(open_store(path).statistics("resid_post").mean, expected, atol=1e-6)


def test_statistics_end_in_the_slot_of_the_last_block(llama, tmp_path, monkeypatch):
    parities = set()
    for size in (20_000, 25_000, 30_000, 40_000):
        monkeypatch.setattr(assembly, "BLOCK_BYTES", size)
        path = tmp_path / f"{size}.h5"
        run(llama, path)
        parities.add(read_layout(path).plan.n_blocks % 2)
        assert verify(path).ok
    assert parities == {0, 1}
