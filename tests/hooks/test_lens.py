"""Lenses: the logit lens against a float64 recomputation, and the tuned lens from training to use by name."""

import pytest
import torch
from tiny_models import DECODERS, tiny_model

from layerprobe.hooks import lenses as lens_module
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.tuned_lens import load_tuned_lens, train_tuned_lens
from layerprobe.hooks.weights.load import load_model

TEXTS = ["the cat was late", "who was at the park ?", "the old baker and the young pilot were in the house"]


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("gemma2"), check=False)


def double_logits(model, resid: torch.Tensor) -> torch.Tensor:
    """Gemma-2's head in float64, by its formula: RMS norm with 1 + w, tied unembedding, softcap 5."""
    x = resid.double()
    weight = 1 + model.hf.model.norm.weight.detach().double()
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + model.config.rms_norm_eps) * weight
    logits = x @ model.hf.lm_head.weight.detach().double().T
    return 5.0 * torch.tanh(logits / 5.0)


def test_readout_against_float64(model, monkeypatch):
    monkeypatch.setattr(
        lens_module, "CHUNK_ELEMENTS", 3 * model.vocab_size
    )  # several chunks, the last one short
    resid = torch.randn(10, model.d_model)
    ids = torch.randint(0, model.vocab_size, (10, 3))
    ids[2, 1] = ids[5] = -1
    final = torch.randn(10, model.vocab_size).log_softmax(-1)
    out = model.lens.read(resid, layer=1, candidate_ids=ids, top_k=4, final_log_probs=final)
    want = double_logits(model, resid)
    assert torch.allclose(out.logsumexp.double(), want.logsumexp(-1), atol=1e-5)
    assert torch.equal(out.top_ids, want.topk(4).indices)
    assert torch.allclose(out.top_logits.double(), want.topk(4).values, atol=1e-5)
    for row in range(10):
        for c in range(3):
            token = int(ids[row, c])
            if token < 0:
                assert torch.isnan(out.candidate_logits[row, c])
                assert out.candidate_ranks[row, c] == -1
            else:
                assert abs(float(out.candidate_logits[row, c] - want[row, token])) < 1e-5
                assert out.candidate_ranks[row, c] == int((want[row] > want[row, token]).sum())
    kl = (final.double().exp() * (final.double() - want.log_softmax(-1))).sum(-1)
    assert torch.allclose(out.kl_to_final.double(), kl, atol=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_last_layer_is_the_models_logits(name):
    model = load_model(tiny_model(name), check=False)
    ids, mask = pad([[8, 9, 10, 11, 12]])
    resid = model.forward(ids, mask, sites=["resid_post[-1]"])
    with torch.no_grad():
        want = model.hf(input_ids=ids, attention_mask=mask).logits
    got = model.lens.unembed(next(iter(resid.values())))
    assert float((got - want).abs().max()) < 1e-3
    at = torch.tensor([3])
    assert torch.allclose(model.logits(ids, mask, positions=at), want[:, 3], atol=1e-5)


def test_a_reading_in_the_middle_of_a_pass_disturbs_nothing(model):
    """The lens runs the final norm; a hook on the final norm must not take that for the pass's own."""
    acts = model.run(TEXTS, sites=["lens", "final_norm", "resid_post[-1]"])
    again = model.run(TEXTS, sites=["final_norm"])
    for i in range(len(TEXTS)):
        assert torch.equal(acts["final_norm"][i], again["final_norm"][i])
        assert acts["lens[0]"][i].top_ids.shape == (len(acts.tokens[i]), 5)


def test_a_layer_that_is_not_there_is_refused(model):
    with pytest.raises(LayerprobeError, match="layer 12 is out of range"):
        model.lens.read(torch.zeros(1, model.d_model), layer=12)


def test_no_head_no_lens():
    model = load_model(tiny_model("bert"), check=False)
    with pytest.raises(LayerprobeError, match="no unembedding"):
        _ = model.lens
    with pytest.raises(LayerprobeError, match="no language-model head"):
        model.logits(*pad([[5, 6]]))
    with pytest.raises(LayerprobeError, match="no unembedding"):
        model.run("the cat", sites=["lens"])


def test_tuned_lens_learns_is_saved_and_used_by_name(tmp_path):
    model = load_model(tiny_model("llama"), check=False)
    before = {name: p.detach().clone() for name, p in model.hf.named_parameters()}
    lens = train_tuned_lens(
        model, TEXTS * 4, steps=60, tokens_per_step=64, learning_rate=1e-2, progress=False
    )
    acts = model.run(TEXTS, sites=["resid_post"])
    final = model.lens.unembed(torch.cat(acts["resid_post[2]"])).log_softmax(-1)

    def distance(reader, layer: int) -> float:
        rows = torch.cat(acts[f"resid_post[{layer}]"])
        return float(reader.read(rows, layer=layer, final_log_probs=final).kl_to_final.mean())

    for layer in (0, 1):
        assert distance(lens, layer) < 0.5 * distance(model.lens, layer)
    assert distance(lens, 2) == pytest.approx(distance(model.lens, 2), abs=1e-6)
    for name, parameter in model.hf.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])
    lens.save(tmp_path / "lens.safetensors")
    fresh = load_model(tiny_model("llama"), check=False)
    loaded = load_tuned_lens(fresh, tmp_path / "lens.safetensors")
    assert fresh.get_lens("tuned") is loaded
    rows = torch.cat(acts["resid_post[1]"])
    assert torch.equal(loaded.unembed(rows, layer=1), lens.unembed(rows, layer=1))
    with pytest.raises(LayerprobeError, match="trained for other weights"):
        load_tuned_lens(load_model(tiny_model("llama", seed=1), check=False), tmp_path / "lens.safetensors")
    with pytest.raises(LayerprobeError, match="no lens 'other': there are logit, tuned"):
        fresh.get_lens("other")
    with pytest.raises(LayerprobeError, match="no tuned lens at"):
        load_tuned_lens(fresh, tmp_path / "nothing")
