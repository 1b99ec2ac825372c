"""One gate for every array of a store: what was never written, changed or replaced is not handed out."""

import errno
import os
import resource
import shutil
import stat

import h5py
import numpy as np
import pytest
from cache_support import SMALL_BLOCK, flip, run, stopped, texts
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, open_store, suppression
from layerprobe.cache.capture import assembly
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store import mapping
from layerprobe.cache.store.merge import merge
from layerprobe.cache.store.verify import verify
from layerprobe.cache.workers.jobs import capture_shard, shard_of

WORDS = np.array(["yes", "no", "Unknown"] * 20, dtype=object)


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)


@pytest.fixture
def path(model, tmp_path):
    run(model, tmp_path / "s.h5")
    return tmp_path / "s.h5"


def table(count=60):
    labels = {"answer": WORDS[:count], "foil": np.roll(WORDS, 1)[:count]}
    return PromptTable(tuple(f"p{i}" for i in range(count)), tuple(texts(count)), labels, name="t")


def test_the_lens_of_an_incomplete_store_is_refused_as_its_rows_are(model, tmp_path):
    path = tmp_path / "s.h5"
    options = {"sites": ["resid_post", "lens"], "tokens": "last", "lens_tokens": ["answer", "foil"]}
    monkey = stopped(after=1)
    with monkey, pytest.raises(KeyboardInterrupt):
        capture(model, table(), path=path, progress=False, batch_tokens=64, **options)
    store = open_store(path)
    assert not store.complete and store.lens_layers == (0, 1, 2)
    for ask in (
        lambda: store.lens,
        lambda: store.select(slice(0, None)).lens,
        lambda: suppression(store, target="answer", foil="foil"),
        lambda: store.activations("resid_post"),
    ):
        with pytest.raises(LayerprobeError, match=r"never written|incomplete"):
            ask()
    whole = capture(model, table(), progress=False, batch_tokens=64, **options)
    written = [row for row in range(store.n_rows) if _readable(store, row)]
    assert 0 < len(written) < store.n_rows
    part = store.select(written).lens  # what was written can be read, and is the same
    np.testing.assert_array_equal(part.logsumexp, whole.lens.logsumexp[:, written])
    assert "lens: 3 layers" in repr(store)


def _readable(store, row):
    try:
        store.activations("resid_post", 0, rows=[row])
    except LayerprobeError:
        return False
    return True


@pytest.mark.parametrize("how", ["renamed over it", "written into it"])
def test_a_file_replaced_under_an_open_store_is_noticed(model, path, tmp_path, how):
    store = open_store(path)
    other = tmp_path / "other.h5"
    run(model, other, sites=["resid_pre", "lens"], tokens="last")
    os.replace(other, path) if how == "renamed over it" else shutil.copyfile(other, path)
    with pytest.raises(LayerprobeError, match="not the file that was opened"):
        store.activations("resid_post", 0)
    with pytest.raises(LayerprobeError, match="not the file that was opened"):
        _ = store.lens


def test_rows_that_were_mapped_stay_those_of_the_file_that_was_opened(model, path, tmp_path):
    store = open_store(path)
    before = store.activations("resid_post", 0).copy()
    other = tmp_path / "other.h5"
    run(model, other, sites=["resid_pre", "lens"], tokens="last")
    os.replace(other, path)
    np.testing.assert_array_equal(store.activations("resid_post", 0), before)
    np.testing.assert_array_equal(store.activations("resid_post")[0], before)


def test_a_file_that_was_only_touched_or_put_back_is_the_same(path, tmp_path):
    expected, store, again = open_store(path).activations("resid_post"), open_store(path), open_store(path)
    os.utime(path)
    np.testing.assert_array_equal(store.activations("resid_post"), expected)
    shutil.copy(path, tmp_path / "backup")
    path.unlink()
    shutil.move(tmp_path / "backup", path)
    np.testing.assert_array_equal(again.activations("resid_post"), expected)


