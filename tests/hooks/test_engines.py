"""What sets the engines apart: what they refuse, and that a model handed in stays as it was."""

import importlib
import subprocess
import sys

import pytest
import torch
from tiny_models import build, tiny_model, tiny_tokenizer

from layerprobe.hooks.errors import LayerprobeError
from layerprobe.hooks.in_memory import pad
from layerprobe.hooks.sites import SITES
from layerprobe.hooks.weights.load import load_model

ENGINES = ("huggingface", "nnsight", "transformer_lens")
BATCH = pad([[8, 9, 10, 11], [12, 13]], side="left")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_handed_in_is_not_changed(engine):
    module = build("llama")
    with torch.no_grad():
        before = module(input_ids=BATCH[0], attention_mask=BATCH[1]).logits
    types = [type(m) for m in module.modules()]
    model = load_model(module, tokenizer=tiny_tokenizer(), engine=engine, check=False)
    sites = [site for site in SITES if site not in ("router_logits", "mixer_out")]
    model.forward(*BATCH, sites=sites)
    model.generate(["the cat"], max_new_tokens=2)
    assert [type(m) for m in module.modules()] == types
    assert module.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert torch.equal(module(input_ids=BATCH[0], attention_mask=BATCH[1]).logits, before)


@pytest.mark.parametrize(
    ("engine", "package"), [("nnsight", "nnsight"), ("transformer_lens", "transformer-lens")]
)
def test_an_engine_that_is_missing_or_broken_costs_only_that_engine(engine, package, monkeypatch):
    folder = tiny_model("llama")
    for module in (engine, f"{engine}.model_bridge"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LayerprobeError, match=rf"engine='{engine}' .* pip install --upgrade {package}, or"):
        load_model(folder, engine=engine, check=False)
    assert load_model(folder, check=False).run("the cat", sites="resid_post[0]")
    real = importlib.import_module

    def broken(name, *rest):
        if name.startswith(engine):
            raise AttributeError("module 'torch' has no attribute 'of_another_version'")
        return real(name, *rest)

    monkeypatch.setattr("layerprobe.hooks.engines.base.import_module", broken)
    with pytest.raises(LayerprobeError, match=rf"of_another_version'\): pip install --upgrade {package}"):
        load_model(folder, engine=engine, check=False)


def test_no_engine_is_imported_before_it_is_asked_for():
    code = (
        "import sys, layerprobe as lp\n"
        "from layerprobe.hooks.weights.load import load_model\n"
        "assert not {'nnsight', 'transformer_lens'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_unknown_options_are_refused(engine):
    with pytest.raises(LayerprobeError, match="no option 'colour'"):
        load_model(tiny_model("llama"), engine=engine, check=False, colour="red")


def test_architectures_that_transformer_lens_does_not_run():
    for name in ("modernbert", "falcon_new"):
        with pytest.raises(LayerprobeError, match=r"TransformerLens cannot run .* use engine='huggingface'"):
            load_model(tiny_model(name), engine="transformer_lens", check=False)


@pytest.mark.parametrize("engine", ENGINES)
def test_loading_a_multimodal_model_installs_nothing(engine, monkeypatch):
    started = []
    for name in ("check_call", "check_output", "run", "Popen"):
        monkeypatch.setattr(subprocess, name, lambda *args, **_: started.append(args))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    load_model(tiny_model("gemma3_multimodal"), engine=engine, check=False)
    assert started == []


@pytest.mark.parametrize("engine", ENGINES)
def test_sites_beyond_the_last_one_nnsight_reads(engine):
    """Values within a module's forward may come after the last point an engine reads itself."""
    model = load_model(tiny_model("gpt2"), engine=engine, check=False)
    out = model.forward(*BATCH, sites=["attn_pattern[2]", "resid_post[0]"])
    assert [str(at) for at in out] == ["attn_pattern[2]", "resid_post[0]"]
    only = model.forward(*BATCH, sites=["attn_pattern[2]"])
    assert all(torch.equal(only[at], out[at]) for at in only)


def test_a_folder_that_names_no_class_gets_its_head(tmp_path):
    build("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"architectures"', '"unused"'))
    assert load_model(tmp_path, check=False).engine.head is not None


def test_the_docs_describe_every_site():
    from pathlib import Path

    text = (Path(__file__).parents[2] / "docs" / "sites.md").read_text()
    for site in SITES.values():
        assert site.meaning in text
        assert site.transformer_lens == "none" or f"`{site.transformer_lens}`" in text
