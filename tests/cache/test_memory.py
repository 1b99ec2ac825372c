"""A store over arrays answers as a file does, and says what does not fit."""

import numpy as np
import pytest
import torch

from layerprobe import LayerprobeError, from_arrays


def example(**options):
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    return x, from_arrays(
        {"resid_post": x}, labels={"label": ["a", "b", "a"], "score": [1.0, 2.0, 3.0]}, **options
    )


def test_layers_rows_and_masks_select_the_same_numbers():
    x, store = example(groups=[0, 0, 1])
    assert (store.n_rows, store.n_prompts, store.sites, store.layers("resid_post")) == (
        3,
        3,
        ("resid_post",),
        (0, 1),
    )
    np.testing.assert_array_equal(store.activations("resid_post", 1), x[1])
    np.testing.assert_array_equal(store.activations("resid_post"), x)
    for rows in (slice(1, 3), [1, 2], np.array([False, True, True])):
        np.testing.assert_array_equal(store.activations("resid_post", 0, rows=rows), x[0, 1:])
    assert list(store.labels("label")) == ["a", "b", "a"]
    assert store.labels("score").dtype == float
    assert list(store.groups) == [0, 0, 1]
    assert [len(part) for part in store.iter_rows("resid_post", 0, batch=2)] == [2, 1]


def test_several_rows_of_a_prompt_repeat_what_is_known_of_it():
    store = from_arrays(
        {"resid_post": np.zeros((1, 5, 2))},
        labels={"label": [7, 8]},
        examples=[0, 0, 0, 1, 1],
        positions=[0, 1, 2, 0, 1],
    )
    assert list(store.labels("label")) == [7, 7, 7, 8, 8]
    assert (store.n_prompts, store.tokens) == (2, "all")


def test_torch_arrays_come_in_and_go_out_exactly():
    x = torch.randn(2, 3, 4, dtype=torch.bfloat16)
    store = from_arrays({"resid_post": x})
    torch.testing.assert_close(
        store.activations("resid_post", 1, as_torch=True), x[1].float(), rtol=0, atol=0
    )


@pytest.mark.parametrize(
    "arrays, options, words",
    [
        ({"resid_post": np.zeros((3, 4))}, {}, r"expected \[layers, rows, width\]"),
        ({"resid_post": np.zeros((1, 3, 4))}, {"labels": {"y": [1, 2]}}, "3 prompts"),
        (
            {"resid_post": np.zeros((1, 3, 4)), "embed": np.zeros((2, 4))},
            {},
            "differ in their number of rows",
        ),
        ({"resid_post": np.zeros((1, 3, 4), dtype=int)}, {}, "floating-point"),
        ({}, {}, "no arrays"),
    ],
)
def test_what_does_not_fit_is_named(arrays, options, words):
    with pytest.raises(LayerprobeError, match=words):
        from_arrays(arrays, **options)


def test_missing_sites_layers_and_labels_are_named():
    _, store = example()
    with pytest.raises(LayerprobeError, match="capture with sites"):
        store.activations("mlp_out", 0)
    with pytest.raises(LayerprobeError, match="has layers 0-1"):
        store.activations("resid_post", 5)
    with pytest.raises(LayerprobeError, match="'label', 'score'"):
        store.labels("nope")