@pytest.mark.parametrize("site", ["resid_post", "lens"])
def test_a_flipped_bit_is_noticed_when_its_block_is_first_read(path, site):
    key = "activations/resid_post" if site == "resid_post" else "lens/logsumexp"
    with h5py.File(path) as file:
        dataset = file[key]
        last = dataset.id.get_offset() + dataset.id.get_storage_size() - 1
    flip(path, last, 1)
    expected = {"first-touch": True, "all": True, "off": False}
    for verified, noticed in expected.items():
        if verified == "all":
            with pytest.raises(LayerprobeError, match="other bytes than were written"):
                open_store(path, verify="all")
            continue
        store = open_store(path, verify=verified)
        store.activations("resid_post", 0)  # another layer: nothing is wrong with it
        store.activations("resid_post", 2, rows=[0])
        ask = (lambda s=store: s.lens) if site == "lens" else (lambda s=store: s.activations("resid_post", 2))
        if noticed:
            with pytest.raises(LayerprobeError, match=rf"{key}\[2\], block \d+ .*other bytes"):
                ask()
        else:
            ask()
    with pytest.raises(LayerprobeError, match="verify='sometimes'"):
        open_store(path, verify="sometimes")


def test_a_selection_and_a_tensor_pass_the_same_gate(path):
    with h5py.File(path) as file:
        flip(path, file["activations/resid_post"].id.get_offset(), 0)
    for ask in (
        lambda store: store.select([0]).activations("resid_post", 0),
        lambda store: store.activations("resid_post", 0, as_torch=True),
        lambda store: next(store.iter_rows("resid_post", 0)),
        lambda store: store.to_frame("resid_post", 0),
        lambda store: store.dataset("resid_post", 0),
    ):
        with pytest.raises(LayerprobeError, match="other bytes"):
            ask(open_store(path))


def shards(model, folder, count):
    whole = table(max(count, 60) if count <= 60 else count)
    return [
        capture_shard(
            model, shard_of(whole, i, count), index=i, of=count, prompts=whole.sha256, folder=folder,
            options={"sites": ["resid_post", "lens"], "lens_tokens": ["answer"]},
        )
        for i in range(count)
    ]  # fmt: skip


def test_an_index_needs_few_file_handles(model, tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "MOST_MAPS", 4)
    paths = shards(model, tmp_path, 8)
    store = merge(paths, tmp_path / "all.h5")
    before = len(os.listdir("/proc/self/fd"))
    store = open_store(tmp_path / "all.h5")
    assert len(os.listdir("/proc/self/fd")) == before, "nothing is mapped before it is asked for"
    first = store.activations("resid_post")
    lens = store.lens
    assert len(os.listdir("/proc/self/fd")) <= before + 4
    np.testing.assert_array_equal(first[:, 7], store.activations("resid_post", rows=[7])[:, 0])
    assert lens.n_rows == store.n_rows


def test_no_file_handles_left_is_no_damage(path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    store = open_store(path)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for ask in (
            lambda: open_store(path),
            lambda: verify(path),
            lambda: store.activations("resid_post"),
            lambda: merge([path], path.with_name("all.h5")),
        ):
            with pytest.raises(LayerprobeError, match="too many files open") as said:
                ask()
            assert "delete" not in str(said.value)
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert verify(path).ok


def test_permission_denied_is_no_damage(path, monkeypatch):
    real = os.open

    def refused(name, *arguments, **keywords):
        if str(name) == str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refused)
    for ask in (open_store, verify):
        with pytest.raises(LayerprobeError, match="permission denied") as said:
            ask(path)
        assert "delete" not in str(said.value)


def test_a_disk_error_while_reading_is_no_damage(path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    for ask in (open_store, verify):
        with pytest.raises(LayerprobeError, match="look at the disk first"):
            ask(path)


@pytest.mark.parametrize("consolidate", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_disk_refuses_while_merging_is_one_line(model, tmp_path, monkeypatch, consolidate, number):
    paths = shards(model, tmp_path / "shards", 2)
    out = tmp_path / "all.h5"
    with monkeypatch.context() as patch:
        for name in ("fsync", "pwrite"):

            def refused(*arguments, name=name):
                raise OSError(number, os.strerror(number))

            patch.setattr(os, name, refused)
        with pytest.raises(LayerprobeError, match=r"all\.h5") as said:
            merge(paths, out, consolidate=consolidate)
    assert "\n" not in str(said.value)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["shards"]
    assert merge(paths, out, consolidate=consolidate).complete


def test_a_store_in_a_read_only_folder_can_be_read(path):
    path.chmod(stat.S_IRUSR)
    path.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert open_store(path, verify="all").complete
        assert verify(path).ok
    finally:
        path.parent.chmod(0o700)
