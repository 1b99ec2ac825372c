"""Prompt tables from every format, and a one-line answer to every table that is wrong."""

import json

import numpy as np
import pandas as pd
import pytest

from layerprobe import LayerprobeError, read_prompts
from layerprobe.cache.prompts.table import PromptTable

FRAME = pd.DataFrame(
    {
        "text": ["The sky is blue.", "Grass is red.", "Snow is white."],
        "label": [True, False, True],
        "place": ["NA", "None", "x"],
        "group": ["a", "b", "b"],
        "subject": ["sky", "Grass", "Snow"],
    }
)
OPTIONS = {"labels": ["label", "place"], "group": "group", "spans": ["subject"]}


def write(folder, kind):
    path = folder / f"p.{kind}"
    if kind == "jsonl":
        FRAME.to_json(path, orient="records", lines=True)
    elif kind == "parquet":
        FRAME.to_parquet(path)
    elif kind == "dataset":
        import datasets

        datasets.Dataset.from_pandas(FRAME).save_to_disk(path)
    else:
        FRAME.to_csv(path, sep="\t" if kind == "tsv" else ",", index=False)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "dataset"])
def test_every_format_reads_the_same_table(tmp_path, kind):
    table = read_prompts(write(tmp_path, kind), **OPTIONS)
    assert table.sha256 == PromptTable.from_frame(FRAME, **OPTIONS).sha256
    assert table.prompts[1] == "Grass is red."
    assert table.labels["label"].dtype == bool
    assert list(table.labels["place"]) == ["NA", "None", "x"]
    assert table.spans["subject"] == [(4, 7), (0, 5), (0, 4)]
    assert len(read_prompts(tmp_path / f"p.{kind}", limit=2, **OPTIONS)) == 2


def test_a_slice_keeps_rows_together():
    table = PromptTable.from_frame(FRAME, **OPTIONS)
    part = table[np.array([False, True, True])]
    assert part.ids == ("1", "2")
    assert list(part.groups) == ["b", "b"]
    assert part.spans["subject"] == [(0, 5), (0, 4)]
    assert part.sha256 == table[1:].sha256 != table.sha256


def test_messages_from_lists_and_from_json_text(tmp_path):
    chat = [{"role": "user", "content": "Hello"}]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(json.dumps({"m": m}) for m in (chat, json.dumps(chat))))
    table = read_prompts(path, messages="m")
    assert table.chat
    assert table.prompts == (chat, chat)


@pytest.mark.parametrize(
    "lines, options, words",
    [
        ('{"text": "a"}\n{"text": ', {}, r":2: not a line of JSON"),
        ('{"prompt": "a"}', {}, r"no column 'text' \(text=\).*it has prompt"),
        ('{"text": "a", "labels": 1}', {"labels": ["label"]}, "did you mean 'labels'"),
        ('{"text": "a"}\n{"text": 3}', {}, "row 1, column 'text': expected a text, got 3"),
        ('{"text": "a", "i": 1}\n{"text": "b", "i": 1}', {"id": "i"}, "rows 0 and 1"),
        ('{"text": "a a", "s": "a"}', {"spans": ["s"]}, "occurs 2 times"),
        ('{"text": "abc", "s": [1, 9]}', {"spans": ["s"]}, "text of 3 characters"),
        ('{"m": "hello"}', {"messages": "m"}, "use text= for plain text"),
        ('{"m": [{"role": "user"}]}', {"messages": "m"}, "expected .*role"),
        ("", {}, "no prompts"),
    ],
)
def test_wrong_tables_are_named(tmp_path, lines, options, words):
    path = tmp_path / "p.jsonl"
    path.write_text(lines)
    with pytest.raises(LayerprobeError, match=words):
        read_prompts(path, **options)


def test_a_wrong_path_names_the_nearest(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("{}")
    with pytest.raises(LayerprobeError, match=r"did you mean .*prompts\.jsonl"):
        read_prompts(tmp_path / "prompt.jsonl")
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(LayerprobeError, match=r"expected \.jsonl"):
        read_prompts(tmp_path / "x.txt")


def test_a_table_shows_itself_in_one_line():
    table = PromptTable(
        tuple(map(str, range(5000))),
        ("a long text " * 50,) * 5000,
        {"label": np.zeros(5000)},
        groups=np.arange(5000) // 2,
        name="pairs",
    )
    assert repr(table) == "PromptTable(pairs: 5,000 texts; labels: label; groups: 2,500; from a list)"
