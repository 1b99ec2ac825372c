"""Text that the tokenizer does not know is said once, with its share and the first examples."""

import logging

import pytest
from tiny_models import tiny_model

from layerprobe import capture, load_model
from layerprobe.cache.capture.plan import plan
from layerprobe.cache.prompts.table import PromptTable


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False)


def table(*texts):
    return PromptTable(tuple(f"p{i}" for i in range(len(texts))), texts, name="mine")


def said(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("how", [capture, plan])
def test_share_and_examples(model, caplog, how):
    prompts = table("the dog was late", "the zebra was Zebra", "quagga was zebra", "<unk> was late")
    how(model, prompts, sites="embed", **({"progress": False} if how is capture else {}))
    (line,) = said(caplog)
    assert line == (
        "mine: 4 of 14 tokens (29 %) in 2 of 4 prompts are unknown to the tokenizer of "
        f"{model.name}, which reads '<unk>' there: what they say is lost. "
        "First in prompts 'p1', 'p2': 'zebra', 'Zebra', 'quagga'"
    )


def test_nothing_is_said_where_the_text_spells_it_or_knows_every_word(model, caplog):
    capture(model, table("the dog was late", "<unk> was late"), sites="embed", progress=False)
    assert said(caplog) == []


def test_said_again_on_a_file_that_goes_on_but_not_on_a_finished_one(model, caplog, tmp_path):
    prompts = table("the zebra was late")
    capture(model, prompts, sites="embed", path=tmp_path / "a.h5", progress=False)
    assert len(said(caplog)) == 1
    capture(model, prompts, sites="embed", path=tmp_path / "a.h5", progress=False)
    assert len(said(caplog)) == 1


def test_a_tokenizer_whose_unknown_token_begins_every_text_is_quiet(caplog):
    """GPT-2's unknown token is its end of text, which other tokenizers of its kind write first."""
    model = load_model(tiny_model("llama"), check=False)
    model.tokenizer.unk_token = "<s>"
    assert model.tokenizer.unk_token_id == model.encode("the dog").input_ids[0]
    capture(model, table("the dog was late"), sites="embed", progress=False)
    assert said(caplog) == []
