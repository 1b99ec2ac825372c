"""Captures of what a model writes: against transformers' own `generate` and a second pass in a plain loop."""

import itertools
import signal

import numpy as np
import pytest
import torch
import transformers
from cache_support import SMALL_BLOCK, datasets, die_while_writing, in_child, run
from tiny_models import tiny_model

import layerprobe as lp
from layerprobe import LayerprobeError, capture, load_model, open_store
from layerprobe.cache.capture import assembly
from layerprobe.cache.capture.plan import plan
from layerprobe.cache.capture.precheck import check_request, differing
from layerprobe.cache.capture.request import CaptureRequest
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store.merge import merge
from layerprobe.cache.workers.jobs import capture_shard, shard_of
from layerprobe.cache.workers.shards import plan_shards
from layerprobe.hooks.generation import checked_generate_options, draws_of
from layerprobe.hooks.model import Model
from layerprobe.probe.cli.entry import _main as cli
from layerprobe.probe.cli.entry import _parse
from layerprobe.probe.study.inputs import request_key
from layerprobe.probe.study.toml import check_study, study_toml

TEXTS = ["the cat was", "who was late ?", "the baker and the pilot were in the park", "dog", "who was late ?"]
SAMPLED = {"max_new_tokens": 7, "do_sample": True, "seed": 3, "temperature": 1.5, "top_k": 30, "top_p": 0.95}
ENGINES = ("huggingface", "nnsight", "transformer_lens")


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture(scope="module")
def plain():
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_model("llama")).eval()


def generated(model, prompts=TEXTS, *, tokens="generated", sites="resid_post", **options):
    settings = {"generate": {"max_new_tokens": 7}, "progress": False, **options}
    return capture(model, prompts, sites=sites, tokens=tokens, **settings)


def written(store):
    """The continuation of each prompt, as token ids."""
    counts = store._columns.labels["n_generated"]  # `store.labels` has one for each row
    return [ids[len(ids) - n :].tolist() for ids, n in zip(store.token_ids(), counts, strict=True)]


def oracle(plain, model, text, *, options=None, **edits):
    """Continuation and hidden states of one text alone, in a plain loop of transformers' own."""
    ids = torch.tensor([model.encode(text).input_ids])
    out = plain.generate(ids, max_new_tokens=7, do_sample=False, **(options or {}))
    new = out[0, ids.shape[1] :].tolist()
    ends = {2} if "eos_token_id" not in (options or {}) else set(options["eos_token_id"])
    new = new[: next((i for i, token in enumerate(new) if token in ends), len(new))]
    whole = torch.cat([ids, torch.tensor([new], dtype=ids.dtype)], dim=1)
    states = plain(whole, output_hidden_states=True).hidden_states
    return new, torch.stack(states[1:-1])[:, 0, ids.shape[1] :].detach().numpy()  # the last is after the norm


def test_greedy_is_what_transformers_writes_and_its_states_those_of_a_second_pass(model, plain):
    store = generated(model, sites="resid_post[:2]")
    rows = np.stack([store.activations("resid_post", layer) for layer in (0, 1)])
    expected = [oracle(plain, model, text) for text in TEXTS]
    assert written(store) == [new for new, _ in expected]
    np.testing.assert_allclose(rows, np.concatenate([states for _, states in expected], 1), atol=1e-5)
    # where each row lies, and the columns
    starts = [len(model.encode(text).input_ids) for text in TEXTS]
    assert store.positions.tolist() == [
        start + step for start, (new, _) in zip(starts, expected, strict=True) for step in range(len(new))
    ]
    texts = [model.tokenizer.decode(new, skip_special_tokens=True) for new, _ in expected]
    assert store.labels("generated_text").tolist() == [texts[example] for example in store.examples]
    assert texts == model.generate(TEXTS, max_new_tokens=7)
    assert store.texts[0] == f"{TEXTS[0]} {texts[0]}"


