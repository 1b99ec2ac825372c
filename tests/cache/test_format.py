"""Every released format version stays readable, by this package and by any HDF5 reader."""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprobe import LayerprobeError, open_store
from layerprobe.cache.file.layout import VERSION
from layerprobe.cache.file.statistics import RunningStatistics

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("store-*.h5"))
spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


def test_the_current_version_has_golden_files():
    assert {path.name for path in FILES} >= {f"store-{VERSION}-{kind}.h5" for kind in ("bfloat16", "float32")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_files_read_back(path):
    store = open_store(path)
    assert store.complete
    assert (store.n_rows, store.n_prompts) == (14, 5)
    for array in make.specs(store.dtype):
        expected = make.values(array.key, array.n_layers, 14, array.shape)
        kind, name = array.key.split("/")
        found = store.activations(name) if kind == "activations" else getattr(store.lens, name)
        np.testing.assert_array_equal(
            found, expected[0] if array.layers is None else expected.astype(found.dtype)
        )
    assert store.layers("head_out") == (0, 2)
    assert store.texts == make.TEXTS
    assert list(store.labels("answer"))[3:5] == ["no", None]
    assert list(store.labels("flag"))[:3] == [True] * 3
    np.testing.assert_array_equal(store.labels("score")[[0, 13]], [0.5, 3.0])
    assert list(store.labels("a/b")[-1:]) == [4]
    assert list(store.groups[:3]) == ["g"] * 3
    assert store.pairs[-1] == 3
    assert store.splits is None
    assert store.spans("subject").tolist() == [[0, 1], [-1, -1], [2, 3], [-1, -1], [0, 5]]
    assert [len(ids) for ids in store.token_ids()] == list(make.LENGTHS)
    kept = store.statistics("resid_post")
    rows = make.values("activations/resid_post", 2, 14, (4,))
    np.testing.assert_allclose(kept.mean, rows.mean(axis=1))
    np.testing.assert_allclose(kept.variance, rows.var(axis=1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_any_hdf5_reader_sees_ordinary_datasets(path):
    with h5py.File(path) as file:
        dataset = file["activations/resid_post"]
        np.testing.assert_array_equal(dataset[()], make.values("activations/resid_post", 2, 14, (4,)))
        assert dataset.chunks is None
        assert dataset.attrs["layers"].tolist() == [0, 2]
        assert file["prompts/ids"].asstr()[()].tolist() == ["p0", "p1", "p2", "p3", "p4"]


def test_writing_makes_the_golden_bytes(tmp_path):
    make.write(tmp_path / "again.h5", "bfloat16")
    with h5py.File(tmp_path / "again.h5") as new, h5py.File(GOLDEN / f"store-{VERSION}-bfloat16.h5") as old:
        keys = []
        old.visititems(lambda name, item: keys.append(name) if isinstance(item, h5py.Dataset) else None)
        for key in keys:
            assert new[key][()].tobytes() == old[key][()].tobytes(), key


def test_other_files_and_versions_are_named(tmp_path):
    with pytest.raises(LayerprobeError, match="no store at"):
        open_store(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(LayerprobeError, match="not a readable HDF5"):
        open_store(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(LayerprobeError, match="not a layerprobe store"):
        open_store(tmp_path / "other.h5")
    with h5py.File(tmp_path / "future.h5", "w") as file:
        file.attrs["format"], file.attrs["format_version"] = "layerprobe-activations", "9.0"
    with pytest.raises(LayerprobeError, match=r"version 9\.0.*upgrade"):
        open_store(tmp_path / "future.h5")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 5), st.floats(-1e4, 1e4), st.integers(0, 3))
def test_running_statistics_equal_those_of_all_rows(rows, width, shift, bad):
    rng = np.random.default_rng(rows)
    x = (rng.normal(size=(rows, width)) + shift).astype(np.float32)
    x[rng.integers(0, rows, size=bad)] = np.nan
    running = RunningStatistics(1, (width,))
    for part in np.array_split(x, 3):
        running.update(0, part)
    kept, clean = running.result(), x[np.isfinite(x).all(axis=1)].astype(np.float64)
    assert kept.count[0] == len(clean)
    assert kept.nonfinite[0] == rows - len(clean)
    if len(clean):
        np.testing.assert_allclose(kept.mean[0], clean.mean(axis=0), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(kept.variance[0], clean.var(axis=0), rtol=1e-7, atol=1e-9)
        np.testing.assert_array_equal(kept.minimum[0], clean.min(axis=0))
        np.testing.assert_array_equal(kept.maximum[0], clean.max(axis=0))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e25])
def test_statistics_of_half_precision_are_those_of_float64(kind, scale):
    if kind == "float16" and not 1e-4 < scale < 1e5:
        pytest.skip("float16 holds no such numbers")
    rng = np.random.default_rng(0)
    numbers = torch.from_numpy(scale * (rng.normal(size=(700, 900)) + 5 * rng.normal(size=900)))
    numbers[:, 3] = scale  # constant
    numbers[123, 4] = np.inf
    stored = numbers.to(getattr(torch, kind))
    bits = stored.view(torch.int16).numpy().view(np.uint16 if kind == "bfloat16" else np.float16)
    bits.flags.writeable = False
    running = RunningStatistics(1, (900,))
    running.update(0, bits, bfloat16=kind == "bfloat16")
    exact = stored.double().numpy()
    exact = exact[np.isfinite(exact).all(axis=1)]
    kept = running.result()
    assert kept.count[0] == len(exact) and kept.nonfinite[0] == 700 - len(exact)
    np.testing.assert_allclose(kept.mean[0], exact.mean(axis=0), rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(kept.variance[0], exact.var(axis=0), rtol=1e-5, atol=0)
    np.testing.assert_array_equal(kept.minimum[0], exact.min(axis=0))
    np.testing.assert_array_equal(kept.maximum[0], exact.max(axis=0))
