"""Capture: the numbers are the model's own, and padding, batching and the place of storage change nothing."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, open_store, read_prompts
from layerprobe.cache.prompts.table import PromptTable

TEXTS = [
    "the baker and the pilot were at the park .",
    "who was late ?",
    "the dog was in the house and the cat was on it",
    "yes",
    "who was late ?",
    "one two three four five",
]


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


def labelled(**columns):
    return PromptTable(
        tuple(str(i) for i in range(len(TEXTS))),
        tuple(TEXTS),
        {name: np.array(values, dtype=object) for name, values in columns.items()},
    )


def test_the_real_model_matches_its_float64_reference(stories, tmp_path):
    text = "One day, a little boy named Tom went to the park with his mom."
    store = capture(
        load_model(stories), [text], sites=["resid_post", "embed"], tokens="all", path=tmp_path / "s.h5"
    )
    reference = load_file(stories / "reference_activations.safetensors")["residual"].numpy()
    np.testing.assert_allclose(store.activations("resid_post"), reference[1:], atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(store.activations("embed"), reference[0], atol=1e-5)


@pytest.mark.parametrize("rule", ["last", "first", "mean", "all", "pos:1", "regex:(the|who):all"])
@pytest.mark.parametrize("batch_tokens", [1, 24, 4096])
def test_batching_and_padding_change_nothing(llama, rule, batch_tokens):
    texts = [text for text in TEXTS if text != "yes" or not rule.startswith("pos")]
    together = capture(
        llama, texts, sites="resid_post", tokens=rule, batch_tokens=batch_tokens, progress=False
    )
    rows = []
    for text in texts:
        if rule.startswith("regex") and "the" not in text and "who" not in text:
            continue
        alone = capture(llama, [text], sites="resid_post", tokens=rule, progress=False)
        rows.append(alone.activations("resid_post"))
    np.testing.assert_allclose(together.activations("resid_post"), np.concatenate(rows, axis=1), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_file_and_memory_hold_the_same(llama, tmp_path, dtype):
    options = {
        "sites": ["resid_post", "head_out[-1]", "embed", "lens"],
        "lens_tokens": ["answer"],
        "dtype": dtype,
        "progress": False,
    }
    table = labelled(answer=["baker", "pilot", "dog", "yes", "pilot", "one"])
    memory = capture(llama, table, **options)
    store = capture(llama, table, path=tmp_path / "s.h5", **options)
    assert store.complete
    for site in memory.sites:
        np.testing.assert_array_equal(store.activations(site), memory.activations(site))
        assert store.layers(site) == memory.layers(site)
        same = store.activations(site, as_torch=True)
        assert same.dtype == getattr(torch, dtype)
        np.testing.assert_array_equal(same.float().numpy(), np.float32(store.activations(site)))
    for name in (
        "candidate_ids",
        "candidate_logits",
        "candidate_ranks",
        "top_ids",
        "logsumexp",
        "kl_to_final",
    ):
        np.testing.assert_array_equal(getattr(store.lens, name), getattr(memory.lens, name))
    assert list(store.labels("answer")) == list(table.labels["answer"])
    assert store.texts == TEXTS == memory.texts
    assert [list(a) for a in store.token_ids()] == [list(a) for a in memory.token_ids()]


def test_the_lens_at_the_last_layer_is_the_models_output(llama):
    table = labelled(answer=["baker", "pilot", "dog", "yes", "pilot", "one"])
    lens = capture(llama, table, sites="lens", lens_tokens=["answer"], progress=False).lens
    for row, text in enumerate(TEXTS):
        ids = torch.tensor([llama.encode(text).input_ids])
        logits = llama.logits(ids, torch.ones_like(ids))[0, -1].float()
        known = lens.candidate_ids[row, 0] >= 0
        picked = lens.candidate_ids[row, 0][known]
        np.testing.assert_allclose(lens.candidate_logits[-1, row, 0][known], logits[picked], atol=1e-3)
        np.testing.assert_allclose(lens.logsumexp[-1, row], logits.logsumexp(0), atol=1e-3)
        assert lens.kl_to_final[-1, row] == pytest.approx(0, abs=1e-4)


def test_identical_prompts_run_once_and_keep_their_own_labels(llama, monkeypatch):
    seen = []
    original = type(llama).forward
    monkeypatch.setattr(
        type(llama),
        "forward",
        lambda self, ids, *a, **k: (seen.append(len(ids)), original(self, ids, *a, **k))[1],
    )
    store = capture(llama, labelled(answer=list("abcdef")), sites="resid_post", progress=False)
    assert sum(seen) == len(set(TEXTS))
    np.testing.assert_array_equal(*store.activations("resid_post", rows=[1, 4]).swapaxes(0, 1))
    assert list(store.labels("answer")) == list("abcdef")


def test_bad_requests_are_refused_before_the_model_runs(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(type(llama), "forward", lambda *a, **k: pytest.fail("the model ran"))
    long = ["the " * 100]
    cases = [
        (TEXTS, {"sites": "nope"}, "unknown site"),
        (TEXTS, {"sites": "resid_post[9]"}, "layer 9"),
        (TEXTS, {"sites": "resid_post", "tokens": "lats"}, "no token rule"),
        (TEXTS, {"sites": "resid_post", "tokens": "span:answer"}, "needs a span column"),
        (TEXTS, {"sites": "resid_post", "tokens": "pos:60"}, "picks no token"),
        (TEXTS, {"sites": "resid_post", "tokens": "role:user"}, "needs chat messages"),
        (TEXTS, {"sites": "resid_post", "lens_tokens": ["answer"]}, "not a label column"),
        (TEXTS, {"sites": "resid_post", "dtype": "int8"}, "dtype='int8'"),
        (long, {"sites": "resid_post"}, "more than the model's context of 64"),
        (
            labelled(a=["dog"] * 6, b=["dog dog"] * 6),
            {"sites": "lens", "lens_tokens": ["a", "b"]},
            "same token",
        ),
        (labelled(a=["zebra"] * 6), {"sites": "lens", "lens_tokens": ["a"]}, "begins with a token"),
    ]
    for prompts, options, words in cases:
        with pytest.raises(LayerprobeError, match=words):
            capture(llama, prompts, path=tmp_path / "x.h5", progress=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_first_token_that_differs_is_scored_when_told(llama):
    table = labelled(a=["the dog"] * 6, b=["the cat"] * 6)
    store = capture(
        llama, table, sites="lens", lens_tokens=["a", "b"], lens_first_difference=True, progress=False
    )
    dog, cat = (llama.tokenizer.convert_tokens_to_ids(word) for word in ("dog", "cat"))
    assert store.lens.candidate_ids[0, :, 0].tolist() == [dog, cat]
    ids = torch.tensor([llama.encode(TEXTS[0] + " the").input_ids])
    logits = llama.logits(ids, torch.ones_like(ids))[0, -1]
    np.testing.assert_allclose(store.lens.candidate_logits[-1, 0, :, 0], logits[[dog, cat]], atol=1e-3)


def test_a_finished_match_returns_at_once_and_another_is_refused(llama, tmp_path, monkeypatch):
    path = tmp_path / "s.h5"
    capture(llama, TEXTS, sites="resid_post", path=path, progress=False)
    before = path.read_bytes()
    for options, field in (
        ({"sites": "resid_post[0]"}, "sites"),
        ({"sites": "resid_post", "tokens": "all"}, "tokens"),
    ):
        with pytest.raises(LayerprobeError, match=f"different are: .*{field}.*s-2.h5"):
            capture(llama, TEXTS, path=path, progress=False, **options)
    with pytest.raises(LayerprobeError, match="prompts"):
        capture(llama, TEXTS[:3], sites="resid_post", path=path, progress=False)
    monkeypatch.setattr(type(llama), "forward", lambda *a, **k: pytest.fail("the model ran"))
    assert capture(llama, TEXTS, sites="resid_post", path=path, progress=False).complete
    assert path.read_bytes() == before


def test_real_text_runs_through(stories, test_data, tmp_path):
    prompts = read_prompts(
        test_data / "data" / "bbq" / "Religion.jsonl",
        text="context",
        labels=["question_polarity"],
        group="question_index",
        limit=50,
    )
    capture(load_model(stories), prompts, sites="resid_post", path=tmp_path / "s.h5", progress=False)
    store = open_store(tmp_path / "s.h5")
    assert store.activations("resid_post", layer=4).shape == (50, 64)
    assert set(store.labels("question_polarity")) == {"neg", "nonneg"}


def test_one_row_rules_are_what_they_say_of_all_tokens(llama):
    """Against every token's activation: the last, the first and the mean of those that are not special."""
    every = capture(llama, TEXTS, sites="resid_post", tokens="all", progress=False)
    whole, expected = every.activations("resid_post"), {"last": [], "first": [], "mean": []}
    for index, text in enumerate(TEXTS):
        rows = whole[:, every.examples == index]
        kept = np.flatnonzero(~np.array(llama.encode(text).special))
        expected["last"].append(rows[:, -1])
        expected["first"].append(rows[:, kept[0]])
        expected["mean"].append(rows[:, kept].astype(np.float64).mean(axis=1))
    for rule, values in expected.items():
        store = capture(llama, TEXTS, sites="resid_post", tokens=rule, progress=False)
        np.testing.assert_allclose(store.activations("resid_post"), np.stack(values, axis=1), atol=1e-5)
