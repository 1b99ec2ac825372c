"""Columns out of JSON lines, CSV, TSV, Parquet or a `datasets` folder."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...hooks.errors import LayerprobeError

Columns = dict[str, list[Any]]
Wanted = Sequence[tuple[str, str]]
"""(option, column) pairs."""


def read_columns(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    """The wanted columns of a file, every cell as a Python value.

    Raises:
        LayerprobeError: no such file, an unknown format, a column not there, a line that does not parse.
    """
    if not path.exists():
        raise LayerprobeError(f"no prompts at {path}: {_nearby(path)}")
    if path.is_dir():
        return _from_dataset(path, wanted, limit)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _from_json(path, wanted, limit)
    if suffix in (".csv", ".tsv"):
        return _from_csv(path, wanted, limit)
    if suffix in (".parquet", ".pq"):
        return _from_parquet(path, wanted, limit)
    raise LayerprobeError(
        f"cannot read {path}: expected .jsonl, .csv, .tsv, .parquet or a folder made by `datasets`"
    )


def missing_column(source: str, option: str, column: str, present: Sequence[str]) -> LayerprobeError:
    """What to say of a column that is not there: those there are, the nearest first."""
    near = difflib.get_close_matches(column, present, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return LayerprobeError(
        f"{source} has no column {column!r} ({option}=): {hint}it has {', '.join(present)}"
    )


def _require(source: Path, wanted: Wanted, present: Sequence[str]) -> None:
    for option, column in wanted:
        if column not in present:
            raise missing_column(str(source), option, column, present)


def _from_json(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    columns: Columns = {column: [] for _, column in wanted}
    for count, (where, row) in enumerate(_json_rows(path)):
        if limit is not None and count >= limit:
            break
        if not isinstance(row, dict):
            raise LayerprobeError(f"{where}: expected an object with named fields, got {str(row)[:60]}")
        if count == 0:
            _require(path, wanted, list(row))
        for column, cells in columns.items():
            # absent from single rows: a label that only some have; prompts themselves are checked later
            cells.append(row.get(column))
    return columns


def _json_rows(path: Path) -> Any:
    with path.open(encoding="utf-8-sig") as lines:
        if path.suffix.lower() == ".json":
            try:
                rows = json.load(lines)
            except json.JSONDecodeError as error:
                raise LayerprobeError(
                    f"{path}: not JSON ({error}); for one object per line name it .jsonl"
                ) from None
            if not isinstance(rows, list):
                raise LayerprobeError(f"{path}: expected a list of objects, got {type(rows).__name__}")
            yield from ((f"{path}: entry {number}", row) for number, row in enumerate(rows))
            return
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise LayerprobeError(f"{path}:{number}: not a line of JSON ({error.msg})") from None


def _from_csv(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    import pandas as pd

    try:
        # "NA", "None" and "null" are labels here (Namibia, nobody): only an empty cell is missing
        frame = pd.read_csv(
            path,
            sep="\t" if path.suffix.lower() == ".tsv" else ",",
            keep_default_na=False,
            na_values=[""],
            nrows=limit,
            encoding="utf-8-sig",
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise LayerprobeError(f"{path}: not a table ({str(error).strip()})") from None
    _require(path, wanted, [str(column) for column in frame.columns])
    return {column: frame[column].tolist() for _, column in wanted}


def _from_parquet(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    import pyarrow.parquet as pq

    try:
        present = pq.ParquetFile(path).schema_arrow.names
    except Exception as error:  # pyarrow raises several kinds for a file that is no Parquet
        raise LayerprobeError(f"{path}: not a Parquet file ({error})") from None
    _require(path, wanted, present)
    table = pq.read_table(path, columns=sorted({column for _, column in wanted}))
    return (table if limit is None else table.slice(0, limit)).to_pydict()


def _from_dataset(path: Path, wanted: Wanted, limit: int | None) -> Columns:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError) as error:
        raise LayerprobeError(f"{path} is a folder, but none that `datasets` saved ({error})") from None
    if isinstance(loaded, datasets.DatasetDict):
        raise LayerprobeError(f"{path} holds several splits: name one, such as {path / next(iter(loaded))}")
    _require(path, wanted, loaded.column_names)
    part = loaded if limit is None else loaded.select(range(min(limit, len(loaded))))
    return {column: list(part[column]) for _, column in wanted}


def _nearby(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else None
    if folder is None:
        return f"its folder {path.parent} does not exist either"
    near = difflib.get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1)
    return f"did you mean {folder / near[0]}?" if near else "check the path"
