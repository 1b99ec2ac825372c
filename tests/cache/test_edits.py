"""Captures under interventions: each prompt gets its own values, and the edit is part of what the file is."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from tiny_models import tiny_model

import layerprobe as lp
from layerprobe import LayerprobeError
from layerprobe.cache.store.sameness import model_fields
from layerprobe.hooks.edit_texts import describe

# of several lengths and out of order, so that a capture runs them in another order; two are the same
TEXTS = [
    "the cat sat on the mat",
    "a dog ran",
    "the cat",
    "dogs ran to the park and sat down",
    "a dog ran",
    "a b",
]


@pytest.fixture(scope="module")
def model():
    return lp.load_model(tiny_model("llama"), check=False)


def last(model, texts=TEXTS, **options):
    return lp.capture(
        model, texts, sites=["resid_post"], tokens="last", progress=False, batch_tokens=16, **options
    )


def alone(model, edits_of):
    """Each text in a run of its own, with its own edit."""
    rows = []
    for index, text in enumerate(TEXTS):
        ids = torch.tensor([model.encode(text).input_ids])
        with model.edit(edits_of(index)):
            out = model.forward(ids, torch.ones_like(ids), sites=["resid_post[2]"])
        rows.append(next(iter(out.values()))[0, -1].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("engine", ["huggingface", "nnsight", "transformer_lens"])
def test_an_edit_holds_during_capture(engine):
    model = lp.load_model(tiny_model("llama"), engine=engine, check=False)
    vector = torch.linspace(-1, 1, model.d_model)
    edit = lp.add("resid_post", layer=0, vector=vector, scale=2.0)
    with model.edit(edit):
        store = last(model)
    np.testing.assert_allclose(store.activations("resid_post", 2), alone(model, lambda _: edit), atol=1e-5)


def test_values_from_a_store_reach_their_own_prompts(model):
    values = last(model).activations("resid_post", 1)[::-1].copy()
    with model.edit(lp.patch("resid_post", layer=1, values=values, positions=-1)):
        store = last(model)
    np.testing.assert_array_equal(store.activations("resid_post", 1), values)
    want = alone(model, lambda i: lp.patch("resid_post", layer=1, values=values[i : i + 1], positions=-1))
    np.testing.assert_allclose(store.activations("resid_post", 2), want, atol=1e-5)


def test_values_per_token_and_positions_per_text_follow_their_prompts(model):
    generator = torch.Generator().manual_seed(0)
    longest = max(len(model.encode(text).input_ids) for text in TEXTS)
    values = torch.randn(len(TEXTS), longest, model.d_model, generator=generator)
    with model.edit(lp.ablate("mlp_out", layer=1, how="resample", values=values)):
        store = last(model)
    want = alone(model, lambda i: lp.ablate("mlp_out", layer=1, how="resample", values=values[i : i + 1]))
    np.testing.assert_allclose(store.activations("resid_post", 2), want, atol=1e-5)

    vector, where = torch.ones(model.d_model), torch.tensor([0, 1, 0, 2, 1, 0])
    with model.edit(lp.add("resid_post", layer=0, vector=vector, positions=where)):
        store = last(model)
    want = alone(model, lambda i: lp.add("resid_post", layer=0, vector=vector, positions=where[i : i + 1]))
    np.testing.assert_allclose(store.activations("resid_post", 2), want, atol=1e-5)

    spans = torch.rand(len(TEXTS), longest, generator=generator) < 0.5
    with model.edit(lp.ablate("resid_post", layer=0, positions=spans)):
        store = last(model)
    want = alone(model, lambda i: lp.ablate("resid_post", layer=0, positions=spans[i : i + 1]))
    np.testing.assert_allclose(store.activations("resid_post", 2), want, atol=1e-5)


def test_values_for_too_few_tokens_are_refused_before_anything_runs(model, tmp_path):
    values = torch.zeros(len(TEXTS), 3, model.d_model)
    with (
        model.edit(lp.patch("resid_post", layer=1, values=values)),
        pytest.raises(LayerprobeError, match=r"values for 3 tokens.*longest of the prompts has"),
    ):
        last(model, path=tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_another_number_of_texts_is_refused_before_anything_runs(model, tmp_path):
    values = torch.zeros(len(TEXTS) + 1, model.d_model)
    with (
        model.edit(lp.patch("resid_post", layer=1, values=values, positions=-1)),
        pytest.raises(LayerprobeError, match=r"7 texts.*6 prompts"),
    ):
        last(model, path=tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


WIDE = torch.arange(3000.0)
OTHER = WIDE + (WIDE == 1500)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lp.add("resid_post", layer=0, vector=WIDE), lp.add("resid_post", layer=0, vector=WIDE, scale=2.0)),
        (
            lp.add("resid_post", layer=0, vector=WIDE),
            lp.add("resid_post", layer=0, vector=OTHER),
        ),
        (lp.ablate("mlp_out", layer=0), lp.ablate("mlp_out", layer=0, how="mean", values=WIDE)),
        (lp.ablate("mlp_out", layer=0), lp.ablate("mlp_out", layer=0, positions=-1)),
        (
            lp.project_out("mlp_out", layer=0, directions=WIDE),
            lp.project_out("mlp_out", layer=1, directions=WIDE),
        ),
        (lp.patch("resid_post", layer=0, values=WIDE), lp.patch("resid_post", layer=0, values=WIDE.sqrt())),
    ],
)
def test_edits_that_differ_say_so(one, other):
    assert describe(one) == describe(one)
    assert describe(one) != describe(other)


def test_an_edited_capture_is_known_again_by_another_process(model, tmp_path):
    script = textwrap.dedent("""
        import sys, torch
        import layerprobe as lp
        from layerprobe.cache.identity import model_fields
        model = lp.load_model(sys.argv[1], check=False)
        vector = torch.linspace(-1, 1, model.d_model)
        with model.edit(lp.add("resid_post", layer=0, vector=vector, scale=2.0)):
            print(model_fields(model)["model.edits"])
    """)
    run = subprocess.run(
        [sys.executable, "-c", script, str(tiny_model("llama"))], capture_output=True, text=True
    )
    vector = torch.linspace(-1, 1, model.d_model)
    with model.edit(lp.add("resid_post", layer=0, vector=vector, scale=2.0)):
        assert str(model_fields(model)["model.edits"]) == run.stdout.strip()
        last(model, path=tmp_path / "a.h5")
        assert last(model, path=tmp_path / "a.h5").complete  # a finished match returns at once
    with pytest.raises(LayerprobeError, match=r"model\.edits"):
        last(model, path=tmp_path / "a.h5")
