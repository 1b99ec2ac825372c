"""The self-check: it passes where hooks are right, is remembered, and names what is wrong where they are
not."""

import dataclasses

import pytest
import torch
from tiny_models import tiny_model

from layerprobe.hooks import check as checks
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.weights.load import load_model


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma3", "bert", "qwen3_moe"])
def test_passes_and_is_remembered(name):
    first = load_model(tiny_model(name), check=False).check()
    assert not first.remembered
    assert load_model(tiny_model(name), check=False).check().remembered
    assert not load_model(tiny_model(name), check=False).check(again=True).remembered
    assert not load_model(tiny_model(name, seed=1), check=False).check().remembered
    found = {f.name: f.difference for f in first.findings}
    assert set(found) == {
        "shapes",
        "hidden states",
        "head sums",
        "additive blocks",
        "lens",
        "padding",
        "intervention",
    }
    if name == "bert":
        assert found["additive blocks"] is None
        assert "post-norm" in str(first)


def test_a_pass_of_fewer_comparisons_is_not_remembered_as_one_of_all(monkeypatch):
    with monkeypatch.context() as fewer:
        fewer.setattr(checks, "COMPARISONS", checks.COMPARISONS[1:])
        load_model(tiny_model("llama"), check=False).check()
    assert not load_model(tiny_model("llama"), check=False).check().remembered


def broken(**changes):
    """A model whose anatomy is wrong in one place, as a new architecture's might be."""
    model = load_model(tiny_model("gemma2"), check=False)
    blocks = tuple(
        dataclasses.replace(parts, **{k: v(parts) for k, v in changes.items()})
        for parts in model.anatomy.blocks
    )
    model.anatomy = model.engine.anatomy = dataclasses.replace(model.anatomy, blocks=blocks)
    return model


def test_a_missed_post_norm_is_named():
    with pytest.raises(LayerprobeError, match=r"additive blocks is off by .* resid_post\[\d\]"):
        broken(mlp_out=lambda parts: parts.mlp).check()


def test_the_wrong_output_projection_is_named():
    with pytest.raises(LayerprobeError, match=r"head sums is off by .* attn_out\[\d\]"):
        broken(attn_out=lambda parts: parts.mlp_out).check()


def test_a_lens_without_its_softcap_is_named():
    model = load_model(tiny_model("gemma2"), check=False)
    model.engine.head = dataclasses.replace(model.engine.head, softcap=None)
    with pytest.raises(LayerprobeError, match="lens is off by"):
        model.check()


def test_positions_that_depend_on_padding_are_named():
    assert checks._padding(load_model(tiny_model("gpt2"), check=False)).difference < 1e-5
    learned = load_model(tiny_model("gpt2"), check=False)
    # transformers then numbers the columns, padding and all
    learned.engine._accepts.discard("position_ids")
    assert checks._padding(learned).difference > 1e-3


def test_values_that_are_not_finite_fail():
    assert checks.difference(torch.tensor([float("nan")]), torch.tensor([1.0])) != 0.0
    model = load_model(tiny_model("llama"), check=False)
    with pytest.raises(LayerprobeError, match="hidden states is off by nan"):
        checks._judge(model, checks.Finding("hidden states", float("nan"), 1e-4))
