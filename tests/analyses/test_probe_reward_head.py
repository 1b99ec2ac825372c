"""A reward head is given only where its weight scores what is captured."""

import numpy as np
import pytest
import torch
import transformers
from tiny_models import tiny_reward_model

import layerprobe as lp
from layerprobe.hooks.errors import LayerprobeError

SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50}


def built(name, outputs=1, **sizes):
    config = getattr(transformers, f"{name}Config")(num_labels=outputs, **sizes)
    torch.manual_seed(0)
    return getattr(transformers, f"{name}ForSequenceClassification")(config).eval()


@pytest.mark.parametrize(
    "name, sizes, between",
    [
        ("Bert", {"hidden_size": 16, "intermediate_size": 32, **SIZES}, "bert.pooler lies between"),
        (
            "DistilBert",
            {"dim": 16, "hidden_dim": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 50},
            "pre_classifier",
        ),
        (
            "ModernBert",
            {"hidden_size": 16, "intermediate_size": 32, "pad_token_id": 0, **SIZES},
            "head lies between",
        ),
        ("Roberta", {"hidden_size": 16, "intermediate_size": 32, **SIZES}, "classifier.dense"),
    ],
)
def test_a_head_behind_other_layers_is_refused_and_they_are_named(name, sizes, between, tmp_path):
    model = built(name, **sizes)
    with pytest.raises(LayerprobeError, match=between):
        lp.reward_head(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(LayerprobeError, match=between):
        lp.reward_head(tmp_path)


@pytest.mark.parametrize(
    "name, sizes",
    [
        ("Llama", {"hidden_size": 16, "intermediate_size": 32, "pad_token_id": 0, **SIZES}),
        ("GPT2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "pad_token_id": 0}),
        (
            "Qwen2",
            {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_key_value_heads": 2,
                "pad_token_id": 0,
                **SIZES,
            },
        ),
    ],
)
def test_a_head_on_the_last_state_is_the_reward(name, sizes, tmp_path):
    model = built(name, **sizes)
    weight, bias = lp.reward_head(model)
    model.save_pretrained(tmp_path)
    np.testing.assert_array_equal(lp.reward_head(tmp_path)[0], weight)
    ids = torch.randint(1, 50, (1, 7))
    said = model(ids, output_hidden_states=True)
    own = said.hidden_states[-1][0, -1].detach().numpy() @ weight + bias
    assert own == pytest.approx(said.logits.item(), abs=1e-5)


def test_several_outputs_are_no_reward():
    model = built("Llama", 3, hidden_size=16, intermediate_size=32, pad_token_id=0, **SIZES)
    with pytest.raises(LayerprobeError, match="3 outputs"):
        lp.reward_head(model)
    assert lp.reward_head(tiny_reward_model())[1] == 0.0
