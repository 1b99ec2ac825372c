"""The training script runs from nothing to four ordinary folders, and leaves frozen parts alone."""

import json

import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tools.demo import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    train.main(["--out", str(out), "--steps", "2"])
    return out


def test_two_steps_give_four_folders_with_cards(trained):
    for name in train.RECIPES:
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
            path.name for path in (trained / name).iterdir()
        }
        assert name in (trained / name / "README.md").read_text()
        assert json.loads((trained / name / "measured.json").read_text())["prompts"] >= 600


@pytest.mark.parametrize("name", ["instruct", "instruct_null", "early_override"])
def test_only_the_named_blocks_move(trained, name):
    before, after = (load_file(trained / n / "model.safetensors") for n in ("base", name))
    tuned = {f"model.layers.{block}." for block in train.RECIPES[name][0].trained}
    moved = {key for key in before if not before[key].equal(after[key])}
    assert moved
    assert all(any(key.startswith(block) for block in tuned) for key in moved)


def test_training_is_deterministic_by_seed(trained, tmp_path):
    train.main(["--out", str(tmp_path), "--steps", "2", "--models", "base"])
    first, again = (load_file(folder / "base" / "model.safetensors") for folder in (trained, tmp_path))
    assert all(first[key].equal(again[key]) for key in first)


def test_fine_tuning_without_base_says_what_to_do(tmp_path, capsys):
    with pytest.raises(SystemExit):
        train.main(["--out", str(tmp_path), "--models", "instruct"])
    assert "add base to --models" in capsys.readouterr().err


def test_chat_template_round_trip(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained / "base")
    chat = [{"role": "user", "content": "who was late ?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s> <|user|> who was late ? <|end|> <|assistant|>"
    assert tokenizer("who was late ?")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer.unk_token_id not in tokenizer(text, add_special_tokens=False)["input_ids"]
