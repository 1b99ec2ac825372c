"""load_model: what it refuses, and what it says about a model."""

import json
import shutil

import pytest
import torch
from tiny_models import build, tiny_model, tiny_tokenizer

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.weights.load import load_model


@pytest.fixture
def broken(tmp_path):
    """A copy of a tiny Llama folder to break."""
    return shutil.copytree(tiny_model("llama"), tmp_path / "model")


def test_folder_that_is_not_there():
    with pytest.raises(LayerprobeError, match="no folder"):
        load_model("/nowhere/at/all")


def test_folder_that_is_no_model(tmp_path):
    with pytest.raises(LayerprobeError, match=r"no config\.json"):
        load_model(tmp_path)


def test_file_instead_of_folder(broken):
    with pytest.raises(LayerprobeError, match="is a file"):
        load_model(broken / "config.json")


def test_hub_id_that_is_not_downloaded():
    with pytest.raises(LayerprobeError, match="cannot load 'nobody/nothing'"):
        load_model("nobody/nothing")


def test_missing_tokenizer(broken):
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (broken / file).unlink(missing_ok=True)
    with pytest.raises(LayerprobeError, match="has no tokenizer"):
        load_model(broken)


@pytest.mark.parametrize("dtype", ["int8", "float3", 7])
def test_bad_dtype(dtype):
    with pytest.raises(LayerprobeError, match="choose float32"):
        load_model(tiny_model("llama"), dtype=dtype)


def test_bad_device():
    with pytest.raises(LayerprobeError, match="cannot be used"):
        load_model(tiny_model("llama"), device="cuda:99")


def test_bad_engine():
    with pytest.raises(LayerprobeError, match="huggingface, transformer_lens, nnsight"):
        load_model(tiny_model("llama"), engine="jax")


def test_missing_shard(tmp_path):
    folder = tmp_path / "sharded"
    build("llama").save_pretrained(folder, max_shard_size="20KB")
    tiny_tokenizer().save_pretrained(folder)
    assert load_model(folder, check=False).n_layers == 3
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(LayerprobeError, match=rf"lacks 1 of .* first {shard.name}"):
        load_model(folder)


def test_weights_that_lack_a_tensor(broken):
    from safetensors.torch import load_file, save_file

    state = load_file(broken / "model.safetensors")
    del state["model.layers.1.mlp.down_proj.weight"]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LayerprobeError, match=r"lacks 1 weights, first .*layers.1.mlp.down_proj"):
        load_model(broken)


def test_truncated_weights(broken):
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(LayerprobeError, match="cannot load the weights"):
        load_model(broken)


def test_weights_that_are_not_finite(broken):
    from safetensors.torch import load_file, save_file

    state = load_file(broken / "model.safetensors")
    state["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LayerprobeError, match=r"down_proj.weight holds NaN"):
        load_model(broken)


def test_encoder_decoder_is_refused(broken):
    (broken / "config.json").write_text(
        json.dumps({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]})
    )
    with pytest.raises(LayerprobeError, match="encoder-decoder"):
        load_model(broken)


def test_model_object_needs_tokenizer_and_eval_mode():
    module = build("llama")
    with pytest.raises(LayerprobeError, match="pass tokenizer="):
        load_model(module)
    with pytest.raises(LayerprobeError, match=r"call \.eval\(\)"):
        load_model(module.train(), tokenizer=tiny_tokenizer())
    model = load_model(module.eval(), tokenizer=tiny_tokenizer(), name="mine")
    assert model.name == "mine"
    assert (
        model.identity.weights_sha256
        == load_model(build("llama"), tokenizer=tiny_tokenizer()).identity.weights_sha256
    )
    assert (
        model.identity.weights_sha256
        != load_model(build("llama", seed=1), tokenizer=tiny_tokenizer()).identity.weights_sha256
    )


def test_what_a_model_says_about_itself():
    model = load_model(tiny_model("qwen3"), dtype="bfloat16")
    assert (model.n_layers, model.d_model, model.n_heads, model.n_kv_heads, model.d_head) == (3, 32, 4, 2, 16)
    assert model.max_length == 64
    assert model.dtype == torch.bfloat16
    assert repr(model) == "Model('qwen3-0': 3 layers x 32, 4 heads, bfloat16, cpu, engine huggingface)"
    identity = model.identity.as_dict()
    assert identity["dtype"] == "bfloat16"
    assert len(identity["weights_sha256"]) == len(identity["tokenizer_sha256"]) == 64
    assert set(identity["versions"]) == {"torch", "transformers", "layerprobe"}


def test_float32_on_cpu_unless_told(tmp_path):
    folder = tmp_path / "half"
    build("llama").half().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    assert load_model(folder).dtype == torch.float32
    assert load_model(folder, dtype="auto").dtype == torch.float16
