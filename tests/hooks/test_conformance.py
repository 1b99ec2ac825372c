"""Every site of every architecture on every engine against the float64 reference, and the table in the
docs."""

from importlib.util import find_spec

import pytest
import torch
from oracles.blocks import reference
from tiny_models import ARCHITECTURES, tiny_model

from .conformance import ENGINES, ROOT, TOLERANCE, batch, between_engines, measure

NOT_IN_TRANSFORMER_LENS = ("falcon_new", "bert", "roberta", "modernbert")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_reference_agrees_with_itself(name):
    """The oracle's own sum, from the weights alone, gives transformers' next hidden state."""
    ids, mask = batch()
    values = reference(name, tiny_model(name), ids, mask)
    for at, value in values.items():
        if at.site == "resid_pre" and at.layer:
            post = values[type(at)("resid_post", at.layer - 1)]
            assert torch.allclose(value, post, atol=1e-9), at


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sites_match_the_float64_reference(name, engine):
    found = measure(name, engine)
    numbers = {site: value for site, value in found.items() if isinstance(value, float)}
    if engine == "transformer_lens" and name in NOT_IN_TRANSFORMER_LENS:
        assert not numbers
        assert "use engine='huggingface'" in str(found["embed"])
        return
    if engine == "transformer_lens" and name == "qwen2_5_vl" and find_spec("torchvision") is None:
        assert not numbers
        assert "pip install torchvision" in str(found["embed"])
        return
    assert {"embed", "resid_post", "attn_out", "mlp_out", "head_out", "q", "k", "v", "attn_pattern"} <= set(
        numbers
    )
    bad = {site: value for site, value in numbers.items() if not value <= TOLERANCE}
    assert not bad


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_engines_agree_in_bfloat16(name):
    row = between_engines(name)
    assert row["nnsight - huggingface"] == "0"


def test_the_docs_hold_a_row_for_every_architecture():
    text = (ROOT / "docs" / "engines.md").read_text()
    for name in ARCHITECTURES:
        assert text.count(f"| {name} |") == len(ENGINES) + 1
