"""A finished store grows by siblings: only what is missing runs, and an index opens all as one."""

import numpy as np
import pytest
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model, open_store
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store.verify import verify

TEXTS = ["the dog was late .", "who was at the park ?", "yes", "one two three", "the cat", "no no no"]


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture
def counted(llama, monkeypatch):
    runs = []
    original = type(llama).forward

    def forward(self, ids, *arguments, **keywords):
        runs.append((len(ids), len(keywords["sites"])))
        return original(self, ids, *arguments, **keywords)

    monkeypatch.setattr(type(llama), "forward", forward)
    return runs


def table(count):
    labels = {"label": np.array(["yes", "no"] * 3, dtype=object)[:count]}
    return PromptTable(tuple("abcdef"[:count]), tuple(TEXTS[:count]), labels)


def test_only_what_is_missing_runs(llama, counted, tmp_path):
    path = tmp_path / "a.h5"
    capture(llama, table(4), sites="resid_post[0]", path=path, progress=False)
    before = path.read_bytes()
    del counted[:]
    more = capture(llama, table(4), sites=["resid_post", "embed"], path=path, extend=True, progress=False)
    assert counted == [(4, 3)]
    assert more.layers("resid_post") == (0, 1, 2)
    del counted[:]
    longer = capture(llama, table(6), sites="resid_post", path=path, extend=True, progress=False)
    assert counted == [(2, 4)]
    assert path.read_bytes() == before
    whole = capture(llama, table(6), sites=["resid_post", "embed"], progress=False)
    for site in whole.sites:
        np.testing.assert_allclose(longer.activations(site), whole.activations(site), atol=1e-5)
    assert list(longer.labels("label")) == ["yes", "no"] * 3
    again = open_store(tmp_path / "a-index.h5")
    np.testing.assert_array_equal(
        again.activations("resid_post", 2, rows=[5, 0]), longer.activations("resid_post", 2)[[5, 0]]
    )
    assert verify(tmp_path / "a-index.h5").ok
    del counted[:]
    capture(llama, table(6), sites=["resid_post", "embed"], path=path, extend=True, progress=False)
    assert counted == []


def test_something_else_is_not_an_extension(llama, tmp_path):
    path = tmp_path / "a.h5"
    capture(llama, table(4), sites="resid_post[0]", path=path, progress=False)
    with pytest.raises(LayerprobeError, match="tokens"):
        capture(llama, table(4), sites="embed", tokens="all", path=path, extend=True, progress=False)
    with pytest.raises(LayerprobeError, match="first 4 prompts are not those"):
        capture(llama, table(6)[1:], sites="embed", path=path, extend=True, progress=False)


def test_a_lens_is_added_once_and_follows_new_prompts(llama, tmp_path):
    path, common = tmp_path / "a.h5", {"progress": False, "extend": True}
    capture(llama, table(4), sites="resid_post", path=path, progress=False)
    wanted = {"sites": ["resid_post", "lens"], "lens_tokens": ["label"]}
    with_lens = capture(llama, table(4), path=path, **wanted, **common)
    assert with_lens.lens.columns == ("label",)
    longer = capture(llama, table(6), sites="resid_post", path=path, **common)
    whole = capture(llama, table(6), **wanted, progress=False)
    assert longer.lens.columns == ("label",)
    np.testing.assert_allclose(
        longer.lens.candidate_logits, whole.lens.candidate_logits, atol=1e-5, equal_nan=True
    )
    with pytest.raises(LayerprobeError, match="a lens cannot be extended"):
        capture(llama, table(6), sites=["lens"], path=path, **common)


def test_prompts_that_answers_have_lengthened_are_extended_as_they_were(tmp_path):
    model = load_model(tiny_model("llama"), check=False)
    table = PromptTable(
        ("0", "1"),
        ("who was late ?", "who was sad ?"),
        {"a": np.array(["the dog"] * 2), "b": np.array(["the cat"] * 2)},
    )
    asked = {"lens_tokens": ["a", "b"], "lens_first_difference": True, "progress": False}
    whole = capture(model, table, sites=["resid_post[0]", "mlp_out[0]", "lens"], **asked)
    path = tmp_path / "a.h5"
    capture(model, table, sites=["resid_post[0]", "lens"], path=path, **asked)
    grown = capture(
        model, table, sites=["resid_post[0]", "mlp_out[0]", "lens"], path=path, extend=True, **asked
    )
    for site in ("resid_post", "mlp_out"):
        assert np.array_equal(grown.activations(site, 0), whole.activations(site, 0))
    with pytest.raises(LayerprobeError, match="lens_first_difference lengthened them"):
        capture(model, table, sites=["attn_out[0]"], path=path, extend=True, progress=False)
