"""Columns out of JSON lines, CSV, TSV, Parquet or a `datasets` folder."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...hooks.errors import LayerprobeError
from .cells import shown

Columns = dict[str, list[Any]]
Wanted = Sequence[tuple[str, str]]
"""(option, column) pairs."""

#: options whose columns are keys: they keep their text, `007` and `7` are two
KEYS = ("group", "pair", "split", "id")
_SEPARATORS = (",", ";", "\t", "|")


def read_columns(
    path: Path, wanted: Wanted, limit: int | None, *, sep: str | None = None, encoding: str = "utf-8"
) -> Columns:
    """The wanted columns of a file, every cell as a Python value.

    Args:
        path: the file, or a folder that `datasets` saved.
        wanted: (option, column) pairs.
        limit: only the first so many rows.
        sep: what separates the columns of a CSV file; None looks at its first line.
        encoding: of text files; a byte-order mark is taken off.

    Raises:
        LayerprobeError: no such file, an unknown format, a column not there, a line that does not parse.
    """
    if not path.exists():
        raise LayerprobeError(f"no prompts at {path}: {_nearby(path)}")
    if path.is_dir():
        return _from_dataset(path, wanted, limit)
    if not path.is_file():
        raise LayerprobeError(
            f"{path} is a pipe or a device, not a file: save it to a file first, or read it into a DataFrame"
        )
    suffix = path.suffix.lower()
    try:
        if suffix in (".jsonl", ".ndjson", ".json"):
            return _from_json(path, wanted, limit, _codec(encoding))
        if suffix in (".csv", ".tsv"):
            return _from_csv(path, wanted, limit, sep, _codec(encoding))
        if suffix in (".parquet", ".pq"):
            return _from_parquet(path, wanted, limit)
    except UnicodeError as error:
        raise _wrong_encoding(path, encoding, error) from None
    except LookupError:
        raise LayerprobeError(f"encoding={encoding!r}: expected utf-8, latin-1, utf-16 ...") from None
    except OSError as error:
        raise LayerprobeError(f"cannot read {path}: {error.strerror or error}") from None
    raise LayerprobeError(
        f"cannot read {path}: expected .jsonl, .csv, .tsv, .parquet or a folder made by `datasets`"
    )


class MissingColumn(LayerprobeError):
    """A column that is not there."""

    nearest: str | None = None
    """The column that it may be a misspelling of."""


def missing_column(source: str, option: str, column: str, present: Sequence[str]) -> MissingColumn:
    """What to say of a column that is not there: those there are, the nearest first."""
    near = difflib.get_close_matches(column, present, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    error = MissingColumn(
        f"{source} has no column {column!r} ({option}=): {hint}it has {', '.join(map(str, present))}"
    )
    error.nearest = near[0] if near else None
    return error


def require(source: str, wanted: Wanted, present: Sequence[str]) -> None:
    """Refuse a source that lacks a column.

    Raises:
        LayerprobeError: naming the first.
    """
    for option, column in wanted:
        if column not in present:
            raise missing_column(source, option, column, present)


def _codec(encoding: str) -> str:
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


def _wrong_encoding(path: Path, encoding: str, error: UnicodeError) -> LayerprobeError:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return LayerprobeError(f"{path} is UTF-16, not {encoding}: read_prompts(..., encoding='utf-16')")
    byte = ""
    if isinstance(error, UnicodeDecodeError):
        byte = f" (byte 0x{error.object[error.start]:02x})"
    return LayerprobeError(
        f"{path} is not {encoding.upper()}{byte}; it may be Latin-1 or Windows-1252, as older spreadsheets "
        f"write: read_prompts(..., encoding='latin-1' or 'cp1252'), or save it as UTF-8"
    )


def _from_json(path: Path, wanted: Wanted, limit: int | None, encoding: str) -> Columns:
    columns: Columns = {column: [] for _, column in wanted}
    for count, (where, row) in enumerate(_json_rows(path, encoding)):
        if limit is not None and count >= limit:
            break
        if not isinstance(row, dict):
            raise LayerprobeError(f"{where}: expected an object with named fields, got {shown(row)}")
        if count == 0:
            require(str(path), wanted, list(row))
        for column, cells in columns.items():
            # absent from single rows: a label that only some have; prompts themselves are checked later
            cells.append(row.get(column))
    return columns


def _json_rows(path: Path, encoding: str) -> Iterator[tuple[str, Any]]:
    with path.open(encoding=encoding) as lines:
        if path.suffix.lower() == ".json":
            rows = _parsed(lines.read(), str(path), "not JSON", "; for one object per line name it .jsonl")
            if not isinstance(rows, list):
                raise LayerprobeError(f"{path}: expected a list of objects, got {type(rows).__name__}")
            yield from ((f"{path}: entry {number}", row) for number, row in enumerate(rows))
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{path}:{number}", _parsed(line, f"{path}:{number}", "not a line of JSON")


def _parsed(text: str, where: str, what: str, advice: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise LayerprobeError(f"{where}: {what} ({error.msg}){advice}") from None
    except RecursionError:
        raise LayerprobeError(f"{where}: {what} that can be read (it nests too deeply)") from None
    except ValueError:
        raise LayerprobeError(f"{where}: {what} that can be read (a number of thousands of digits)") from None


def _from_csv(path: Path, wanted: Wanted, limit: int | None, sep: str | None, encoding: str) -> Columns:
    import pandas as pd

    if sep is not None and (not isinstance(sep, str) or len(sep) != 1):
        raise LayerprobeError(f"sep={sep!r}: expected one character, such as ';'")
    columns = [column for _, column in wanted]
    keys = {column for option, column in wanted if option in KEYS}
    try:
        # "NA", "None" and "null" are labels here (Namibia, nobody): only an empty cell is missing
        frame = pd.read_csv(
            path,
            sep=sep or _separator(path, columns, encoding),
            keep_default_na=False,
            na_values=[""],
            nrows=limit,
            encoding=encoding,
            dtype=dict.fromkeys(keys, str),
        )
    except UnicodeError:
        raise
    except (ValueError, OverflowError, RecursionError, csv.Error) as error:
        raise LayerprobeError(f"{path}: not a table ({str(error).strip()})") from None
    if not isinstance(frame.index, pd.RangeIndex):
        raise LayerprobeError(
            f"{path}: its rows have more fields than its first line has names: quote texts that hold the "
            f"separator, or name another, sep=';'"
        )
    require(str(path), wanted, [str(column) for column in frame.columns])
    return {
        column: _numbers(frame[column].tolist()) if column in keys else frame[column].tolist()
        for column in columns
    }


def _separator(path: Path, columns: Sequence[str], encoding: str) -> str:
    """The separator under which the first line names every column; the suffix's own where none does."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding=encoding, newline="") as lines:
        first = lines.readline()
    for sep in sorted(_SEPARATORS, key=lambda one: one != usual):
        names = next(csv.reader([first], delimiter=sep), [])
        if set(columns) <= set(names):
            return sep
    return usual


