"""Prompt tables from every format, and a one-line answer to every table that is wrong."""

import json
import os
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as given_data
from hypothesis import strategies as st

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


ROWS = FRAME.to_dict("records")


def given(kind):
    if kind == "dataset":
        import datasets

        return datasets.Dataset.from_pandas(FRAME)
    return {"frame": FRAME, "list": ROWS}[kind]


@pytest.mark.parametrize("kind", ["frame", "list", "dataset"])
def test_a_table_in_memory_is_read_like_a_file(tmp_path, kind):
    table = read_prompts(given(kind), **OPTIONS)
    assert table.sha256 == read_prompts(write(tmp_path, "jsonl"), **OPTIONS).sha256
    assert len(read_prompts(given(kind), limit=2)) == 2
    assert read_prompts(given(kind), labels="place").labels["place"].tolist() == ["NA", "None", "x"]
    with pytest.raises(LayerprobeError, match=r"no column 'txet'.*did you mean 'text'"):
        read_prompts(given(kind), text="txet")


@pytest.mark.parametrize("wrong", [["a", "b"], 3, {"text": ["a"]}, [], None])
def test_what_is_no_table_is_named(wrong):
    with pytest.raises(LayerprobeError, match="expected a path, a DataFrame"):
        read_prompts(wrong)


def test_token_ids_are_prompts(tmp_path):
    rows = [{"ids": [5, 17, 2]}, {"ids": [5]}]
    path = tmp_path / "p.parquet"
    pd.DataFrame(rows).to_parquet(path)
    for source in (rows, path):
        assert read_prompts(source, token_ids="ids").prompts == ([5, 17, 2], [5])
    (tmp_path / "p.csv").write_text('ids\n"[5, 17]"\n')
    assert read_prompts(tmp_path / "p.csv", token_ids="ids").prompts == ([5, 17],)
    for wrong in ([], [-1], [1.5], [True], "five", None, [1 << 31]):
        with pytest.raises(LayerprobeError, match="expected token ids"):
            read_prompts([{"ids": wrong}], token_ids="ids")
    with pytest.raises(LayerprobeError, match="spans count in texts"):
        read_prompts([{"ids": [5, 6], "s": [0, 1]}], token_ids="ids", spans="s")


BIG = [2**53, 2**53 + 1, None]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "list", "frame"])
def test_keys_keep_their_text(tmp_path, kind):
    texts, path = ["a", "b", "c"], tmp_path / f"p.{kind}"
    if kind in ("jsonl", "list"):
        rows = [{"text": t, "g": g, "i": i} for t, g, i in zip(texts, BIG, ["007", "7", "07"], strict=True)]
        path.write_text("\n".join(map(json.dumps, rows)))
        source = rows if kind == "list" else path
    else:
        frame = pd.DataFrame({"text": texts, "g": pd.array(BIG, dtype="Int64"), "i": ["007", "7", "07"]})
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        source = frame if kind == "frame" else path
    table = read_prompts(source, group="g", id="i")
    assert table.groups.tolist() == [str(2**53), str(2**53 + 1), None]
    assert table.ids == ("007", "7", "07")
    assert read_prompts(source, group="i").groups.tolist() == ["007", "7", "07"]


def test_keys_that_a_float_column_has_rounded_are_refused():
    frame = pd.DataFrame({"text": ["a", "b", "c"], "g": [float(2**53), float(2**53 + 1), None]})
    with pytest.raises(LayerprobeError, match=r"row 0, column 'g': .*cannot hold.*Int64"):
        read_prompts(frame, group="g")
    with pytest.raises(LayerprobeError, match="row 2 has no id"):
        read_prompts([{"text": "a", "i": 1}, {"text": "b", "i": 2}, {"text": "c"}], id="i")


def test_plain_numbers_stay_numbers(tmp_path):
    (tmp_path / "p.csv").write_text("text,g\na,3\nb,10\n")
    groups = read_prompts(tmp_path / "p.csv", group="g").groups
    assert groups.dtype == np.int64
    assert groups.tolist() == [3, 10]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_separators_are_seen_in_the_first_line(tmp_path, sep):
    path = tmp_path / "p.csv"
    path.write_text(f'text{sep}label\n"One, two; three"{sep}x\n')
    table = read_prompts(path, labels="label")
    assert table.prompts == ("One, two; three",)
    assert table.labels["label"].tolist() == ["x"]
    assert read_prompts(path, labels="label", sep=sep).sha256 == table.sha256


