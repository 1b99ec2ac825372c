"""What people do in notebooks: cells run again with something changed, interrupted, given odd things."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cache_support import texts
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, open_store
from layerprobe.cache.capture import assembly, pipeline
from layerprobe.cache.capture.plan import plan
from layerprobe.cache.prompts.table import PromptTable

CHAT = [{"role": "user", "content": "who was late ?"}]


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False)


def table(prompts=("the dog was late", "the cat"), ids=("a", "b"), **columns):
    return PromptTable(tuple(ids), tuple(prompts), name="t", **columns)


def run(model, prompts, **options):
    return capture(model, prompts, **{"sites": ["resid_post"], "progress": False, **options})


def labels(**columns):
    return {name: np.array(values) for name, values in columns.items()}


@pytest.mark.parametrize(
    "again, said",
    [
        (
            table(labels=labels(y=[1, 1])),
            r"prompts \(label 'y' \(differs in 1 of 2\); the texts are the same, so",
        ),
        (table(labels=labels(z=[0, 1])), r"label 'y' \(only in the file\); label 'z' \(only asked for\)"),
        (table(labels=labels(y=[0, 1]), groups=np.array([1, 2])), r"prompts \(groups \(only asked for\)\)"),
        (table(("the dog was late", "a cat"), labels=labels(y=[0, 1])), r"prompts \(texts of 1, first 'b'\)"),
        (table(ids=("a", "c"), labels=labels(y=[0, 1])), r"prompts \(ids \(differs in 1 of 2\)\)"),
        (table(("the dog",), ids=("a",), labels=labels(y=[0])), r"prompts \(2 in the file, 1 asked for\)"),
    ],
)
def test_a_cell_run_again_with_other_prompts_says_what_is_other(model, tmp_path, again, said):
    path = tmp_path / "a.h5"
    run(model, table(labels=labels(y=[0, 1])), path=path)
    with pytest.raises(LayerprobeError, match=said):
        run(model, again, path=path)


def test_other_labels_on_the_same_activations(model, tmp_path):
    from layerprobe import from_arrays

    store = run(model, table(labels=labels(y=[0, 1])), path=tmp_path / "a.h5")
    other = from_arrays({"resid_post": store.activations("resid_post")}, labels=labels(z=[5, 6]))
    assert other.labels("z").tolist() == [5, 6]


def test_an_interrupted_cell_goes_on_in_the_same_process(model, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK_BYTES", 4_000)
    path, prompts = tmp_path / "a.h5", texts(60)
    whole = run(model, prompts, batch_tokens=64)
    real, calls = pipeline.run_batch, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(pipeline, "run_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, prompts, path=path, batch_tokens=64)
    held = open_store(path)
    assert not held.complete
    done = run(model, prompts, path=path, batch_tokens=64)
    assert done.complete
    np.testing.assert_allclose(done.activations("resid_post"), whole.activations("resid_post"), atol=1e-5)
    assert not held.complete  # it says what was there when it was opened
    assert open_store(path).complete


def test_a_home_folder_and_a_changed_working_directory(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run(model, ["the dog"], path="~/runs/a.h5")
    assert (tmp_path / "home/runs/a.h5").exists()
    assert not (tmp_path / "~").exists()
    assert open_store("~/runs/a.h5").complete
    run(model, ["the dog"], path="b.h5")
    store = open_store("b.h5")
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    assert store.activations("resid_post", 0).shape == (1, 32)


def test_a_file_deleted_after_it_was_opened_is_named(model, tmp_path):
    path = tmp_path / "a.h5"
    run(model, ["the dog"], path=path)
    store = open_store(path)
    path.unlink()
    with pytest.raises(LayerprobeError, match=r"a\.h5 was deleted or moved after it was opened"):
        store.activations("resid_post", 0)


@pytest.mark.parametrize("how", [run, plan])
def test_a_model_that_was_not_loaded(how):
    with pytest.raises(LayerprobeError, match="expected a model from load_model, got PosixPath"):
        how(Path("somewhere"), ["the dog"], sites=["embed"])


@pytest.mark.parametrize(
    "prompts, said",
    [
        (pd.DataFrame({"text": ["the dog"]}), r"got DataFrame: read_prompts\(frame, text=COLUMN\)"),
        ({"text": ["the dog"]}, "got dict"),
        ([1, 2], "got int at 0"),
        (["the dog", None], "got NoneType at 1"),
        (["the dog", CHAT], "texts and chats in one list"),
        ([], "no prompts"),
        ("the dog", "got one text"),
    ],
)
def test_what_is_no_list_of_prompts(model, prompts, said):
    with pytest.raises(LayerprobeError, match=said):
        run(model, prompts)


def test_iterators_and_chats_are_lists_of_prompts(model):
    assert run(model, (text for text in ["the dog", "the cat"])).n_rows == 2
    store = run(model, [CHAT, CHAT])
    assert store.texts[0] == model.encode(CHAT).text
    assert run(model, np.array(["the dog"])).n_rows == 1


@pytest.mark.parametrize("prompt", ["bad \ud800 text", [{"role": "user", "content": "bad \ud800 text"}]])
def test_half_a_surrogate_pair_is_named(model, prompt):
    with pytest.raises(LayerprobeError, match=r"is not valid Unicode text: '\\ud800' at character \d+"):
        run(model, [prompt])
    with pytest.raises(LayerprobeError, match="is not valid Unicode text"):
        model.run([prompt], sites="embed")


@pytest.mark.parametrize("prompt", [1, None, b"the dog", ["the dog"]])
def test_what_is_neither_text_nor_chat(model, prompt):
    with pytest.raises(LayerprobeError, match="a prompt is a text or a list of chat messages"):
        model.run([prompt], sites="embed")


def test_odd_texts_come_back_as_they_were(model, tmp_path):
    odd = ["the dog \U0001f600", "a\x00b", "\u202ethe cat", "\n", "the"]
    store = run(model, odd, path=tmp_path / "a \u00e9*?:b.h5")
    assert list(open_store(store.path).texts) == odd


@pytest.mark.parametrize(
    "options, said",
    [
        ({"tokens": ["last"]}, "one rule per store"),
        ({"tokens": None}, "expected a token rule"),
        ({"top_k": -1, "sites": ["lens"]}, "top_k=-1"),
        ({"batch_tokens": True}, "batch_tokens=True"),
    ],
)
def test_odd_options_are_refused(model, options, said):
    with pytest.raises(LayerprobeError, match=said):
        run(model, ["the dog"], **options)


def test_numpy_and_torch_kinds_of_options(model):
    store = run(model, ["the dog was late"] * 2, batch_tokens=np.int64(2), dtype=torch.float16)
    assert store.dtype == "float16"
