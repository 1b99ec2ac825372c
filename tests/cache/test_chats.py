"""Chats: the rows of a role or span are exactly the characters that it wrote, under many families' templates.

The oracle is a plain function per family that writes the same text piece by piece and knows whose each is.
"""

from contextlib import suppress
from types import SimpleNamespace

import pytest
from chat_families import FAMILIES, letter_tokenizer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from layerprobe import LayerprobeError
from layerprobe.cache.capture.prepare import prepare
from layerprobe.cache.prompts.cells import messages_cell, plain_text
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.prompts.token_rules import parse_rule
from layerprobe.hooks import chat_template
from layerprobe.hooks.tokens import encode

DATE = "2024-07-26"
TOKENIZERS = {name: letter_tokenizer(family.template) for name, family in FAMILIES.items()}
CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"what": "the sky"}}}


def chosen(family, messages, rule, options=None, span=None):
    """(the characters that a rule picks, the text) of one chat."""
    tokenizer = TOKENIZERS[family]
    model = SimpleNamespace(
        tokenizer=tokenizer,
        max_length=1 << 20,
        encode=lambda prompt, **more: encode(tokenizer, prompt, **more),
    )
    table = PromptTable(("p7",), (messages_cell(messages, "p7"),), spans={"x": [span]})
    prepared = prepare(
        model,
        table,
        parse_rule(rule),
        chat_template=None,
        lens_tokens=(),
        first_difference=False,
        on_long="error",
        chat_options={**({"date": DATE} if "date" in FAMILIES[family].options else {}), **(options or {})},
    )
    text = prepared.columns.texts[0]
    assert prepared.lengths[0] == len(text)  # one token per character
    return "".join(text[place] for place in prepared.picked_of(0)), text


def chosen_or_refused(*arguments):
    with suppress(LayerprobeError):
        return chosen(*arguments)


def expected(family, messages, options=None):
    """Pieces of the text, from the oracle."""
    options = options or {}
    pieces = FAMILIES[family].pieces(
        messages,
        prompt=options.get("add_generation_prompt", not options.get("continue_final_message")),
        enable_thinking=options.get("enable_thinking", True),
    )
    if options.get("continue_final_message"):
        last = max(index for index, piece in enumerate(pieces) if piece[0] == len(messages) - 1)
        pieces = pieces[: last + 1]
    return pieces


def of_role(pieces, messages, role):
    if any(offset is None and messages[owner]["role"] == role for owner, offset, _ in pieces):
        return None  # escaped: nothing but a refusal is right
    return "".join(text for owner, _, text in pieces if owner is not None and messages[owner]["role"] == role)


def of_span(pieces, messages, span):
    out, base = "", [0]
    for message in messages:
        base.append(base[-1] + len(message.get("content") or "") + 1)
    for owner, offset, text in pieces:
        if owner is not None and offset is None and span[0] < base[owner + 1] and span[1] > base[owner]:
            return None
        if owner is not None and offset is not None:
            low, high = span[0] - base[owner] - offset, span[1] - base[owner] - offset
            out += text[max(low, 0) : max(high, 0)]
    return out


WORDS = [
    "<answer>",
    "Yes",
    "no",
    "user",
    "assistant",
    "Hi",
    "Yes",
    "<think>",
    "</think>",
    "\n",
    " ",
    "/no_think",
    '"',
    "é",
    "字",
]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map("".join).filter(str.strip)
replies = st.one_of(
    texts,
    st.sampled_from(
        ["<think>\nwhy\n</think>\n\nYes", "<think>why</think>Yes", "\n\nYes\n", "<think>\n\n</think>\n\nYes"]
    ),
)


