"""A sample of transformers' own architectures, judged as count_architectures.py judges them all."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("count", Path(__file__).with_name("count_architectures.py"))
count = importlib.util.module_from_spec(spec)
spec.loader.exec_module(count)


@pytest.fixture(autouse=True)
def fresh_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "name", "without"),
    [
        ("causal", "bart", {"attn_out", "mlp_out", "resid_mid", "generate"}),
        ("causal", "bert", {"lens"}),
        ("causal", "modernbert-decoder", {"lens"}),
        ("causal", "openai-gpt", {"attn_out", "mlp_out", "resid_mid", "generate"}),
        ("causal", "mamba", {"generate"}),
        ("encoder", "distilbert", {"attn_out", "mlp_out", "resid_mid", "generate"}),
        ("encoder", "esm", {"generate", "head_out", "attn_out", "final_norm", "lens"}),
        ("encoder", "mpnet", {"generate"}),
    ],
)
def test_the_stream_is_right_and_no_more_is_lost_than_must_be(kind, name, without):
    found = count.outcome(kind, name)
    assert found.verdict == "right", found
    assert set(filter(None, found.missing.split(", "))) <= without


@pytest.mark.parametrize(
    ("name", "said"),
    [("deepseek_v4", "architecture keeps something else there"), ("albert", "cannot find the blocks")],
)
def test_what_is_not_read_is_refused_by_name(name, said):
    found = count.outcome("encoder" if name == "albert" else "causal", name)
    assert found.verdict == "refused"
    assert said in found.why
