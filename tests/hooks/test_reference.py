"""Sites against transformers' own hidden states, and against an independent float64 pass of a real trained
model."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import DECODERS, ENCODERS, MULTIMODAL, VOCAB, tiny_model

from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model

SENTENCE = "One day, a little boy named Tom went to the park with his mom."
ALL = (*DECODERS, *ENCODERS, *MULTIMODAL)
POST_NORM = ("opt_350m", *ENCODERS[:2])  # no final norm: the last hidden state is the last block's output


def rows(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(7, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def close(got: torch.Tensor, want: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Relative to the largest value, as float32 sums of many terms are."""
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


@pytest.mark.parametrize("name", ALL)
def test_residuals_are_transformers_hidden_states(name):
    model = load_model(tiny_model(name), check=False)
    ids, mask = pad(rows(12, 12))
    out = model.forward(ids, mask, sites=["embed", "resid_pre", "resid_post"])
    with torch.no_grad():
        reference = model.hf(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    states = reference.hidden_states
    close(out[SiteAt("embed")], states[0])
    for layer in range(model.n_layers):
        close(out[SiteAt("resid_pre", layer)], states[layer])
        if layer < model.n_layers - 1 or name in ENCODERS[:2]:
            close(out[SiteAt("resid_post", layer)], states[layer + 1])
    last = out[SiteAt("resid_post", model.n_layers - 1)]
    if name not in POST_NORM:
        assert float((last - states[-1]).abs().max()) > 0.01, "the last hidden state is after the final norm"
        close(model.hf.get_submodule(model.anatomy.final_norm)(last).detach(), states[-1])


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name):
    model = load_model(tiny_model(name), check=False)
    texts = rows(5, 11, 8)
    sites = [f"{site}[-1]" for site in ("resid_post", "attn_out", "mlp_out", "head_out")]
    right = model.forward(*pad(texts, side="right"), sites=sites)
    left = model.forward(*pad(texts, side="left"), sites=sites)
    for i, text in enumerate(texts):
        alone = model.forward(*pad([text]), sites=sites)
        for at, want in alone.items():
            close(right[at][i, : len(text)], want[0])
            close(left[at][i, -len(text) :], want[0])


@pytest.mark.parametrize("engine", ["huggingface", "nnsight", "transformer_lens"])
def test_stories_matches_its_reference(stories, engine):
    model = load_model(stories, engine=engine)
    reference = load_file(stories / "reference_activations.safetensors")
    sites = ["embed", "resid_post", "attn_out", "mlp_out", "final_norm", "attn_pattern"]
    acts = model.run(SENTENCE, sites=sites)
    close(acts["embed"][0], reference["residual"][0])
    for layer in range(model.n_layers):
        close(acts[f"resid_post[{layer}]"][0], reference["residual"][layer + 1])
        close(acts[f"attn_out[{layer}]"][0], reference["attn_out"][layer])
        close(acts[f"mlp_out[{layer}]"][0], reference["mlp_out"][layer])
        close(acts[f"attn_pattern[{layer}]"][0], reference["attention"][layer].transpose(0, 1))
    close(acts["final_norm"][0], reference["final_norm"])
    ids, mask = pad([model.encode(SENTENCE).input_ids])
    close(model.logits(ids, mask)[0], reference["logits"])
    close(model.lens.unembed(acts["resid_post[4]"][0]), reference["logits"])
    at = torch.tensor([[0, 22]])
    close(model.logits(ids, mask, positions=at)[0], reference["logits"][at[0]])


def test_stories_greedy_continuation(stories):
    model = load_model(stories)
    record = json.loads((stories / "reference_greedy.json").read_text())
    bos = torch.tensor([[model.tokenizer.bos_token_id]])
    ids = model.generate_ids(bos, torch.ones_like(bos), max_new_tokens=record["new_tokens"])
    assert ids[0].tolist()[: len(record["greedy_ids"])] == record["greedy_ids"]
