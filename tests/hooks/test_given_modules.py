"""What is handed in instead of a plain module: it gives the module's numbers, or is refused."""

import pytest
import torch
import transformers
from tiny_models import VOCAB, build, tiny_config, tiny_tokenizer
from torch import nn

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model

IDS, MASK = pad([[8, 9, 10, 11, 12], [12, 13]])
AT = SiteAt("resid_post", 1)


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))


def states():
    with torch.no_grad():
        return build("llama")(IDS, attention_mask=MASK, output_hidden_states=True).hidden_states[2]


def offloaded(module):
    from accelerate import cpu_offload

    return cpu_offload(module, execution_device=torch.device("cpu"))


WRAPPERS = {
    "plain": lambda module: module,
    "DataParallel": nn.DataParallel,
    "compiled": torch.compile,
    "offloaded": offloaded,
    "compiled DataParallel": lambda module: torch.compile(nn.DataParallel(module)),
}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_numbers_and_the_identity_are_those_of_the_module(kind):
    model = load_model(WRAPPERS[kind](build("llama")), tokenizer=tiny_tokenizer())
    got = model.forward(IDS, MASK, sites=[AT])[AT]
    assert torch.allclose(got[MASK == 1], states()[MASK == 1], atol=1e-5)
    plain = load_model(build("llama"), tokenizer=tiny_tokenizer(), check=False)
    assert model.identity.weights_sha256 == plain.identity.weights_sha256


def test_what_cannot_run_is_refused_by_name():
    with torch.device("meta"):
        hollow = transformers.AutoModelForCausalLM.from_config(tiny_config("llama")).eval()
    with pytest.raises(LayerprobeError, match=r"has no weights: .*embed_tokens.* is on the meta device"):
        load_model(hollow, tokenizer=tiny_tokenizer())
    compiled = build("llama")
    compiled.compile()
    with pytest.raises(LayerprobeError, match=r"compiled in place"):
        load_model(compiled, tokenizer=tiny_tokenizer())
    with pytest.raises(LayerprobeError, match="got a Linear without a config"):
        load_model(nn.Linear(2, 2), tokenizer=tiny_tokenizer())


@pytest.mark.parametrize(("version", "warned"), [("5.12.1", True), ("5.0.0", True), ("5.13.0", False)])
def test_olmo_3_under_a_version_that_computes_it_wrongly(version, warned, monkeypatch, recwarn):
    config = transformers.Olmo3Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCAB,
        pad_token_id=0,
    )
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    monkeypatch.setattr("layerprobe.hooks.identity.versions", lambda extra=(): {"transformers": version})
    load_model(module, tokenizer=tiny_tokenizer(), check=False)
    assert any("rotary embedding wrongly" in str(w.message) for w in recwarn) == warned