def test_a_separator_within_a_text_is_not_an_index_column(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("text,label\nOne, two,x\n")
    with pytest.raises(LayerprobeError, match="more fields than its first line"):
        read_prompts(path, labels="label")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_encodings(tmp_path, suffix):
    text = {"csv": "text\ncafé\n", "jsonl": '{"text": "café"}\n', "json": '[{"text": "café"}]'}[suffix]
    path = tmp_path / f"p.{suffix}"
    path.write_bytes(text.encode("utf-8-sig"))
    assert read_prompts(path).prompts == ("café",)
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(LayerprobeError, match=r"not UTF-8 \(byte 0xe9\).*encoding='latin-1'"):
        read_prompts(path)
    assert read_prompts(path, encoding="latin-1").prompts == ("café",)
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(LayerprobeError, match="encoding='utf-16'"):
        read_prompts(path)
    assert read_prompts(path, encoding="utf-16").prompts == ("café",)
    with pytest.raises(LayerprobeError, match="encoding='utf-5'"):
        read_prompts(path, encoding="utf-5")


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "name, text, options, words",
    [
        ("p.jsonl", f'{{"text": {DEEP}', {}, ":1: .*nests too deeply"),
        ("p.json", DEEP, {}, "nests too deeply"),
        ("p.jsonl", f'{{"text": {"9" * 6000}}}', {}, "thousands of digits"),
        ("p.csv", f"text,m\na,{'9' * 6000}\n", {"messages": "m"}, "expected"),
        ("p.jsonl", json.dumps({"m": DEEP}), {"messages": "m"}, "expected chat messages"),
        ("p.jsonl", json.dumps({"i": "9" * 6000}), {"token_ids": "i"}, "expected token ids"),
        ("p.jsonl", '{"m": [{"role": "user", "content": null}]}', {"messages": "m"}, "expected"),
        ("p.jsonl", '{"m": [{"role": "user", "content": [{"type": "image"}]}]}', {"messages": "m"}, "image"),
        ("p.parquet", "PAR1", {}, "not a Parquet file"),
    ],
)
def test_files_made_to_break_a_reader(tmp_path, name, text, options, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(LayerprobeError, match=words):
        read_prompts(tmp_path / name, **options)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(LayerprobeError, match="is a pipe"):
        read_prompts(tmp_path / "p.jsonl")


def test_values_of_python_that_no_file_holds():
    nested = message = {"role": "user", "content": "a"}
    for _ in range(500):
        nested = {"tools": nested}
    for more, words in (
        ({"x": nested}, "nests more than"),
        ({"x": 10**6000}, "bits"),
        ({"x": object()}, "is no"),
    ):
        with pytest.raises(LayerprobeError, match=words):
            read_prompts([{"m": [{**message, **more}]}], messages="m")


def test_messages_keep_every_key(tmp_path):
    call = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "f", "arguments": {"n": 2}}}],
    }
    tool = {"role": "tool", "content": "4", "name": "f", "tool_call_id": "1"}
    said = {"role": "assistant", "content": "Four.", "reasoning_content": "2 + 2"}
    chat = [{"role": "user", "content": "2 + 2?"}, call, tool, said]
    pd.DataFrame({"m": [chat]}).to_parquet(tmp_path / "m.parquet")
    for source in ([{"m": chat}], [{"m": json.dumps(chat)}], tmp_path / "m.parquet"):
        kept = read_prompts(source, messages="m").prompts[0]
        assert kept[2:] == [tool, said]
        assert kept[1]["tool_calls"][0]["function"]["name"] == "f"


def test_a_table_in_a_notebook():
    table = read_prompts([{"text": "<script>alert(1)</script>", "y": 1}], labels="y")
    shown = table._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert [row["y"] for row in table] == [1]
    assert table[-1]["prompt"] == "<script>alert(1)</script>"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given_data(
    st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]),
    st.one_of(
        st.binary(max_size=200),
        st.text(alphabet="{}[]\":,;\\\n\t|'0159eE-.null true\x00\ufeffé", max_size=80).map(
            lambda text: ("text,m,i\n" + text).encode()
        ),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["text", "m", "i", "role", "content"]), inner, max_size=4),
            ),
        ).map(lambda value: json.dumps(value).encode()),
    ),
    st.sampled_from([{}, {"messages": "m"}, {"token_ids": "i"}, {"id": "i", "group": "m", "spans": "i"}]),
)
def test_any_file_is_a_table_or_refused(tmp_path_factory, suffix, data, options):
    path = tmp_path_factory.getbasetemp() / f"fuzz.{suffix}"
    path.write_bytes(data)
    with suppress(LayerprobeError):
        table = read_prompts(path, **options)
        assert len(table.sha256) == 64
        assert table._repr_html_()
