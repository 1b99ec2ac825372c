"""The capture loop: batches that do not fit, plans, statistics kept on the way, and what a plan foretells."""

import logging
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model
from layerprobe.cache.capture import progress
from layerprobe.cache.capture.plan import plan
from layerprobe.cache.capture.precheck import check_request, differing
from layerprobe.cache.capture.progress import Progress
from layerprobe.cache.capture.request import CaptureRequest
from layerprobe.cache.capture.staging import Staging
from layerprobe.cache.file import disk_space as room
from layerprobe.cache.file.batch_plan import make_plan
from layerprobe.cache.file.writer import StoreWriter
from layerprobe.cache.prompts.table import PromptTable

TEXTS = [f"the dog was late {'. the cat ' * (i % 6)}" for i in range(20)]


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(1, 100),
    st.integers(1, 40),
    st.sampled_from([1, 1 << 20]),
    st.integers(0, 3),
)
def test_a_plan_runs_every_prompt_once_within_its_budgets(
    prompts, batch_tokens, block_rows, row_bytes, modulus
):
    lengths, rows = (np.array(column) for column in zip(*prompts, strict=True))
    identical = np.arange(len(rows))
    if modulus:  # prompts with the same length, rows and residue count as identical
        seen = {}
        for i in range(len(rows)):
            identical[i] = seen.setdefault((lengths[i], rows[i], i % modulus), i)
    made = make_plan(
        lengths, rows, identical, batch_tokens=batch_tokens, block_rows=block_rows, row_bytes=row_bytes
    )
    covered = np.concatenate(
        [np.arange(a, b) for i in range(made.n_blocks) for a, b in made.runs_of(i)] or [[]]
    )
    assert sorted(covered) == list(range(rows.sum()))
    assert len(set(made.order.tolist())) == len(made.order)
    for block in range(made.n_blocks):
        batches = list(made.batches_of(block))
        single = len(batches) == 1 and len(batches[0]) == 1
        assert made.n_rows_of(block) <= block_rows or single
        for batch in batches:
            assert len(batch) * lengths[batch].max() <= batch_tokens or len(batch) == 1
    np.testing.assert_array_equal(identical[made.order], identical[made.same_as[made.order]])


def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered(llama, monkeypatch, caplog):
    expected = capture(llama, TEXTS, sites="resid_post", progress=False)
    original, sizes = type(llama).forward, []

    def small_memory(self, ids, *arguments, **keywords):
        sizes.append(ids.numel())
        if ids.numel() > 60:
            raise torch.OutOfMemoryError
        return original(self, ids, *arguments, **keywords)

    monkeypatch.setattr(type(llama), "forward", small_memory)
    with caplog.at_level(logging.WARNING):
        store = capture(llama, TEXTS, sites="resid_post", batch_tokens=200, progress=False)
    assert "does not fit" in caplog.text
    assert sum(size > 60 for size in sizes) <= 3
    np.testing.assert_allclose(store.activations("resid_post"), expected.activations("resid_post"), atol=1e-5)


def test_statistics_are_those_of_the_rows(llama, tmp_path):
    store = capture(
        llama, TEXTS, sites=["resid_post", "head_out"], tokens="all", path=tmp_path / "s.h5", progress=False
    )
    for site in store.sites:
        rows, kept = store.activations(site).astype(np.float64), store.statistics(site)
        np.testing.assert_allclose(kept.mean, rows.mean(axis=1), atol=1e-6)
        np.testing.assert_allclose(kept.variance, rows.var(axis=1), rtol=1e-5)
        np.testing.assert_array_equal(kept.maximum, rows.max(axis=1))
        assert kept.nonfinite.tolist() == [0] * 3


def test_attention_patterns_are_padded_with_nan(llama, tmp_path):
    store = capture(llama, TEXTS[:6], sites="attn_pattern", path=tmp_path / "s.h5", progress=False)
    pattern = store.activations("attn_pattern", 1)
    for row, length in enumerate(store.lengths):
        np.testing.assert_allclose(pattern[row, :, :length].sum(axis=1), 1, atol=1e-5)
        assert np.isnan(pattern[row, :, length:]).all()
    with pytest.raises(LayerprobeError, match="one-token rules only"):
        capture(llama, TEXTS[:6], sites="attn_pattern", tokens="all", progress=False)


