"""What makes two captures different is refused under the same path, by name, with a sibling to go to."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import tiny_model

from layerprobe import LayerprobeError, capture, load_model
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.cache.store.sameness import differences

WORDS = ["yes", "no", "yes", "no"]
TABLE = PromptTable(
    tuple("abcd"),
    ("the dog", "the cat was late", "the baker", "at the park"),
    {"answer": np.array(WORDS, dtype=object)},
)
REQUEST = {"sites": ["resid_post", "lens"], "lens_tokens": ["answer"], "progress": False}


@pytest.fixture(scope="module")
def llama():
    return load_model(tiny_model("llama"), check=False)


@pytest.fixture(scope="module")
def path(llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("identity") / "a.h5"
    capture(llama, TABLE, path=path, **REQUEST)
    return path


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_sha256", "0" * 64),
        ("config_sha256", "0" * 64),
        ("tokenizer_sha256", "0" * 64),
        ("chat_template_sha256", "0" * 64),
        ("dtype", "bfloat16"),
    ],
)
def test_another_model_is_refused(llama, path, monkeypatch, field, value):
    other = replace(llama.identity, **{field: value})
    monkeypatch.setattr(type(llama), "identity", property(lambda model: other))
    with pytest.raises(LayerprobeError, match=rf"model\.{field} .*a-2\.h5"):
        capture(llama, TABLE, path=path, **REQUEST)


@pytest.mark.parametrize("field", ["source", "engine", "versions", "revision"])
def test_where_a_model_came_from_is_no_reason_to_refuse(llama, path, monkeypatch, field):
    value = {"torch": "9.9"} if field == "versions" else "elsewhere"
    other = replace(llama.identity, **{field: value})
    monkeypatch.setattr(type(llama), "identity", property(lambda model: other))
    assert capture(llama, TABLE, path=path, **REQUEST).complete


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("sites", {"sites": ["resid_pre", "lens"]}),
        ("sites", {"sites": ["resid_post[1]", "lens"]}),
        ("lens.layers", {"sites": ["resid_post", "lens[1]"]}),
        ("lens.tokens", {"lens_tokens": []}),
        ("lens.first_difference", {"lens_first_difference": True}),
        ("lens.top_k", {"top_k": 3}),
        ("tokens", {"tokens": "mean"}),
        ("dtype", {"dtype": "float16"}),
        ("on_long", {"on_long": "truncate"}),
    ],
)
def test_another_request_is_refused(llama, path, field, change):
    with pytest.raises(
        LayerprobeError, match=rf"{field} \((only in the file|only asked for|.* in the file, .* asked for)"
    ):
        capture(llama, TABLE, path=path, **{**REQUEST, **change})


@pytest.mark.parametrize(
    "other",
    [
        TABLE[:3],
        replace(TABLE, prompts=("the dog!", *TABLE.prompts[1:])),
        replace(TABLE, ids=tuple("abce")),
        replace(TABLE, labels={"answer": np.array(WORDS[::-1], dtype=object)}),
        replace(TABLE, groups=np.arange(4)),
    ],
    ids=["fewer", "text", "id", "label", "groups"],
)
def test_other_prompts_are_refused(llama, path, other):
    with pytest.raises(LayerprobeError, match="prompts"):
        capture(llama, other, path=path, **REQUEST)


def test_the_same_request_returns_at_once(llama, path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(type(llama), "forward", lambda *a, **k: pytest.fail("the model ran"))
    monkeypatch.setattr(type(llama), "encode", lambda *a, **k: pytest.fail("a prompt was tokenised"))
    assert capture(llama, TABLE, path=path, batch_tokens=7, **REQUEST).complete
    assert path.read_bytes() == before


def test_the_difference_of_lists_is_shown_not_cut(llama, path):
    with pytest.raises(LayerprobeError) as refused:
        capture(llama, TABLE, path=path, **{**REQUEST, "sites": ["resid_post[1:]", "mlp_out[2]", "lens"]})
    assert "sites (only in the file: resid_post[0]; only asked for: mlp_out[2])" in str(refused.value)
    several = {"lens.layers": list(range(20))}
    assert differences(several, {"lens.layers": [3]}) == [
        "lens.layers (only asked for: 0, 1, 2, 4, 5, 6 and 13 more)"
    ]
