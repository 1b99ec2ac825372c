"""Columns out of what is in memory already: a DataFrame, a `datasets.Dataset`, a list of dicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...hooks.errors import LayerprobeError
from .tabular import Columns, Wanted, require


def given_columns(source: Any, wanted: Wanted, limit: int | None) -> tuple[Columns, str]:
    """The wanted columns of a table in memory, every cell as a Python value, and a name for it.

    Raises:
        LayerprobeError: it is no table, or lacks a column.
    """
    if isinstance(source, list | tuple) and source and all(isinstance(row, Mapping) for row in source):
        return _of_rows(source, wanted, limit), "list"
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        require("the DataFrame", wanted, [str(name) for name in source.columns])
        part = source if limit is None else source.iloc[:limit]
        named = {str(name): index for index, name in enumerate(part.columns)}
        return {column: part.iloc[:, named[column]].tolist() for _, column in wanted}, "DataFrame"
    if isinstance(source, Mapping) and hasattr(source, "num_rows"):
        raise LayerprobeError(f"the dataset has several splits: give one of them, {list(source)}")
    if getattr(source, "column_names", None) and hasattr(source, "__getitem__"):
        require("the dataset", wanted, list(source.column_names))
        return {column: _cells(source[column])[:limit] for _, column in wanted}, type(source).__name__
    if hasattr(source, "take") and isinstance(source, Iterable):
        raise LayerprobeError("the dataset is a stream: give some of it, list(dataset.take(1000))")
    listed = " of texts or chats, which capture and model.run take as it is" if _is_list(source) else ""
    raise LayerprobeError(
        f"expected a path, a DataFrame, a datasets.Dataset or a list of dicts, got {type(source).__name__}"
        f"{listed}"
    )


def _of_rows(rows: Sequence[Mapping[str, Any]], wanted: Wanted, limit: int | None) -> Columns:
    require("the list", wanted, list(dict.fromkeys(name for row in rows for name in row)))
    return {column: [row.get(column) for row in rows[:limit]] for _, column in wanted}


def _cells(values: Any) -> list[Any]:
    return values.to_pylist() if hasattr(values, "to_pylist") else list(values)


def _is_list(source: Any) -> bool:
    return isinstance(source, list | tuple) and bool(source) and isinstance(source[0], str | list)
