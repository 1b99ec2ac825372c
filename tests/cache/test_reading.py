"""Reading a store: as arrays, tensors, tables, batches, selections, by many processes at once."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, from_arrays, linear_probe, load_model, open_store
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store.info import describe

TEXTS = ["the dog was late .", "who was at the park ?", "yes", "one two three", "the cat", "no no no"]


@pytest.fixture(scope="module")
def table():
    return PromptTable(
        tuple("abcdef"),
        tuple(TEXTS),
        {"label": np.array(list("xyxyxy"), dtype=object), "number": np.arange(6)},
    )


@pytest.fixture(scope="module", params=["last", "all"])
def store(request, table, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "s.h5"
    model = load_model(tiny_model("llama"), check=False)
    return capture(
        model,
        table,
        sites=["resid_post", "lens"],
        tokens=request.param,
        lens_tokens=[],
        path=path,
        progress=False,
    )


def test_slices_are_maps_and_cannot_be_written(store):
    rows = store.activations("resid_post", 1, rows=slice(1, 3))
    assert not rows.flags.writeable
    assert rows.base is not None
    np.testing.assert_array_equal(rows, store.activations("resid_post")[1, 1:3])


def test_a_tensor_is_its_owners_alone(store):
    before = store.activations("resid_post", 0).copy()
    store.activations("resid_post", 0, as_torch=True).zero_()
    np.testing.assert_array_equal(store.activations("resid_post", 0), before)
    np.testing.assert_array_equal(open_store(store.path).activations("resid_post", 0), before)


def test_a_selection_is_a_store(store):
    mask = store.labels("label") == "y"
    part = store.select(mask).select(slice(1, None))
    rows = np.flatnonzero(mask)[1:]
    np.testing.assert_array_equal(part.activations("resid_post"), store.activations("resid_post")[:, rows])
    np.testing.assert_array_equal(part.lens.top_ids, store.lens.top_ids[:, rows])
    np.testing.assert_array_equal(part.ids, store.ids[rows])
    np.testing.assert_array_equal(part.lengths, store.lengths[rows])
    for row in range(part.n_rows):
        assert part.texts[part.examples[row]] == store.texts[store.examples[rows[row]]]
    assert [list(ids) for ids in part.token_ids()] == [
        list(store.token_ids()[i]) for i in np.unique(store.examples[rows])
    ]
    # means of values of both signs come near zero, and are as exact as the values are large
    values = store.activations("resid_post")[:, rows].astype(np.float64)
    near = 1e-6 * np.abs(values).max()
    np.testing.assert_allclose(part.statistics("resid_post").mean, values.mean(axis=1), rtol=0, atol=near)


def test_pandas(store):
    frame = store.to_frame("resid_post", 2)
    assert list(frame["label"]) == list(store.labels("label"))
    np.testing.assert_array_equal(
        frame[[str(i) for i in range(32)]].to_numpy(), store.activations("resid_post", 2)
    )
    with pytest.raises(LayerprobeError, match="needs one layer"):
        store.to_frame("resid_post")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_shuffles_all_rows_in_any_number_of_workers(store, workers):
    data = store.dataset("resid_post", 1, label="number")
    generator = torch.Generator().manual_seed(0)
    loader = torch.utils.data.DataLoader(
        data,
        batch_size=4,
        shuffle=True,
        num_workers=workers,
        generator=generator,
        multiprocessing_context="fork" if workers else None,
    )
    x, y = (torch.cat(part) for part in zip(*loader, strict=True))
    expected = store.activations("resid_post", 1)
    assert len(x) == store.n_rows
    order = torch.argsort(x[:, 0], stable=True)
    np.testing.assert_array_equal(x[order], expected[np.argsort(expected[:, 0], kind="stable")])
    assert sorted(y.tolist()) == sorted(store.labels("number").tolist())


def test_a_dataset_travels_as_a_path(store):
    part = store.select(slice(1, 4)).dataset("resid_post", 1)
    sent = pickle.dumps(part)
    assert len(sent) < 2000
    np.testing.assert_array_equal(
        torch.stack(list(pickle.loads(sent))), store.activations("resid_post", 1)[1:4]
    )


def total(path):
    return float(open_store(path).activations("resid_post", 1).sum())


def test_many_processes_read_at_once(store):
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert len(set(pool.map(total, [store.path] * 4))) == 1


def test_a_file_describes_itself(store):
    words = describe(store.path)
    for part in (
        "complete",
        "resid_post: layers 0-2 (3)",
        "label label: x, y",
        "weights sha256",
        "lens: layers 0-2",
    ):
        assert part in words


def test_a_selection_of_nothing_is_called_that():
    store = from_arrays({"resid_post": np.ones((2, 4, 3))}, labels={"label": list("xyxy")})
    empty = store.select(store.labels("label") == "z")
    assert empty.n_rows == empty.n_prompts == 0
    with pytest.raises(LayerprobeError, match="0 rows selected"):
        linear_probe(empty, label="label", groups=None)
