"""Granite multiplies what a sublayer returns before adding it: `attn_out` and `mlp_out` are the product, and
the units of an edit there are those of the product."""

import pytest
import torch
from tiny_models import VOCAB, tiny_model

import layerprobe as lp
from layerprobe.hooks.sites import SiteAt
from layerprobe.hooks.weights.load import load_model

ENGINES = ("huggingface", "nnsight", "transformer_lens")
NAMES = ("granite", "granite_moe")
AFTER = {"attn_out": ("resid_pre", "resid_mid"), "mlp_out": ("resid_mid", "resid_post")}


def batch():
    ids = torch.randint(7, VOCAB, (2, 9), generator=torch.Generator().manual_seed(3))
    return ids, torch.ones_like(ids)


@pytest.fixture(params=[(n, e) for n in NAMES for e in ENGINES], ids="-".join)
def model(request):
    name, engine = request.param
    return load_model(tiny_model(name), engine=engine, check=False)


def streams(model, site, layer=1):
    """The stream before and after a branch, and what the site says was added between."""
    ids, mask = batch()
    names = (*AFTER[site], site)
    out = model.forward(ids, mask, sites=[f"{name}[{layer}]" for name in names])
    return [out[SiteAt(name, layer)] for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_the_self_check_passes_and_the_logits_are_the_models_own(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPROBE_CACHE", str(tmp_path))
    model = load_model(tiny_model(name))
    assert all(finding.difference is not None for finding in model.check().findings)
    ids, mask = batch()
    with torch.no_grad():
        own = model.hf(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(model.logits(ids, mask), own)


@pytest.mark.parametrize("site", AFTER)
def test_an_edit_is_in_the_units_of_the_stream(model, site):
    before, after, added = streams(model, site)
    torch.testing.assert_close(before + added, after)
    vector = torch.linspace(-3, 3, model.d_model)
    with model.edit(lp.add(site, layer=1, vector=vector)):
        torch.testing.assert_close(streams(model, site)[1], after + vector)
        torch.testing.assert_close(streams(model, site)[2], added + vector)
    with model.edit(lp.ablate(site, layer=1)):
        assert torch.equal(streams(model, site)[1], before)
    donor = torch.randn(2, 9, model.d_model, generator=torch.Generator().manual_seed(0))
    with model.edit(lp.patch(site, layer=1, values=donor)):
        torch.testing.assert_close(streams(model, site)[1], before + donor)
    with model.edit(lp.project_out(site, layer=1, directions=vector)):
        written = streams(model, site)[2]
    torch.testing.assert_close(written @ vector, torch.zeros(2, 9), atol=2e-4, rtol=0)


@pytest.mark.parametrize("site", AFTER)
def test_what_an_edit_leaves_alone_stays_bit_for_bit(model, site):
    ids, mask = batch()
    _, after, added = streams(model, site)
    plain = model.logits(ids, mask)
    with model.edit(lp.patch(site, layer=1, values=added)):
        assert torch.equal(model.logits(ids, mask), plain)
    with model.edit(lp.add(site, layer=1, vector=torch.ones(model.d_model), positions=4)):
        edited = streams(model, site)[1]
    assert torch.equal(edited[:, :4], after[:, :4])
    assert not torch.equal(edited[:, 4], after[:, 4])
