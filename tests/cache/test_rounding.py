"""What is rounded is said, and rounded once."""

import logging

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

import layerprobe as lp
from layerprobe import capture, load_model

TEXTS = ["the dog was late .", "who was at the park ?", "yes", "one two three"]


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_float16_cannot_hold_is_counted_and_named(tmp_path, caplog, on_disk):
    model = load_model(tiny_model("llama"), check=False)
    options = {"sites": ["resid_pre[1]", "resid_post"], "progress": False}
    big = lp.add("resid_post", layer=1, vector=np.full(32, 1e6, dtype=np.float32))
    with model.edit(big), caplog.at_level(logging.WARNING):
        path = tmp_path / "a.h5" if on_disk else None
        store = capture(model, TEXTS, dtype="float16", path=path, **options)
        assert np.isinf(store.activations("resid_post", 1)).all()
        assert (
            "8 rows hold NaN or infinity (resid_post[1] 4, resid_post[2] 4 of 4; first row 0" in caplog.text
        )
        assert "dtype='bfloat16'" in caplog.text and "resid_pre" not in caplog.text
        caplog.clear()
        path = tmp_path / "b.h5" if on_disk else None
        capture(model, TEXTS, dtype="float32", path=path, **options)
        assert caplog.text == ""


def test_pooled_means_are_rounded_once_to_the_stored_type():
    model = load_model(tiny_model("llama"), check=False, dtype="bfloat16")
    options = {"sites": ["resid_post"], "dtype": "float32", "batch_tokens": 1, "progress": False}
    every = capture(model, TEXTS, tokens="content", **options)
    pooled = capture(model, TEXTS, tokens="content:mean", **options)
    rows = every.activations("resid_post").astype(np.float64)
    exact = np.stack([rows[:, every.examples == prompt].mean(axis=1) for prompt in range(len(TEXTS))], axis=1)
    np.testing.assert_allclose(pooled.activations("resid_post"), exact, rtol=1e-5, atol=1e-6)
    assert torch.finfo(torch.bfloat16).eps > 1e-3  # rounded to the model's type they would be off by so much


def test_the_lens_reads_pooled_means_in_the_models_type():
    model = load_model(tiny_model("llama"), check=False, dtype="bfloat16")
    store = capture(model, TEXTS, sites="lens", tokens="mean", progress=False)
    assert np.isfinite(store.lens.logsumexp).all()
