"""Whatever happens to a file: the same bytes after resume, or a refusal that names what is damaged."""

import errno
import os
import random
import signal
import subprocess

import h5py
import numpy as np
import pytest
from cache_support import SMALL_BLOCK, datasets, die_while_writing, fill_the_disk, flip, in_child, run
from tiny_models import tiny_model

from layerprobe import LayerprobeError, load_model, open_store
from layerprobe.cache.capture import assembly
from layerprobe.cache.file import disk_space as room
from layerprobe.cache.file.journal import read_journal
from layerprobe.cache.file.opening import read_layout
from layerprobe.cache.store.verify import verify


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture(scope="module")
def whole(llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)
        run(llama, path)
    return path


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_any_point_it_resumes_to_the_same_bytes(llama, whole, tmp_path, seed):
    """Ten files, each killed five times at random points of its writing: fifty kill points."""
    rng = random.Random(seed)
    path, codes = tmp_path / "s.h5", []
    for _ in range(5):
        codes.append(in_child(die_while_writing, llama.source, path, rng.randint(1, 90)))
        if path.exists():
            read_layout(path)
            assert verify(path).ok, "what is committed is whole, or is not committed"
    assert -signal.SIGKILL in codes
    run(llama, path)
    assert datasets(path) == datasets(whole)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.h5"]


def test_a_full_disk_stops_it_and_leaves_what_is_committed(llama, whole, tmp_path):
    path = tmp_path / "s.h5"
    size = whole.stat().st_size
    journal_end = size * 2 // 3
    # in a process of its own: HDF5 keeps what it could not flush, and would try again as this one exits
    assert in_child(fill_the_disk, llama.source, path, journal_end) == 0
    assert not list(tmp_path.glob(".*.part"))
    run(llama, path)
    assert datasets(path) == datasets(whole)


@pytest.mark.soak
def test_a_small_tmpfs_that_fills_up(llama, whole, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    size = whole.stat().st_size
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 4}", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting a tmpfs takes privileges that this process does not have")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "free_bytes", lambda path: 1 << 40)  # as if it filled up later
            with pytest.raises(LayerprobeError, match="no space for"):
                run(llama, folder / "s.h5")
        subprocess.run(["mount", "-o", f"remount,size={size * 3}", str(folder)], check=True)
        run(llama, folder / "s.h5")
        assert datasets(folder / "s.h5") == datasets(whole)
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def test_a_disk_that_fills_up_in_the_middle_loses_one_block(llama, whole, tmp_path, monkeypatch):
    path = tmp_path / "s.h5"
    real, count = os.pwrite, iter(range(10_000))

    def filling(*arguments):
        if next(count) > 60:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(os, "pwrite", filling)
    with pytest.raises(LayerprobeError, match="same command resumes"):
        run(llama, path)
    monkeypatch.setattr(os, "pwrite", real)
    assert not open_store(path).complete
    assert verify(path).ok
    run(llama, path)
    assert datasets(path) == datasets(whole)


def test_a_folder_that_cannot_be_written_is_named(llama, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "file").write_text("")
    with pytest.raises(LayerprobeError, match="cannot write"):
        run(llama, folder / "file" / "s.h5")
    if os.geteuid():
        folder.chmod(0o500)
        with pytest.raises(LayerprobeError, match=r"cannot write .*choose a folder"):
            run(llama, folder / "s.h5")
        assert [entry.name for entry in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8, 0.99])
def test_a_truncated_file_is_refused(llama, whole, tmp_path, share):
    path = tmp_path / "s.h5"
    raw = whole.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    for action in (open_store, verify_or_raise, lambda p: run(llama, p)):
        with pytest.raises(LayerprobeError, match=r"s\.h5"):
            action(path)


def verify_or_raise(path):
    report = verify(path)
    if not report.ok:
        raise LayerprobeError(str(report))


def regions(path):
    """(name, start, stop) of every dataset's bytes."""
    out = []
    with h5py.File(path) as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
                start = item.id.get_offset()
                out.append((name, start, start + item.id.get_storage_size()))

        file.visititems(visit)
    return out


def test_every_flipped_bit_in_the_data_is_found(llama, whole, tmp_path):
    rng = random.Random(1)
    data = [
        (name, start, stop)
        for name, start, stop in regions(whole)
        if name.startswith(("activations/", "lens/")) and name != "lens/candidate_ids" and stop > start
    ]
    assert verify(whole).bytes == sum(stop - start for _, start, stop in data), "no byte is left out"
    for _ in range(30):
        path = tmp_path / "s.h5"
        path.write_bytes(whole.read_bytes())
        name, start, stop = rng.choice(data)
        flip(path, rng.randrange(start, stop), rng.randrange(8))
        report = verify(path)
        assert any(problem.startswith(name) for problem in report.problems), (name, str(report))


def test_flipped_bits_in_an_incomplete_file_are_recomputed(llama, whole, tmp_path):
    """The journal's last entry is emptied: resuming compares all that is committed."""
    rng = random.Random(2)
    path = tmp_path / "s.h5"
    layout = read_layout(whole)
    data = [
        region
        for region in regions(whole)
        if region[0].startswith(("activations/", "statistics/", "journal"))
    ]
    for _ in range(8):
        raw = bytearray(whole.read_bytes())
        last = layout.offsets["journal"] + (layout.plan.n_blocks - 1) * layout.journal.itemsize
        raw[last : last + layout.journal.itemsize] = bytes(layout.journal.itemsize)
        path.write_bytes(raw)
        _, start, stop = rng.choice(data)
        flip(path, rng.randrange(start, stop), rng.randrange(8))
        run(llama, path)
        assert datasets(path) == datasets(whole)


def test_a_flipped_bit_anywhere_else_is_harmless_or_named(llama, whole, tmp_path):
    """Metadata, journal, labels, tokens: with one bit changed, the same rows or a refusal."""
    rng = random.Random(3)
    expected = open_store(whole)
    spans = [
        (start, stop) for name, start, stop in regions(whole) if name.startswith(("activations/", "lens/"))
    ]
    size = whole.stat().st_size
    path = tmp_path / "s.h5"
    outcomes = {"same": 0, "named": 0}
    for _ in range(120):
        offset = rng.randrange(size)
        if any(start <= offset < stop for start, stop in spans):
            continue
        path.write_bytes(whole.read_bytes())
        flip(path, offset, rng.randrange(8))
        try:
            store = open_store(path)
            same = np.array_equal(store.activations("resid_post"), expected.activations("resid_post"))
            assert same, offset
            assert store.texts == expected.texts
            assert list(store.ids) == list(expected.ids)
            outcomes["same"] += 1
        except LayerprobeError:
            outcomes["named"] += 1
            assert not verify(path).ok or not open_store(path).complete
    assert min(outcomes.values()) > 0


def test_any_flipped_bit_of_a_journal_entry_uncommits_its_block(whole, tmp_path):
    path = tmp_path / "s.h5"
    path.write_bytes(whole.read_bytes())
    layout = read_layout(path)
    size, block = layout.journal.itemsize, 2
    for offset in range(size):
        where = layout.offsets["journal"] + block * size + offset
        flip(path, where, offset % 8)
        with path.open("rb") as file:
            assert read_journal(layout, file.fileno()).damaged == [block], offset
        flip(path, where, offset % 8)
    assert verify(path).ok
