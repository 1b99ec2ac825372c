"""Interventions with values or positions per text: each text gets its own, however the texts are batched."""

import pytest
import torch
from tiny_models import tiny_model

from layerprobe.hooks.edit_texts import describe, n_texts
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.interventions import ablate, add, patch
from layerprobe.hooks.weights.load import load_model

TEXTS = ["the cat sat on the mat", "a dog ran", "the cat", "dogs ran to the park and sat", "a b"]


@pytest.fixture(scope="module", params=("huggingface", "nnsight", "transformer_lens"))
def model(request):
    return load_model(tiny_model("llama"), engine=request.param, check=False)


def edits(model):
    """Edits for all texts, each with the function that gives the edit of one text."""
    generator = torch.Generator().manual_seed(0)
    longest = max(len(model.encode(text).input_ids) for text in TEXTS)
    tokens = 3 * torch.randn(len(TEXTS), longest, model.d_model, generator=generator)
    heads = torch.randn(len(TEXTS), model.n_heads, model.d_head, generator=generator)
    one = 3 * torch.randn(model.d_model, generator=generator)
    spans = torch.rand(len(TEXTS), longest, generator=generator) < 0.5
    at = torch.tensor([1, 0, -1, 2, 0])
    return {
        "tokens": lambda i: patch("mlp_out", layer=1, values=tokens[i]),
        "heads": lambda i: ablate(
            "head_out", layer=1, how="resample", values=heads[i], heads=[1], positions=0
        ),
        "spans": lambda i: ablate("resid_post", layer=0, positions=spans[i]),
        "positions": lambda i: add("resid_post", layer=0, vector=one, positions=at[i]),
        "values and positions": lambda i: patch("resid_mid", layer=1, values=tokens[i, 0], positions=at[i]),
    }


KINDS = ("tokens", "heads", "spans", "positions", "values and positions")


@pytest.mark.parametrize("kind", KINDS)
def test_run_gives_each_text_its_own(model, kind):
    edit = edits(model)[kind]
    everything = slice(None)
    with model.edit(edit(everything)):
        got = model.run(TEXTS, sites="resid_post[2]", batch_size=2)["resid_post[2]"]
    for index, text in enumerate(TEXTS):
        with model.edit(edit(slice(index, index + 1))):
            want = model.run([text], sites="resid_post[2]")["resid_post[2]"][0]
        assert torch.allclose(got[index], want, atol=1e-5), (kind, index)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_gives_each_text_its_own(model, kind):
    edit = edits(model)[kind]
    with model.edit(edit(slice(None))):
        got = model.generate(TEXTS, max_new_tokens=6)
    plain = model.generate(TEXTS, max_new_tokens=6)
    for index, text in enumerate(TEXTS):
        with model.edit(edit(slice(index, index + 1))):
            assert model.generate([text], max_new_tokens=6) == [got[index]], (kind, index)
    assert kind in ("heads", "positions") or got != plain  # the edit does something


def test_values_and_positions_for_different_numbers_of_texts_are_refused():
    model = load_model(tiny_model("llama"), check=False)
    values = torch.zeros(4, model.d_model)
    edit = patch("resid_post", layer=0, values=values, positions=torch.tensor([0, 1, 2]))
    with pytest.raises(LayerprobeError, match=r"values are for 4 texts, positions for 3"), model.edit(edit):
        pass


def test_too_few_tokens_are_refused_wherever_the_texts_go():
    model = load_model(tiny_model("llama"), check=False)
    with model.edit(patch("resid_post", layer=1, values=torch.zeros(len(TEXTS), 3, model.d_model))):
        for call in (lambda: model.run(TEXTS, sites="resid_post"), lambda: model.generate(TEXTS)):
            with pytest.raises(LayerprobeError, match="values for 3 tokens, and the longest of the texts"):
                call()
        ids = torch.full((len(TEXTS), 5), 9)
        with pytest.raises(LayerprobeError, match="given for 3 tokens and the text has 5"):
            model.logits(ids, torch.ones_like(ids))


def test_one_value_for_all_is_for_no_number_of_texts():
    width = 32
    for values in (torch.zeros(width), torch.zeros(1, width), torch.zeros(1, 7, width)):
        assert n_texts(patch("resid_post", layer=0, values=values)) is None
    assert n_texts(patch("resid_post", layer=0, values=torch.zeros(3, width))) == 3
    assert n_texts(patch("head_out", layer=0, values=torch.zeros(4, 8))) is None  # heads, not texts
    assert n_texts(ablate("mlp_out", layer=0, how="mean", values=torch.zeros(width))) is None


def test_a_description_is_plain_and_complete():
    edit = add("resid_post", layer=3, vector=[1.0, 2.0], scale=0.5, positions=slice(2, None))
    known = describe(edit)
    assert known["vector"]["shape"] == [2]
    assert {**known, "vector": None} == {
        "kind": "add",
        "site": "resid_post",
        "layer": 3,
        "vector": None,
        "scale": 0.5,
        "positions": {"slice": [2, None, None]},
    }