def test_mean_and_last_are_those_of_the_generated_tokens(model):
    whole, *others = (generated(model, tokens=f"generated{way}") for way in ("", ":mean", ":last"))
    mean, last = (store.activations("resid_post", 1) for store in others)
    for prompt in range(len(TEXTS)):
        rows = whole.activations("resid_post", 1, rows=np.flatnonzero(whole.examples == prompt))
        np.testing.assert_allclose(mean[prompt], rows.mean(0), atol=1e-6)
        np.testing.assert_array_equal(last[prompt], rows[-1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("generate", [{"max_new_tokens": 7}, SAMPLED], ids=["greedy", "sampled"])
def test_every_engine_writes_the_same(model, engine, generate):
    other = load_model(tiny_model("llama"), engine=engine, check=False)
    ours, theirs = (generated(one, generate=generate) for one in (model, other))
    assert written(ours) == written(theirs)
    np.testing.assert_allclose(
        theirs.activations("resid_post", 2), ours.activations("resid_post", 2), atol=1e-5
    )


def table(texts=TEXTS, ids=None):
    return PromptTable(tuple(ids or (f"p{row}" for row in range(len(texts)))), tuple(texts), name="t")


def test_samples_follow_the_seed_and_the_prompt_and_nothing_else(model):
    whole = written(generated(model, table(), generate=SAMPLED))
    for batch_tokens in (1, 24):
        assert written(generated(model, table(), generate=SAMPLED, batch_tokens=batch_tokens)) == whole
    turned = table(TEXTS[::-1], [f"p{row}" for row in range(len(TEXTS))][::-1])
    assert written(generated(model, turned, generate=SAMPLED)) == whole[::-1]
    torch.manual_seed(11)
    assert written(generated(model, table()[1:3], generate=SAMPLED)) == whole[1:3]
    assert whole[1] != whole[4], "the same text under another id is another draw"
    assert written(generated(model, table(), generate={**SAMPLED, "seed": 4})) != whole
    assert written(generated(model, table(), generate={**SAMPLED, "top_k": 1})) == written(generated(model))


def test_samples_have_the_distribution_of_the_model(model, plain):
    """First tokens of 600 draws against the probabilities that transformers' own warpers leave."""
    many = table([TEXTS[0]] * 600)
    options = {"max_new_tokens": 1, "min_new_tokens": 1, "do_sample": True, "temperature": 0.7, "top_k": 8}
    store = generated(model, many, tokens="generated:last", sites="embed", generate=options)
    ids = torch.tensor([model.encode(TEXTS[0]).input_ids])
    scores = plain(ids).logits[0, -1] / 0.7
    scores[plain.config.eos_token_id] = -torch.inf  # min_new_tokens
    kept = torch.full_like(scores, -torch.inf).scatter(0, scores.topk(8).indices, scores.topk(8).values)
    wanted = kept.softmax(-1).detach().double().numpy()
    found = np.bincount([new[0] for new in written(store)], minlength=len(wanted)) / len(many)
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(wanted))
    # total variation of 600 draws from 8 values is about 0.4 * sqrt(8 / 600) = 0.05
    assert np.abs(found - wanted).sum() / 2 < 0.1
    assert np.array_equal(draws_of(0, "a", 9)[:4], draws_of(0, "a", 4))


def test_what_a_text_ends_with_is_left_out_and_a_prompt_without_continuation_has_no_rows(model, caplog):
    free = written(generated(model))
    first, third = free[0][0], next(token for token in free[1] if token not in (free[0][0], free[1][0]))
    ends = {"max_new_tokens": 7, "eos_token_id": [first, third]}
    cut = [list(itertools.takewhile(lambda token: token not in (first, third), new)) for new in free]
    assert cut[0] == [] and 0 < len(cut[1]) < 7
    store = generated(model, generate=ends)
    assert written(store) == cut
    assert sorted(set(store.examples.tolist())) == [i for i, new in enumerate(cut) if new]
    assert "continuations are empty" in caplog.text and "'0'" in caplog.text
    means = generated(model, tokens="generated:mean", generate=ends)
    assert means.examples.tolist() == [i for i, new in enumerate(cut) if new]
    with pytest.raises(LayerprobeError, match="wrote nothing after any prompt"):
        generated(model, TEXTS[:1], generate={"max_new_tokens": 7, "eos_token_id": first})


def test_a_killed_capture_goes_on_with_the_stored_continuations_to_the_same_bytes(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(assembly, "BLOCK_BYTES", SMALL_BLOCK)
    whole, killed = tmp_path / "whole.h5", tmp_path / "killed.h5"
    options = {"tokens": "generated", "generate": {**SAMPLED, "max_new_tokens": 4}}
    run(model, whole, **options)
    # by kill -9, before its 30th system call that changes a file
    assert in_child(die_while_writing, str(tiny_model("llama")), killed, 30, options) == -signal.SIGKILL
    assert not open_store(killed).complete

    def never(*_, **__):
        raise AssertionError("generated again")

    monkeypatch.setattr(Model, "generate_ids", never)
    run(model, killed, **options)
    assert datasets(killed) == datasets(whole)
    assert run(model, killed, **options).complete  # returns at once


def test_extension_reads_the_same_continuations_and_writes_those_of_new_prompts(model, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    generated(model, table()[:3], path=path, sites="resid_post[0]", generate=SAMPLED)
    calls, original = [], Model.continue_ids

    def counted(self, rows, **options):
        calls.extend(rows)
        return original(self, rows, **options)

    monkeypatch.setattr(Model, "continue_ids", counted)
    both = {"sites": ["resid_post[0]", "resid_post[2]"], "generate": SAMPLED, "extend": True}
    wider = generated(model, table()[:3], path=path, **both)
    assert not calls
    longer = generated(model, table(), path=path, **both)
    assert len(calls) == 2
    monkeypatch.undo()
    fresh = generated(model, table(), sites=["resid_post[0]", "resid_post[2]"], generate=SAMPLED)
    for layer in (0, 2):
        want = fresh.activations("resid_post", layer)
        np.testing.assert_allclose(longer.activations("resid_post", layer), want, atol=1e-5)
        np.testing.assert_allclose(wider.activations("resid_post", layer), want[: wider.n_rows], atol=1e-5)
    assert longer.labels("generated_text").tolist() == fresh.labels("generated_text").tolist()


def test_shards_write_what_the_whole_writes(model, tmp_path):
    options = {"sites": "resid_post[1]", "tokens": "generated", "generate": SAMPLED}
    shared = {"of": 2, "prompts": table().sha256, "folder": tmp_path, "options": options}
    paths = [capture_shard(model, shard_of(table(), index, 2), index=index, **shared) for index in (0, 1)]
    joined, whole = merge(paths, tmp_path / "all.h5"), generated(model, table(), generate=SAMPLED)
    assert joined.labels("generated_text").tolist() == whole.labels("generated_text").tolist()
    want = whole.activations("resid_post", 1)
    np.testing.assert_allclose(joined.activations("resid_post", 1), want, atol=1e-5)
    figures = plan_shards(model, table(), of=2, folder=tmp_path, options=options)
    assert sum(figures.rows) == 7 * len(TEXTS) and "at most" in str(figures)


def test_what_is_generated_is_part_of_what_a_file_is(model, tmp_path):
    path = tmp_path / "a.h5"
    store = generated(model, table(), path=path)
    assert store.identity["generate"] == {"max_new_tokens": 7}
    for generate in ({"max_new_tokens": 8}, SAMPLED):
        with pytest.raises(LayerprobeError, match="different are: generate"):
            generated(model, table(), path=path, generate=generate)
    with pytest.raises(LayerprobeError, match=r"texts of 1, first 'p0'"):
        generated(model, table(["a cat", *TEXTS[1:]]), path=path)
    own = load_model(tiny_model("llama"), check=False)
    own.hf.generation_config.repetition_penalty = 1.3
    with pytest.raises(LayerprobeError, match=r"model\.generation"):
        generated(own, table(), path=path)
    source = str(tiny_model("llama"))
    asked = {"sites": "resid_post", "tokens": "generated"}
    same = CaptureRequest(**asked, generate={"max_new_tokens": 7, "do_sample": False})
    assert differing(store, table(), same, source=source) == []
    other = CaptureRequest(**asked, generate={"max_new_tokens": 9})
    assert "generate" in differing(store, table(), other, source=source)[0]


def test_a_penalty_does_not_read_the_padding(model, plain, monkeypatch):
    """To transformers, padding is a token that the text has said: there must be none."""
    padded, original = [], Model.generate_ids

    def seen(self, ids, mask, **options):
        padded.append(not bool(mask.all()))
        return original(self, ids, mask, **options)

    monkeypatch.setattr(Model, "generate_ids", seen)
    penalty = {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2}
    store = generated(model, generate={"max_new_tokens": 7, **penalty})
    assert written(store) == [oracle(plain, model, text, options=penalty)[0] for text in TEXTS]
    assert not any(padded) and len(padded) == 4  # two of the five are the same text
    generated(model)
    assert padded[4:] == [True]


def steered(model, kind):
    """An edit that changes what is written, in one of the ways that an edit can name its tokens."""
    width, longest = model.d_model, max(len(model.encode(text).input_ids) for text in TEXTS)
    draw = torch.Generator().manual_seed(0)
    vector = torch.randn(width, generator=draw)
    each = torch.tensor([0, -1, 2, 0, -2])
    mask = torch.rand(len(TEXTS), longest, generator=draw) < 0.5
    many = torch.randn(len(TEXTS), longest, width, generator=draw)
    at = {"layer": 1, "site": "resid_post"}
    return {
        "everywhere": lambda: lp.add(**at, vector=vector, scale=2.0),
        "last of the prompt": lambda: lp.add(**at, vector=vector, scale=9.0, positions=-1),
        "from the last on": lambda: lp.add(**at, vector=vector, scale=4.0, positions=slice(-1, None)),
        "one for each text": lambda: lp.add(**at, vector=vector, scale=9.0, positions=each),
        "a mask for each text": lambda: lp.add(**at, vector=vector, scale=9.0, positions=mask),
        "values for each text": lambda: lp.patch(**at, values=many[:, 0], positions=-1),
        "values for each token": lambda: lp.patch(**at, values=many),
    }[kind]()


KINDS = (
    *("everywhere", "last of the prompt", "from the last on", "one for each text", "a mask for each text"),
    *("values for each text", "values for each token"),
)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        *(("huggingface", kind) for kind in KINDS),
        *(("transformer_lens", kind) for kind in KINDS[2:4]),
        ("nnsight", KINDS[2]),
    ],
)
def test_an_edit_in_force_is_the_same_while_writing_and_while_reading(model, monkeypatch, engine, kind):
    """The last block's output at every step of generation itself, kept by a hook of PyTorch's own."""
    model = model if engine == "huggingface" else load_model(tiny_model("llama"), engine=engine, check=False)
    edit = steered(model, kind)
    steps, seven = [], {"max_new_tokens": 7, "min_new_tokens": 7}
    with model.edit(edit):
        store = generated(model, sites="resid_post[2]", generate=seven)
        texts = model.generate(TEXTS, **seven)
        block = model.hf.get_submodule(model.anatomy.blocks[2].block)
        model.allow_hooks = True
        handle = block.register_forward_hook(
            lambda _, __, out: steps.append((out[0] if isinstance(out, tuple) else out)[:, -1].clone())
        )
        try:
            model.generate(TEXTS, max_new_tokens=8, min_new_tokens=8)
        finally:
            handle.remove()
            model.allow_hooks = False
    assert store.labels("generated_text")[::7].tolist() == texts
    assert written(store) != written(generated(model, generate=seven))
    # step 0 reads the prompt's last token; step s the s-th that was written
    want = torch.stack(steps[1:8], dim=1).flatten(0, 1).numpy()
    np.testing.assert_allclose(store.activations("resid_post", 2), want, atol=1e-5)


def test_an_edit_of_single_keys_is_refused_by_name(model):
    with (
        model.edit(lp.add("attn_pattern", layer=0, vector=[0.1, 0.2, 0.3])),
        pytest.raises(LayerprobeError, match=r"add at attn_pattern.*single keys"),
    ):
        generated(model, ["the cat"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generate": {}}, "needs generate="),
        ({"tokens": "last"}, "generate= is for tokens='generated'"),
        ({"generate": {"max_new_tokens": 0}}, "max_new_tokens=0, expected a whole number from 1 on"),
        ({"generate": {"max_tokens": 5}}, "expected {'max_new_tokens': 64}"),
        ({"generate": {"max_new_tokens": 5, "num_beams": 2}}, "no option 'num_beams'"),
        ({"generate": {"max_new_tokens": 5, "temperature": 0.5}}, "temperature, which is for sampling"),
        ({"generate": {**SAMPLED, "top_p": 1.5}}, "top_p=1.5, expected a number above 0, at most 1"),
        ({"generate": {"max_new_tokens": 5, "min_new_tokens": 6}}, "min_new_tokens=6 is more"),
        (
            {"generate": {"max_new_tokens": 60}},
            r"max_new_tokens=60 after them.*context of 64",
        ),
        ({"generate": {"max_new_tokens": 64}}, "leaves no room"),
        ({"tokens": "generated:middle"}, "expected last, first"),
        ({"lens_first_difference": True}, "lens_first_difference"),
    ],
)
def test_what_cannot_be_generated_is_refused_before_anything_runs(model, monkeypatch, options, said):
    monkeypatch.setattr(Model, "generate_ids", None)
    with pytest.raises(LayerprobeError, match=said):
        generated(model, **options)


def test_a_prompt_too_long_to_be_continued_is_cut_where_told(model):
    store = generated(model, TEXTS[2:3], generate={"max_new_tokens": 60}, on_long="truncate", sites="embed")
    ids = model.encode(TEXTS[2]).input_ids
    assert store.token_ids()[0][:4].tolist() == ids[:4] and len(store.token_ids()[0]) <= 64
    assert store.positions[0] == 4


def test_chats_are_continued_where_the_assistants_turn_begins(model):
    chats = [[{"role": "user", "content": text}] for text in TEXTS[:2]]
    store = generated(model, chats, tokens="generated:last")
    assert store.labels("generated_text").tolist() == model.generate(chats, max_new_tokens=7)
    assert all(" assistant : " in text for text in store.texts)


def test_a_column_of_that_name_is_refused(model):
    given = PromptTable(("a",), ("the cat",), {"n_generated": np.array([1])}, name="t")
    with pytest.raises(LayerprobeError, match="rename it"):
        generated(model, given)


def test_options_are_written_one_way():
    assert checked_generate_options({"max_new_tokens": np.int64(5), "do_sample": False, "seed": None}) == {
        "max_new_tokens": 5
    }
    with pytest.raises(LayerprobeError, match="do_sample=1"):
        checked_generate_options({"max_new_tokens": 5, "do_sample": 1})


def test_a_plan_says_the_most_and_writes_nothing(model, monkeypatch):
    monkeypatch.setattr(Model, "generate_ids", None)
    figures = plan(model, TEXTS, sites="resid_post", tokens="generated", generate={"max_new_tokens": 7})
    assert figures.rows == 7 * len(TEXTS)
    assert str(figures).startswith("at most 35 rows") and "without the time of generating" in str(figures)
    request = CaptureRequest(sites="resid_post", tokens="generated", generate={"max_new_tokens": 60})
    with pytest.raises(LayerprobeError, match="max_new_tokens=60"):
        check_request(model.tokenizer, table(), request, max_length=model.max_length)


def test_the_lens_reads_answers_at_generated_tokens(model):
    answered = PromptTable(
        ("a", "b"), tuple(TEXTS[:2]), {"answer": np.array(["yes", "no"], dtype=object)}, name="t"
    )
    store = generated(model, answered, sites=["lens"], lens_tokens=["answer"])
    assert store.lens.candidate_logits.shape[:2] == (3, store.n_rows)
    # the last block's lens is the model's own distribution: greedy text is its top token, one step on
    top = store.lens.top_ids[-1, :, 0]
    for prompt, new in enumerate(written(store)):
        assert top[store.examples == prompt][:-1].tolist() == new[1:]


def test_the_command_line_plans_and_captures_what_is_generated(tmp_path, capsys):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in TEXTS), encoding="utf-8")
    shared = ["--model", str(tiny_model("llama")), "--prompts", str(prompts), "--sites", "resid_post[1]"]
    shared += ["--tokens", "generated:mean", "--out", str(tmp_path / "a.h5")]
    shared += ["--generate", "max_new_tokens=7", "do_sample=true", "seed=3"]
    assert cli(["plan", *shared]) == 0
    assert capsys.readouterr().out.startswith("at most 5 rows")
    assert cli(["capture", *shared, "--quiet"]) == 0
    store = open_store(tmp_path / "a.h5")
    assert store.identity["generate"] == {"do_sample": True, "max_new_tokens": 7, "seed": 3}
    assert store.labels("n_generated").max() == 7


