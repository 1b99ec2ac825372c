"""What large models need: layers placed apart, offloaded weights, half precision, adapters, quantised
weights.

No machine with two GPUs was at hand: layers on different devices are tested with accelerate's offload to CPU
memory and to disk, where every weight rests on `meta` and is brought when its module runs.
"""

import importlib.util

import pytest
import torch
from tiny_models import build, tiny_model, tiny_tokenizer

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.interventions import ablate, add
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model
from layerprobe.hooks.weights.tensors import load_weights

SITES = ["embed", "resid_post", "attn_out", "mlp_out", "head_out", "final_norm"]


def same(got, want) -> None:
    assert set(got) == set(want)
    for at in want:
        assert torch.equal(got[at], want[at]), str(at)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
@pytest.mark.parametrize("how", ["memory", "disk"])
def test_offloaded_weights_give_the_same_activations(name, how, tmp_path):
    from accelerate import cpu_offload, disk_offload

    batch = pad([[8, 9, 10, 11, 12], [13, 14, 15]], side="left")
    plain = load_model(tiny_model(name), check=False)
    module = load_weights(str(tiny_model(name)), None, torch.float32, "cpu", None, None, False, False)
    if how == "memory":
        cpu_offload(module, execution_device=torch.device("cpu"))
    else:
        disk_offload(module, str(tmp_path), execution_device=torch.device("cpu"))
    assert next(module.parameters()).device.type == "meta"
    model = load_model(module, tokenizer=tiny_tokenizer(), check=False)
    assert model.device.type == "cpu"
    # twice: a pass that stops early must leave the offloading in order
    for _ in range(2):
        same(model.forward(*batch, sites=["resid_post[1]"]), plain.forward(*batch, sites=["resid_post[1]"]))
        same(model.forward(*batch, sites=SITES), plain.forward(*batch, sites=SITES))
    assert torch.equal(model.logits(*batch), plain.logits(*batch))
    edits = [add("resid_post", layer=0, vector=torch.ones(32)), ablate("head_out", layer=1, heads=0)]
    with model.edit(*edits), plain.edit(*edits):
        assert torch.equal(model.logits(*batch), plain.logits(*batch))
    at = SiteAt("resid_pre", 1)
    resid = plain.forward(*batch, sites=[at])[at]
    assert torch.equal(model.logits(*batch, start=(1, resid)), plain.logits(*batch, start=(1, resid)))
    assert (
        all(p.device.type == "meta" for p in module.model.layers[0].parameters()) if name == "llama" else True
    )


def test_device_map_auto_and_by_module(tmp_path):
    batch = pad([[8, 9, 10, 11]])
    plain = load_model(tiny_model("llama"), check=False)
    placed = load_model(tiny_model("llama"), device_map="auto", check=False)
    same(placed.forward(*batch, sites=SITES), plain.forward(*batch, sites=SITES))
    assert placed.device.type == "cpu"


def test_bfloat16_as_loaded():
    model = load_model(tiny_model("llama"), dtype="bf16")
    out = model.forward(*pad([[8, 9, 10]]), sites=["resid_post[0]"])
    assert next(iter(out.values())).dtype == torch.bfloat16
    want = load_model(tiny_model("llama"), check=False).forward(*pad([[8, 9, 10]]), sites=["resid_post[0]"])
    got, want = (next(iter(d.values())).float() for d in (out, want))
    assert float((got - want).abs().max() / want.abs().max()) < 0.03


def test_missing_optional_libraries_are_named():
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(LayerprobeError, match="pip install bitsandbytes"):
            load_model(tiny_model("llama"), quantization="8bit")
    with pytest.raises(LayerprobeError, match="choose '8bit' or '4bit'"):
        load_model(tiny_model("llama"), quantization="2bit")
    if importlib.util.find_spec("peft") is None:
        with pytest.raises(LayerprobeError, match="pip install peft"):
            load_model(tiny_model("llama"), adapter="somewhere")


def test_adapters_merged_and_beside(tmp_path):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(
        r=2, lora_alpha=8, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights=False
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(build("llama"), settings).eval()
    adapted.save_pretrained(tmp_path)
    ids, mask = pad([[8, 9, 10, 11]])
    with torch.no_grad():
        want = adapted(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    base = load_model(tiny_model("llama"), check=False)
    for merge in (False, True):
        model = load_model(tiny_model("llama"), adapter=tmp_path, merge_adapter=merge)
        out = model.forward(ids, mask, sites=["resid_post"])
        for layer in (0, 1):
            assert torch.allclose(out[SiteAt("resid_post", layer)], want.hidden_states[layer + 1], atol=1e-5)
        assert torch.allclose(model.logits(ids, mask), want.logits, atol=1e-5)
        assert model.identity.weights_sha256 != base.identity.weights_sha256
    with pytest.raises(LayerprobeError, match="cannot put the adapter"):
        load_model(tiny_model("llama"), adapter=tmp_path / "nothing")


@pytest.mark.gpu
def test_quantised_weights_on_a_gpu():
    pytest.importorskip("bitsandbytes")
    if not torch.cuda.is_available():
        pytest.skip("8-bit weights need a CUDA device")
    model = load_model(tiny_model("llama"), quantization="8bit", check=False)
    assert model.logits(*pad([[8, 9, 10]])).isfinite().all()
