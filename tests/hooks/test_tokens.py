"""Prompts to tokens: BOS once, offsets into the text, chat through the template."""

import pytest
from tiny_models import tiny_tokenizer

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.tokens import encode

MESSAGES = [{"role": "user", "content": "who was late ?"}]


def test_text_gets_bos_once():
    tokenizer = tiny_tokenizer()
    plain, written = encode(tokenizer, "the cat"), encode(tokenizer, "<s> the cat")
    assert plain.input_ids == written.input_ids
    assert plain.input_ids.count(1) == 1
    assert plain.special == [True, False, False]


def test_offsets_point_into_the_text():
    encoding = encode(tiny_tokenizer(), "<s> The cat  was late")
    words = [
        encoding.text[a:b]
        for (a, b), special in zip(encoding.offsets, encoding.special, strict=True)
        if not special
    ]
    assert words == ["The", "cat", "was", "late"]


def test_chat_is_what_transformers_makes_of_it():
    tokenizer = tiny_tokenizer()
    encoding = encode(tokenizer, MESSAGES)
    want = tokenizer.apply_chat_template(
        MESSAGES, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert encoding.input_ids == want
    assert encoding.input_ids.count(1) == 1
    assert encoding.text == "<s>user : who was late ? . assistant :"


def test_refusals():
    tokenizer = tiny_tokenizer(bos=False)
    with pytest.raises(LayerprobeError, match="has no tokens"):
        encode(tokenizer, "")
    tokenizer.chat_template = None
    with pytest.raises(LayerprobeError, match="no chat template"):
        encode(tokenizer, MESSAGES)
    tokenizer.chat_template = "{{ raise_exception('system role not supported') }}"
    with pytest.raises(LayerprobeError, match="system role not supported"):
        encode(tokenizer, MESSAGES)
    with pytest.raises(LayerprobeError, match="not a fast tokenizer"):
        encode(object(), "the cat")
    with pytest.raises(LayerprobeError, match="without a tokenizer"):
        encode(None, "the cat")
