"""Rows of tables as plain records."""

from typing import Any

import pandas as pd


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
    values = known[column].astype(float).to_numpy()
    return records(known.iloc[[int(values.argmin() if least else values.argmax())]])[0]