@st.composite
def chats(draw):
    """(family, messages, options): a system message or none, turns, tool turns, a prefill or none."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    messages = [{"role": "system", "content": draw(texts)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        messages.append({"role": "user", "content": draw(texts)})
        if FAMILIES[family].tools and draw(st.integers(0, 3)) == 0:
            messages.append({"role": "assistant", "content": None, "tool_calls": [CALL]})
            messages.append({"role": "tool", "content": draw(texts)})
        messages.append({"role": "assistant", "content": draw(replies)})
    ending = draw(st.sampled_from(["user", "prefill", "whole"]))
    options = {
        "user": {},
        "prefill": {"continue_final_message": True},
        "whole": {"add_generation_prompt": False},
    }[ending]
    if ending == "user":
        messages.append({"role": "user", "content": draw(texts)})
    if "enable_thinking" in FAMILIES[family].options and draw(st.booleans()):
        options = {**options, "enable_thinking": False}
    return family, messages, options


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(chats(), st.data())
def test_what_is_picked_is_what_was_written_or_the_prompt_is_refused(chat, data):
    family, messages, options = chat
    pieces = expected(family, messages, options)
    role = data.draw(st.sampled_from(["system", "user", "assistant", "tool"]))
    length = len(plain_text(messages))
    low = data.draw(st.integers(0, length - 1))
    span = (low, data.draw(st.integers(low + 1, length)))
    wanted = of_role(pieces, messages, role)
    for rule, right in (
        (f"role:{role}:all", wanted),
        (f"role:{role}:last", wanted and wanted[-1:]),
        (f"role:{role}:first", wanted and wanted[:1]),
        ("span:x", of_span(pieces, messages, span)),
    ):
        got = chosen_or_refused(family, messages, rule, options, span)
        if got is None:
            continue
        picked, text = got
        if not options.get("continue_final_message"):  # transformers cuts white space there
            assert text == "".join(piece[2] for piece in pieces)
        assert picked == right, (family, rule, messages, text)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_ordinary_chat_is_never_refused(family):
    messages = [
        {"role": "user", "content": "Is the sky blue?"},
        {"role": "assistant", "content": "It is."},
        {"role": "user", "content": "And the sea?"},
    ]
    for before in ([], [{"role": "system", "content": "Be brief."}]):
        assert chosen(family, before + messages, "role:assistant")[0] == "It is."
        assert chosen(family, before + messages, "role:user:last")[0] == "?"
        answered = [*before, *messages, {"role": "assistant", "content": "No"}]
        assert chosen(family, answered, "role:assistant", {"continue_final_message": True})[0] == "It is.No"


def test_a_template_that_strips_thoughts_does_not_hand_out_an_earlier_reply():
    first = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "A."}]
    thought = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nB."}
    messages = [*first, {"role": "user", "content": "b?"}, thought, {"role": "user", "content": "c?"}]
    assert chosen("qwen3", messages, "role:assistant")[0] == "A.B."
    assert chosen("qwen3", messages, "role:assistant:last")[0] == "."
    emptied = [*first, {"role": "user", "content": "b?"}, {**thought, "content": "<think>\nhm\n</think>"}]
    with pytest.raises(LayerprobeError, match="'p7': the chat template leaves out message 3"):
        chosen("qwen3", [*emptied, {"role": "user", "content": "c?"}], "role:assistant:last")


def test_reasoning_counts_where_the_template_renders_it():
    messages = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "B.", "reasoning_content": "hm"},
    ]
    whole = {"add_generation_prompt": False}
    assert chosen("qwen3", messages, "role:assistant", whole)[0] == "hmB."
    asked = [*messages, {"role": "user", "content": "c?"}]
    assert chosen("qwen3", asked, "role:assistant")[0] == "B."


def test_tool_turns():
    messages = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "blue", "name": "look_up"},
        {"role": "assistant", "content": "B."},
        {"role": "user", "content": "c?"},
    ]
    for family in ("llama3", "qwen2.5", "qwen3", "gpt_oss"):
        assert chosen(family, messages, "role:tool")[0] == "blue"
        assert chosen(family, messages, "role:assistant:last")[0] == "."
        with pytest.raises(
            LayerprobeError, match="message 1, the first of assistant, holds tool calls and no text"
        ):
            chosen(family, messages, "role:assistant:first")
    with pytest.raises(LayerprobeError, match="'p7': message 1 has tool_calls, which this chat template"):
        chosen("gemma3", messages, "role:assistant")


def test_options_reach_the_template_and_unknown_ones_are_refused():
    messages = [{"role": "user", "content": "a?"}]
    assert chosen("qwen3", messages, "all", {"enable_thinking": False})[1].endswith("<think>\n\n</think>\n\n")
    assert "26 Jul 2024" in chosen("llama3", messages, "all")[1]
    for options, words in (
        ({"enable_thinkng": False}, "did you mean 'enable_thinking'"),
        ({"tools": [{"name": "f"}]}, "'tools', which this chat template does not read"),
        ({"date": "2024-07-26"}, "asks for none"),
        ({"date": "yesterday"}, "expected a date"),
        ({"tokenize": True}, "no argument of a template"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "give one of them"),
        ({"enable_thinking": object()}, "JSON values"),
    ):
        with pytest.raises(LayerprobeError, match=words):
            chosen("qwen3", messages, "all", options)


def test_what_a_template_would_drop_or_garble_is_refused():
    picture = [{"type": "text", "text": "what is this?"}, {"type": "image", "url": "x.png"}]
    with pytest.raises(LayerprobeError, match="a part of type 'image': layerprobe reads text"):
        chosen("qwen3", [{"role": "user", "content": picture}], "all")
    with pytest.raises(LayerprobeError, match="a list of parts, which this chat template does not read"):
        chosen("qwen3", [{"role": "user", "content": picture[:1]}], "all")


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}ab{% endfor %}{% endfor %}",
        "{{ 'ab' * 30000000 }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_without_end_is_broken_off(template, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 0.2)
    with pytest.raises(LayerprobeError, match=r"the chat template (was still writing|wrote 60,000,000)"):
        encode(letter_tokenizer(template), [{"role": "user", "content": "a"}])


def test_parts_of_a_content_are_found():
    template = (
        "{% for m in messages %}[{{ m.role }}]"
        "{% for p in m.content %}{% if p.type == 'text' %}{{ p['text'] }}|"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    TOKENIZERS["parts"], FAMILIES["parts"] = letter_tokenizer(template), FAMILIES["chatml"]
    parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "cd"}]
    messages = [{"role": "user", "content": parts}]
    assert chosen("parts", messages, "role:user") == ("abcd", "[user]ab|cd|")
    assert chosen("parts", messages, "span:x", span=(1, 3))[0] == "bc"
    del TOKENIZERS["parts"], FAMILIES["parts"]
