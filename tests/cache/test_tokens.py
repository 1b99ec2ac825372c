"""Token rules pick the tokens they say, in plain texts and in chats."""

import numpy as np
import pytest
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model
from layerprobe.cache.prompts.candidates import CandidateTokens, check_candidates
from layerprobe.cache.prompts.chat import locate, role_ranges, span_ranges
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.prompts.token_rules import parse_rule

TEXT = "the dog was late and the cat was happy"
CHAT = [
    {"role": "user", "content": "who was late ?"},
    {"role": "assistant", "content": "the dog was late ."},
    {"role": "user", "content": "and the cat ?"},
]


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


def picked(model, prompt, rule, **spans):
    table = PromptTable(("0",), (prompt,), spans={name: [span] for name, span in spans.items()})
    store = capture(model, table, sites="embed", tokens=rule, progress=False)
    ids = store.token_ids()[0]
    return model.tokenizer.convert_ids_to_tokens(ids[store.positions].tolist())


@pytest.mark.parametrize(
    "rule, expected",
    [
        ("last", "happy"),
        ("first", "the"),
        ("pos:2", "dog"),
        ("pos:-2", "was"),
        ("span:x", "dog was"),
        ("span:x:last", "was"),
        ("chars:x:first", "dog"),
        ("regex:(the|was)", "the was the was"),
        ("regex:the:last", "the"),
        ("content", TEXT),
    ],
)
def test_plain_texts(llama, rule, expected):
    assert picked(llama, TEXT, rule, x=(4, 11)) == expected.split()


def test_all_is_content_and_special(llama):
    every = picked(llama, TEXT, "all")
    special = picked(llama, TEXT, "special")
    assert every == [*special, *TEXT.split()]


def test_roles_and_spans_of_a_chat(llama):
    assert picked(llama, CHAT, "role:assistant") == ["the", "dog", "was", "late", "."]
    assert picked(llama, CHAT, "role:user:last") == ["?"]
    # spans count in the contents joined by newlines: "who was late ?\nthe dog ..."
    assert picked(llama, CHAT, "span:x", x=(19, 22)) == ["dog"]
    assert picked(llama, CHAT, "last") == [":"]


def test_templates_that_strip_or_drop_contents():
    def render(chat):
        return "".join(f"[{m['role']}]{m['content'].strip()}" for m in chat if m["role"] != "system")

    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "  hello dog "}]
    assert render(chat) == "[user]hello dog"
    found = locate(chat, render)
    assert role_ranges(found, chat, "user") == [(6, 15)]
    with pytest.raises(LayerprobeError, match="leaves out message 0"):
        role_ranges(found, chat, "system")
    # "be brief\n  hello dog ": dog at 17
    assert span_ranges(found, chat, (17, 20)) == [(12, 15)]
    with pytest.raises(LayerprobeError, match="leaves out 'brief' of its span"):
        span_ranges(found, chat, (3, 8))


@pytest.mark.parametrize("rule", ["", "lst", "pos:x", "span:", "regex:(", "all:often", "role"])
def test_what_is_no_rule_is_refused(rule):
    with pytest.raises(LayerprobeError, match="tokens="):
        parse_rule(rule)


def test_surface_variants_are_single_ids_each_once(llama):
    finder = CandidateTokens(llama.tokenizer)
    dog = llama.tokenizer.convert_tokens_to_ids("dog")
    assert finder.first_tokens("who was late ?", "dog") == [dog]
    assert finder.first_tokens("who was late ?", "zebra") == []
    assert finder.shared_prefix("answer :", ["the dog", "the cat"]) == finder.continuation("answer :", " the")
    assert np.size(finder.shared_prefix("answer :", ["dog", "cat"])) == 0


def test_variants_that_two_answers_share_are_left_out_and_the_rest_kept(llama):
    common = {"columns": ("answer", "foil"), "ids": ("p",)}
    kept = check_candidates([[[5, 3, 7], [6, 3, 8]]], [["yes", "no"]], **common)
    assert kept == [[[5, 7], [6, 8]]]
    with pytest.raises(LayerprobeError, match="the same 'answer' and 'foil'"):
        check_candidates([[[5, 3], [5, 3]]], [["yes", "yes"]], **common)
    some = {"columns": ("answer", "foil"), "ids": ("p", "q")}  # an analysis may leave the second out
    assert len(check_candidates([[[5], [6]], [[5], [5]]], [["yes", "no"], ["yes", "yes"]], **some)) == 2
    with pytest.raises(LayerprobeError, match=r"both begin with 3\): pass lens_first_difference=True"):
        check_candidates([[[3, 5], [6, 3]]], [["yes", "no"]], **common)
    with pytest.raises(LayerprobeError, match=r"begins? differently") as refused:
        check_candidates([[[3, 5], [6, 3]]], [["yes", "no"]], first_difference=True, **common)
    assert "lens_first_difference" not in str(refused.value)
