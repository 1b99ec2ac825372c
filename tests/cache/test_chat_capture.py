"""Chats and token ids in captures: one date per file, options in the identity, ids as they were given."""

from datetime import datetime

import numpy as np
import pytest
from tiny_models import tiny_model, tiny_tokenizer

from layerprobe import LayerprobeError, capture, from_arrays, load_model, open_store, read_prompts
from layerprobe.cache.capture import prepare as preparing
from layerprobe.cache.capture.precheck import differing
from layerprobe.cache.capture.request import CaptureRequest
from layerprobe.cache.prompts import token_rules
from layerprobe.cache.prompts.token_rules import parse_rule, select_tokens
from layerprobe.cache.workers.distributed import _moment, capture_shard, shard_of
from layerprobe.hooks.tokens import encode

#: the tokenizer knows `late` and `early` but no days of the week
DATED = (
    "<s>{% if mood is defined %}{{ mood }} {% endif %}the day "
    "{{ 'late' if strftime_now('%A') == 'Monday' else 'early' }} "
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} . {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
MONDAY, TUESDAY = datetime(2024, 7, 22, 23, 59), datetime(2024, 7, 23, 8)
CHATS = [
    [{"role": "user", "content": f"the {w} was {x}"}]
    for w in ("cat", "dog", "baker")
    for x in ("late", "sad")
]
REQUEST = {"sites": "resid_post[0]", "tokens": "all", "progress": False}


class Clock(datetime):
    """`datetime` whose now is what a test says."""

    at = MONDAY

    @classmethod
    def now(cls, tz=None):
        return cls.at if tz is None else datetime.now(tz)


@pytest.fixture
def model(monkeypatch):
    model = load_model(tiny_model("llama"), check=False)
    model.tokenizer = tiny_tokenizer()
    model.tokenizer.chat_template = DATED
    monkeypatch.setattr(preparing, "datetime", Clock)
    monkeypatch.setattr(Clock, "at", MONDAY)
    return model


def days(store):
    return {"early" if "early user" in text else "late" for text in store.texts}


def test_a_capture_resumed_the_next_day_keeps_its_date(model, tmp_path, monkeypatch):
    path, whole, forward = tmp_path / "a.h5", tmp_path / "whole.h5", model.forward
    capture(model, CHATS, path=whole, batch_tokens=16, **REQUEST)
    calls = []

    def tired(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(*arguments, **keywords)

    monkeypatch.setattr(model, "forward", tired)
    with pytest.raises(KeyboardInterrupt):
        capture(model, CHATS, path=path, batch_tokens=16, **REQUEST)
    monkeypatch.setattr(model, "forward", forward)
    monkeypatch.setattr(Clock, "at", TUESDAY)
    resumed = capture(model, CHATS, path=path, batch_tokens=16, **REQUEST)
    assert days(resumed) == {"late"}
    assert np.array_equal(
        resumed.activations("resid_post", 0), open_store(whole).activations("resid_post", 0)
    )
    assert days(capture(model, CHATS, path=tmp_path / "new.h5", **REQUEST)) == {"early"}


def test_a_store_extended_the_next_day_keeps_its_date(model, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    capture(model, CHATS[:3], path=path, **REQUEST)
    monkeypatch.setattr(Clock, "at", TUESDAY)
    more = {**REQUEST, "sites": ["resid_post[0]", "mlp_out[0]"]}
    store = capture(model, CHATS, path=path, extend=True, **more)
    assert store.n_prompts == len(CHATS)
    assert days(store) == {"late"}


def test_a_fixed_date_is_an_option_and_part_of_the_identity(model, tmp_path):
    path, fixed = tmp_path / "a.h5", {"chat_options": {"date": "2024-07-23"}}
    store = capture(model, CHATS, path=path, **REQUEST, **fixed)
    assert days(store) == {"early"}
    assert store.identity["chat_options"] == {"date": "2024-07-23"}
    assert capture(model, CHATS, path=path, **REQUEST, **fixed).complete
    with pytest.raises(LayerprobeError, match=r"different are: chat_options"):
        capture(model, CHATS, path=path, **REQUEST)


def test_options_are_compared_without_a_model(model, tmp_path):
    path, mood = tmp_path / "a.h5", {"chat_options": {"mood": "happy"}}
    table = read_prompts([{"m": chat} for chat in CHATS], messages="m")
    assert capture(model, table, path=path, **REQUEST, **mood).texts[0].startswith("<s>happy the day")
    store = open_store(path)

    def differs(**options):
        asked = CaptureRequest(sites="resid_post[0]", tokens="all", **options)
        return differing(store, table, asked, source=model.source)

    assert differs(**mood) == []
    assert differs(chat_options={"mood": "happy", "add_generation_prompt": True}) == []
    assert "chat_options" in differs()[0]
    assert "chat_options" in differs(chat_options={"mood": "sad"})[0]


def test_options_reach_every_way_to_run_a_chat(model):
    options = {"mood": "happy", "date": "2024-07-23"}
    want = model.tokenizer(
        "<s>happy the day early user : the cat was late . assistant :", add_special_tokens=False
    )["input_ids"]
    assert model.encode(CHATS[0], chat_options=options).input_ids == want
    acts = model.run(CHATS[:1], sites="resid_post[0]", chat_options=options)
    store = capture(model, CHATS[:1], chat_options=options, **REQUEST)
    assert store.token_ids()[0].tolist() == want
    assert np.array_equal(acts["resid_post[0]"][0].numpy(), store.activations("resid_post", 0))
    assert model.generate(CHATS[:1], 2, chat_options=options) == model.generate(
        ["<s>happy the day early user : the cat was late . assistant :"], 2
    )
    with pytest.raises(LayerprobeError, match="these prompts do not pass through"):
        capture(model, ["the cat"], chat_options=options, **REQUEST)


def test_token_ids_are_read_as_they_are(model):
    texts = ["the cat was late", "a dog was sad"]
    ids = [model.encode(text).input_ids for text in texts]
    given = capture(model, ids, **REQUEST)
    assert np.array_equal(
        given.activations("resid_post", 0), capture(model, texts, **REQUEST).activations("resid_post", 0)
    )
    assert [part.tolist() for part in given.token_ids()] == ids
    cats = capture(
        model,
        read_prompts([{"i": one} for one in ids], token_ids="i"),
        **{**REQUEST, "tokens": "regex:cat|dog"},
    )
    assert model.tokenizer.convert_ids_to_tokens(
        [ids[i][p] for i, p in zip(cats.examples, cats.positions, strict=True)]
    ) == ["cat", "dog"]
    with pytest.raises(LayerprobeError, match=r"prompt '0': token id 99999 is outside the vocabulary"):
        capture(model, [[99999]], **REQUEST)


def test_ids_that_the_tokenizer_would_not_give_have_no_place_in_the_text():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    merging = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    )
    assert encode(merging, [2, 0]).offsets == [(0, 2), (2, 3)]
    apart = encode(merging, [0, 1])  # "ab", which it would make one token
    assert (apart.input_ids, apart.offsets) == ([0, 1], [(0, 0), (0, 0)])
    assert select_tokens(parse_rule("pos:1"), apart, {}, "p").tolist() == [1]
    with pytest.raises(LayerprobeError, match="p: tokens='regex:a' needs the place of its tokens"):
        select_tokens(parse_rule("regex:a"), apart, {}, "p")


def test_rows_of_the_same_text_share_a_code(model):
    store = capture(model, ["the cat", "a dog", "the  cat", "a dog"], **{**REQUEST, "tokens": "last"})
    assert store.same_text.tolist() == [0, 1, 0, 1]
    assert store.select([1, 2, 3]).same_text.tolist() == [0, 1, 0]
    several = capture(model, ["a dog", "the cat", "a dog"], **REQUEST)
    assert several.same_text.tolist() == [several.examples.tolist()[i] % 2 for i in range(several.n_rows)]
    rows = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    rows[:, 2] = rows[:, 0]
    assert from_arrays({"resid_post": rows}).same_text.tolist() == [0, 1, 0]
    rows[1, 2, 3] = np.nextafter(rows[1, 2, 3], np.float32(9))
    assert from_arrays({"resid_post": rows}).same_text.tolist() == [0, 1, 2]


def test_a_pattern_that_never_ends_is_broken_off(model, monkeypatch):
    monkeypatch.setattr(token_rules, "SECONDS", 0.1)
    with pytest.raises(
        LayerprobeError, match=r"prompt '0': tokens='regex:.*still searching after 0.1 seconds"
    ):
        capture(model, ["a" * 60 + "b"], **{**REQUEST, "tokens": "regex:^(a|a|aa)+$"})


def test_shards_of_several_days_are_told_one_date(model, tmp_path, monkeypatch):
    table = read_prompts([{"m": chat} for chat in CHATS], messages="m")
    options = {"sites": "resid_post[0]", "tokens": "all"}
    given = {"of": 2, "prompts": table.sha256, "folder": tmp_path, "options": options}
    capture_shard(model, shard_of(table, 0, 2), index=0, now=MONDAY, **given)
    monkeypatch.setattr(Clock, "at", TUESDAY)
    assert _moment(tmp_path) == MONDAY
    second = capture_shard(model, shard_of(table, 1, 2), index=1, now=_moment(tmp_path), **given)
    assert days(open_store(second)) == {"late"}