def _numbers(texts: list[Any]) -> list[Any]:
    """Keys that are whole numbers as everybody writes them, as numbers; anything else keeps its text."""
    plain = all(isinstance(text, str) and re.fullmatch(r"0|-?[1-9]\d{0,17}", text) for text in texts)
    return [int(text) for text in texts] if plain else texts


def _from_parquet(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    import pyarrow.parquet as pq

    try:
        present = pq.ParquetFile(path).schema_arrow.names
        require(str(path), wanted, present)
        table = pq.read_table(path, columns=sorted({column for _, column in wanted}))
        return (table if limit is None else table.slice(0, limit)).to_pydict()  # type: ignore[no-any-return]
    except LayerprobeError:
        raise
    except Exception as error:  # pyarrow raises several kinds for a file that is no Parquet
        raise LayerprobeError(f"{path}: not a Parquet file ({error})") from None


def _from_dataset(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # of several kinds, by what is missing or damaged
        raise LayerprobeError(f"{path} is a folder, but none that `datasets` saved ({error})") from None
    if isinstance(loaded, datasets.DatasetDict):
        raise LayerprobeError(f"{path} holds several splits: name one, such as {path / next(iter(loaded))}")
    require(str(path), wanted, loaded.column_names)
    part = loaded if limit is None else loaded.select(range(min(limit, len(loaded))))
    return {column: list(part[column]) for _, column in wanted}


def _nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else None
    if folder is None:
        return f"its folder {path.parent} does not exist either"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    return f"did you mean {folder / near[0]}?" if near else "check the path"
