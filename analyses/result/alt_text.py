"""What a picture shows, in words, for those who hear it: the shape of every curve with its numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .words import number

MOST = 8
"""Curves told one by one; a listener loses the thread beyond."""


def describe(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = ("model",),
    x: str = "layer",
    value: str = "estimate",
    x_name: str | None = None,
) -> str:
    """The shape of each curve of a table in words.

    Args:
        frame: tidy; columns `value`, `x` and those of `by` that it has.
        by: columns whose values name a curve.
        x: column along which a curve runs; rows without it are single points.
        value: column that is drawn.
        x_name: what to call `x`; default: its own name.

    >>> rows = [("base", 0, 0.5), ("base", 1, 0.5), ("instruct", 0, 0.52), ("instruct", 1, 0.97)]
    >>> describe(pd.DataFrame(rows, columns=["model", "layer", "estimate"]))
    'base: flat near 0.500; instruct: rises from 0.520 at layer 0 to 0.970 at layer 1'
    """
    drawn = frame.dropna(subset=[value])
    if not len(drawn):
        return "no values"
    by = [name for name in by if name in drawn]
    spread = float(drawn[value].max() - drawn[value].min())
    parts: list[tuple[Any, pd.DataFrame]] = [((), drawn)]
    if by:
        parts = list(drawn.groupby(by, sort=False, dropna=False))
    told = []
    for key, rows in parts[:MOST]:
        name = " ".join(str(part) for part in key if not pd.isna(part))
        shape = _shape(rows, x, value, x_name or x, spread)
        told.append(f"{name}: {shape}" if name else shape)
    if len(parts) > MOST:
        told.append(f"and {len(parts) - MOST} more curves")
    return "; ".join(told)


def _shape(rows: pd.DataFrame, x: str, value: str, x_name: str, spread: float) -> str:
    curve = rows.dropna(subset=[x]).sort_values(x) if x in rows else rows.iloc[:0]
    points = rows[rows[x].isna()] if x in rows else rows
    said = [_course(curve, x, value, x_name, spread)] if len(curve) else []
    for _, row in points.head(3).iterrows():
        said.append(f"{number(row[value])} at {row.get('site', 'one place')}")
    return ", ".join(said)


def _course(curve: pd.DataFrame, x: str, value: str, x_name: str, spread: float) -> str:
    """Flat, rising, falling, or with a turn in the middle."""
    y, where = curve[value].to_numpy(float), curve[x].tolist()
    if len(y) == 1:
        return f"{number(y[0])} at {x_name} {_place(where[0])}"
    first, last, low, high = y[0], y[-1], int(y.argmin()), int(y.argmax())
    tall = float(y.max() - y.min())
    if tall <= 0.12 * spread or tall <= 1e-9 * max(1.0, float(np.abs(y).max())):
        return f"flat near {number(float(np.median(y)))}"

    def at(i: int) -> str:
        return f"{number(y[i])} at {x_name} {_place(where[i])}"

    end = len(y) - 1
    above, below = y[high] - max(first, last), min(first, last) - y[low]
    if max(above, below) > 0.25 * tall:
        turn = ("rises", high, "falls") if above >= below else ("falls", low, "rises")
        return f"{turn[0]} from {at(0)} to {at(turn[1])}, then {turn[2]} to {at(end)}"
    return f"{'rises' if last > first else 'falls'} from {at(0)} to {at(end)}"


def _place(where: Any) -> str:
    return f"{where:g}" if isinstance(where, float | np.floating) else str(where)


def describe_cells(frame: pd.DataFrame, *, x: str, y: str, value: str) -> str:
    """The range of a map and where its ends lie.

    >>> cells = pd.DataFrame({"layer": [0, 1], "head": [3, 2], "estimate": [0.1, 0.9]})
    >>> describe_cells(cells, x="layer", y="head", value="estimate")
    'from 0.100 (layer 0, head 3) to 0.900 (layer 1, head 2)'
    """
    known = frame.dropna(subset=[value])
    if not len(known):
        return "no values"
    values = known[value].to_numpy(float)
    if values.min() == values.max():
        return f"{number(values[0])} everywhere"

    def at(i: int) -> str:
        return f"{number(values[i])} ({x} {known[x].iloc[i]}, {y} {known[y].iloc[i]})"

    return f"from {at(int(values.argmin()))} to {at(int(values.argmax()))}"
