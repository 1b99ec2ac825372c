"""Rows of tables: picked by what they say, and as plain records."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from .findings import ALPHA
from .words import missing


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every row as a dictionary.

    >>> records(pd.DataFrame({"layer": [0, 1], "estimate": [0.5, 0.9]}))[1]
    {'layer': 1, 'estimate': 0.9}
    """
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def extreme(frame: pd.DataFrame, column: str, *, least: bool = False) -> dict[str, Any]:
    """The row with the largest value of a column, or the smallest; NaN never wins where there is a number.

    >>> extreme(pd.DataFrame({"layer": [0, 1, 2], "estimate": [0.5, 0.9, float("nan")]}), "estimate")["layer"]
    1
    """
    values = frame[column].astype(float)
    known = frame[values.notna()] if values.notna().any() else frame
    numbers = known[column].astype(float).to_numpy()
    return records(known.iloc[[int(numbers.argmin() if least else numbers.argmax())]])[0]


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column; missing values where a table has none, since tables leave out what has no value."""
    return table[name] if name in table else pd.Series(pd.NA, index=table.index, dtype="Int64")


def rows_like(rows: pd.DataFrame, one: Mapping[Any, Any], *names: str) -> pd.DataFrame:
    """The rows that agree with another one in some columns; missing values agree with each other.

    Args:
        rows: of any table.
        one: a row of this table or another one.
        names: of columns; one that `rows` has not is passed over.

    >>> rows = pd.DataFrame({"site": ["embed", "q", "q"], "layer": [pd.NA, 0, 1]})
    >>> rows_like(rows, {"site": "q", "layer": 1}, "site", "layer", "head").index.tolist()
    [2]
    >>> rows_like(rows, {"site": "embed"}, "site", "layer").index.tolist()
    [0]
    """
    for name in names:
        if name in rows:
            value = one.get(name)
            same = rows[name].isna() if missing(value) else (rows[name] == value).fillna(False).astype(bool)
            rows = rows[same]
    return rows


def first_metric(table: pd.DataFrame) -> pd.DataFrame:
    """Of each label the rows of the metric that comes first, which is the one tested."""
    if "target" not in table:
        return table[table["metric"] == table["metric"].iloc[0]]
    targets = table.groupby("target", sort=False)["metric"]
    return table[table["metric"] == targets.transform("first")]


def clear(rows: pd.DataFrame, name: str = "p_familywise") -> pd.Series:
    """[rows] whether the corrected p is at most ALPHA; false where nothing was tested."""
    return (column(rows, name) <= ALPHA).fillna(False).astype(bool)