def test_options_given_as_pairs_are_read_from_the_command_line():
    needed = ["capture", "--model", "m", "--prompts", "p", "--out", "o.h5"]
    pairs = [
        "--chat-options",
        "enable_thinking=false",
        "date=2024-07-26",
        "--generate=max_new_tokens=7",
        "seed=1",
    ]
    command = _parse([*needed, *pairs])
    assert command.chat_options == {"enable_thinking": "false", "date": "2024-07-26"}
    assert command.generate == {"max_new_tokens": "7", "seed": "1"}


def test_a_study_generates(tmp_path, capsys):
    prompts = tmp_path / "p.jsonl"
    prompts.write_text(
        "".join(f'{{"prompt": "{text}", "kind": "{"ab"[row % 2]}"}}\n' for row, text in enumerate(TEXTS * 8)),
        encoding="utf-8",
    )
    capture = {"sites": ["resid_post[1]"], "tokens": "generated:mean", "generate": {"max_new_tokens": 3}}
    told = {
        "models": {"tiny": {"source": str(tiny_model("llama"))}},
        "prompts": {"file": str(prompts), "labels": ["kind"]},
        "capture": capture,
        "analysis": [{"kind": "separation", "label": "kind", "group": "none", "n_permutations": 20}],
    }
    study = check_study(told, "a study")
    file = tmp_path / "study.toml"
    file.write_text(study_toml(study), encoding="utf-8")
    assert cli(["run", str(file), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    (made,) = (tmp_path / "out").rglob("*.h5")
    store = open_store(made)
    assert store.identity["generate"] == {"max_new_tokens": 3} and store.tokens == "generated:mean"
    other = check_study({**told, "capture": {**capture, "generate": {"max_new_tokens": 4}}}, "a study")
    keys = {request_key(one.models["tiny"], "w", "p", one) for one in (study, other)}
    assert len(keys) == 2
