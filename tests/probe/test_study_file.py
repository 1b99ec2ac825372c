"""study.toml: what it says is what is read, and what is wrong with it is said with the way out."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerprobe.analyses.result.catalogue import listed
from layerprobe.hooks.errors import LayerprobeError
from layerprobe.probe.study.option_models import table_of
from layerprobe.probe.study.toml import check_study, read_study, study_toml

SMALLEST = {
    "models": {"a": {"source": "gpt2"}},
    "prompts": {"file": "p.csv"},
    "analysis": [{"kind": "separation", "label": "y"}],
}


def changed(**parts):
    return {**SMALLEST, **parts}


@pytest.mark.parametrize(
    "data, says",
    [
        (changed(titel="x"), "did you mean 'title'?"),
        (changed(models={"a": {"surce": "x"}}), "[models.a] has no option 'surce'; did you mean 'source'?"),
        (changed(models={}), "needs at least one of 'models'"),
        (changed(models={"a/b": {"source": "x"}}), "becomes a file name"),
        (changed(prompts={}), "[prompts] needs 'file'"),
        (changed(prompts={"file": "f", "text": "t", "messages": "m"}), "give one of them"),
        (changed(prompts={"file": "f", "limit": 0}), "[prompts], limit"),
        (changed(capture={"sites": []}), "needs at least one of 'sites'"),
        (changed(capture={"token": "last"}), "did you mean 'tokens'?"),
        (changed(analysis=[]), "needs at least one of 'analysis'"),
        (changed(analysis=[{"kind": "separaton", "label": "y"}]), "did you mean 'separation'?"),
        (changed(analysis=[{"kind": "separation", "lable": "y"}]), "did you mean 'label'?"),
        (changed(analysis=[{"kind": "linear_probe"}]), "[[analysis]] number 1 needs 'label'"),
        (changed(analysis=[{"label": "y"}]), "[[analysis]] number 1: needs 'kind'"),
        (changed(analysis=[{"kind": "patching", "source": "b"}]), "the study has a"),
        (changed(analysis=[{"kind": "compare", "models": ["b"]}]), "the study has a"),
        (changed(analysis=[{"kind": "compare", "reference": "b"}]), "the study has a"),
    ],
)
def test_a_mistake_is_named_with_its_place(data, says):
    with pytest.raises(LayerprobeError) as raised:
        check_study(data, "study.toml")
    assert says in str(raised.value)
    assert str(raised.value).startswith("study.toml: ")
    assert "\n" not in str(raised.value)


names = st.text(min_size=1, max_size=12).filter(
    lambda s: not s.startswith(".") and not set(s) & set("/\\\0") and s.isprintable()
)
# surrogates cannot be written to a file at all
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    title=text,
    model=names,
    column=text,
    where=st.dictionaries(names, st.one_of(text, st.booleans()), max_size=2),
)
def test_a_study_written_and_read_is_the_same(title, model, column, where):
    study = check_study(
        {
            "title": title,
            "models": {
                model: {
                    "source": column,
                    "chat_template": True,
                    "chat_options": {"enable_thinking": False, title: [1, "a"]},
                }
            },
            "prompts": {"file": column, "labels": [column, "b"]},
            "capture": {"sites": ["resid_post[1:3]"], "batch_tokens": 64},
            "analysis": [
                {
                    "kind": kind,
                    "where": where,
                    **{f: "x" for f, field in table_of(kind).model_fields.items() if field.is_required()},
                }
                for kind in listed()
            ],
        },
        "a study",
    )
    assert check_study(tomllib.loads(study_toml(study)), "read again") == study


def test_relative_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "model").mkdir()
    file = tmp_path / "study.toml"
    file.write_text(
        '[models.here]\nsource = "model"\n[models.hub]\nsource = "org/name"\n'
        '[models.shipped]\nsource = "demo:base"\n'
        '[models.up]\nsource = "../other"\n[prompts]\nfile = "p.jsonl"\n[[analysis]]\nkind = "compare"\n',
        encoding="utf-8",
    )
    study = read_study(file)
    assert study.models["here"].source == str(tmp_path / "model")
    assert study.models["hub"].source == "org/name"
    assert study.models["shipped"].source == "demo:base"
    assert study.models["up"].source == str(tmp_path.parent / "other")
    assert study.prompts.file == str(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    "content, says",
    [
        ("a = ", "not valid TOML"),
        ("a = " + "[" * 50_000, "not valid TOML"),
        ("a = " + "9" * 6000, "not valid TOML"),
        (None, "no study file"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, content, says):
    path = tmp_path / "s.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(LayerprobeError, match=says):
        read_study(path)


@pytest.mark.parametrize(
    "former, kind",
    [
        ("generalisation", "generalisation_matrix"),
        ("preferences", "preference_dimensions"),
        ("readout", "mean_difference_readout"),
        ("alignment_quality", "aqi"),
        ("separate", "separation"),
    ],
)
def test_an_analysis_goes_by_its_former_names_too(former, kind):
    needed = [f for f, field in table_of(kind).model_fields.items() if field.is_required() and f != "kind"]
    asked = {"kind": former, **dict.fromkeys(needed, "x")}
    (item,) = check_study(changed(analysis=[asked]), "s").analysis
    assert item.kind == kind


def test_a_study_is_frozen():
    study = check_study(SMALLEST, "s")
    with pytest.raises(ValueError, match="frozen"):
        study.title = "other"
