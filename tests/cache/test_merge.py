"""Shards become one store: by an index, or one file; a missing or changed one is named."""

import os

import h5py
import numpy as np
import pytest
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, open_store
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store.info import describe
from layerprobe.cache.store.merge import merge
from layerprobe.cache.store.verify import verify
from layerprobe.cache.workers.jobs import capture_shard, shard_of

WORDS = ("dog", "cat", "baker", "pilot", "house", "park", "happy")
TEXTS = [f"the {WORDS[i % 7]} was late . {' '.join(WORDS[: i % 5])}" for i in range(23)]
OPTIONS = {"sites": ["resid_post", "embed", "lens"], "lens_tokens": ["answer"], "dtype": "bfloat16"}


@pytest.fixture(scope="module")
def table():
    answers = np.array([["yes", "no", "Unknown"][i % 3] for i in range(23)], dtype=object)
    return PromptTable(tuple(f"p{i}" for i in range(23)), tuple(TEXTS), {"answer": answers}, name="t")


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture(scope="module")
def whole(model, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "w.h5"
    return capture(model, table, path=path, tokens="all", progress=False, **OPTIONS)


@pytest.fixture
def shards(model, table, tmp_path):
    return [
        capture_shard(
            model,
            shard_of(table, i, 3),
            index=i,
            of=3,
            prompts=table.sha256,
            folder=tmp_path,
            options={"tokens": "all", **OPTIONS},
        )
        for i in range(3)
    ]


def check_same(joined, whole):
    for site in whole.sites:
        np.testing.assert_allclose(joined.activations(site), whole.activations(site), atol=0.05)
        rows = [3, 40, 41, 2]
        layer = 1 if joined.layers(site) else None
        np.testing.assert_array_equal(
            joined.activations(site, layer, rows=rows), joined.activations(site, layer)[rows]
        )
    for name in ("ids", "positions", "lengths", "examples"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    assert joined.texts == whole.texts
    assert list(joined.labels("answer")) == list(whole.labels("answer"))
    np.testing.assert_array_equal(joined.lens.candidate_ids, whole.lens.candidate_ids)
    np.testing.assert_allclose(joined.lens.logsumexp, whole.lens.logsumexp, atol=1e-3)


def test_an_index_reads_as_one_store(shards, whole, tmp_path):
    joined = merge(reversed(shards), tmp_path / "all.h5")
    check_same(joined, whole)
    check_same(open_store(tmp_path / "all.h5"), whole)
    assert verify(tmp_path / "all.h5").ok
    with h5py.File(tmp_path / "all.h5") as file:
        np.testing.assert_array_equal(file["activations/resid_post"][()], joined.activations("resid_post"))
        np.testing.assert_array_equal(file["activations/embed"][()], joined.activations("embed"))


def test_consolidated_is_the_undivided_capture(shards, whole, model, table, tmp_path, monkeypatch):
    one = merge(shards, tmp_path / "one.h5", consolidate=True)
    check_same(one, whole)
    assert verify(one.path).ok
    assert one.identity == whole.identity
    np.testing.assert_allclose(
        one.statistics("resid_post").mean, whole.statistics("resid_post").mean, atol=1e-3
    )
    monkeypatch.setattr(type(model), "forward", lambda *a, **k: pytest.fail("the model ran"))
    assert capture(model, table, path=one.path, tokens="all", progress=False, **OPTIONS).complete


def test_a_missing_a_changed_and_a_foreign_shard_are_named(shards, model, table, tmp_path):
    with pytest.raises(LayerprobeError, match=r"1 of 3 shards are missing: .*shard-0001\.h5"):
        merge([shards[0], shards[2]], tmp_path / "x.h5")
    with pytest.raises(LayerprobeError, match="shard 0 was given 2 times"):
        merge([*shards, shards[0]], tmp_path / "x.h5")
    other = tmp_path / "other.h5"
    capture(model, table[:3], path=other, tokens="last", progress=False, **OPTIONS)
    with pytest.raises(LayerprobeError, match=r"another capture.*tokens"):
        merge([other, shards[1]], tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
    merge(shards, tmp_path / "all.h5")
    moved = shards[1].rename(tmp_path / "away.h5")
    with pytest.raises(LayerprobeError, match=r"shard-0001\.h5 is missing"):
        open_store(tmp_path / "all.h5")
    with h5py.File(tmp_path / "all.h5") as file:
        assert np.isnan(file["activations/resid_post"][()]).any()
    os.rename(shards[2], shards[1])
    moved.rename(shards[2])
    with pytest.raises(LayerprobeError, match="not the store it was"):
        open_store(tmp_path / "all.h5")
    assert not verify(tmp_path / "all.h5").ok


def test_an_index_is_described_with_the_state_of_its_shards(shards, table, tmp_path):
    out = tmp_path / "all.h5"
    merge(shards, out)
    said = describe(out)
    assert "index of 3 stores, 3 of them complete" in said
    assert "shard-0001.h5: 8 prompts" in said
    assert "23 prompts" in said and "label answer" in said
    shards[1].unlink()
    broken = describe(out)
    assert "2 of them complete" in broken and "MISSING" in broken and "does not open" in broken