def test_a_plan_foretells_the_file(llama, tmp_path):
    foretold = plan(llama, TEXTS, sites="resid_post", tokens="all", path=tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()
    store = capture(llama, TEXTS, sites="resid_post", tokens="all", path=tmp_path / "s.h5", progress=False)
    assert foretold.rows == store.n_rows
    assert foretold.bytes_on_disk == store.activations("resid_post").nbytes
    assert foretold.runs == len(set(TEXTS))
    assert 0 < foretold.bytes_on_disk < store.path.stat().st_size < 5 * foretold.bytes_on_disk
    assert "by a measured batch" in str(foretold)


def test_a_disk_that_cannot_hold_it_is_refused(llama, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda path: 100)
    with pytest.raises(LayerprobeError, match=r"needs .* kB and its disk has 100 B free"):
        capture(llama, TEXTS, sites="resid_post", path=tmp_path / "s.h5", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_must_fit_too_when_resuming(llama, tmp_path, monkeypatch):
    path, written = tmp_path / "s.h5", StoreWriter.write

    def stopping(self, block, buffers):
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        capture(llama, TEXTS, sites="resid_post", path=path, progress=False)
    monkeypatch.setattr(StoreWriter, "write", written)
    monkeypatch.setattr(room, "free_bytes", lambda path: 100)
    with pytest.raises(LayerprobeError, match=r"needs .* kB and its disk has 100 B free"):
        capture(llama, TEXTS, sites="resid_post", path=path, progress=False)
    monkeypatch.undo()
    assert capture(llama, TEXTS, sites="resid_post", path=path, progress=False).complete


def test_a_capture_begins_with_its_plan(llama, tmp_path, capsys):
    options = {"sites": "resid_post", "tokens": "all", "batch_tokens": 60, "path": tmp_path / "s.h5"}
    foretold = plan(llama, TEXTS, **options)
    store = capture(llama, TEXTS, **options)
    lines = [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.startswith("capture: ")]
    said = [line for line in lines if "|" not in line]
    assert f"capture: {store.n_rows:,} rows, " in said[0] and "free)" in said[0]
    assert said[0].split(" free)")[1] == foretold.contents.split(" free)")[1]
    assert re.search(r"peak memory: host [\d.]+ .B; about [\d.]+ s, by a measured batch", said[1])
    assert len(said) == 2
    bars = [line for line in lines if "|" in line]
    assert "100%" in bars[-1]
    capture(llama, TEXTS, **options)  # finished: nothing to say
    assert capsys.readouterr().err == ""


def test_the_bar_counts_the_tokens_that_run(llama, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Progress, "update", lambda self, count: seen.append(count))
    capture(llama, TEXTS, sites="resid_post", batch_tokens=60, path=tmp_path / "s.h5")
    assert sum(seen) == sum(len(llama.encode(text).input_ids) for text in set(TEXTS))


def test_a_request_is_recognised_without_a_model(llama, tmp_path):
    table = PromptTable(tuple(map(str, range(20))), tuple(TEXTS), {"a": np.array(["yes"] * 20, dtype=object)})
    options = {"sites": ["resid_post[-1]", "lens"], "lens_tokens": ["a"]}
    request, source = CaptureRequest(**options), str(tiny_model("llama"))
    store = capture(llama, table, path=tmp_path / "s.h5", progress=False, **options)
    assert differing(store, table, request, source=source) == []
    assert any("n_prompts" in one for one in differing(store, table[:5], request, source=source))
    assert any(
        "tokens" in one
        for one in differing(store, table, CaptureRequest(**options, tokens="mean"), source=source)
    )
    assert any("the model" in one for one in differing(store, table, request, source=str(tiny_model("gpt2"))))
    check_request(llama.tokenizer, table, request, max_length=64)
    with pytest.raises(LayerprobeError, match="context of 10"):
        check_request(llama.tokenizer, table, request, max_length=10)


def test_rows_arrive_as_they_were_sent():
    rows = {"x": {0: torch.randn(3, 4), 1: torch.randn(3, 4)}, "y": {0: torch.randn(3).bfloat16()}}
    staging = Staging(torch.device("cpu"))
    first = staging.send(rows)
    staging.send({"x": {0: torch.zeros(3, 4)}})
    for layer in (0, 1):
        np.testing.assert_array_equal(first()["x"][layer], rows["x"][layer])
    assert first()["y"][0].dtype == np.uint16


@pytest.mark.gpu
def test_a_gpu_capture_equals_the_cpu_capture(tmp_path):
    model = load_model(tiny_model("llama"), check=False, device="cuda")
    store = capture(model, TEXTS, sites="resid_post", path=tmp_path / "s.h5", progress=False)
    expected = capture(
        load_model(tiny_model("llama"), check=False, device="cpu"), TEXTS, sites="resid_post", progress=False
    )
    np.testing.assert_allclose(store.activations("resid_post"), expected.activations("resid_post"), atol=1e-3)


def test_the_estimate_is_for_the_tokens_that_are_left(llama, monkeypatch):
    original, asked = progress.summarise, []

    def noted(plan, lengths, arrays, path, measured, *, left):
        asked.append((measured, left))
        return original(plan, lengths, arrays, path, measured, left=left)

    monkeypatch.setattr(progress, "summarise", noted)
    capture(llama, TEXTS, sites="resid_post", batch_tokens=60)
    total = sum(len(llama.encode(text).input_ids) for text in set(TEXTS))
    (_, before), (measured, after) = asked
    assert before == total
    assert 0 < measured.tokens <= after < total
