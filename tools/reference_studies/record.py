"""Results as tidy rows: study, result, part, key, column, value.

Small tables are listed cell by cell; of long ones the head is listed and every column summed and hashed,
for the file is committed. Rows are named by what they are of, never by where they stand.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

#: columns that say what a row is of; everything else in a row is a value
_KEYS = """
model reference dataset subset site layer head tokens method space target metric split effect train_on test_on
share part component kind position token text id example pair row user channel dimension contrast class fitted
sender receiver receiver_layer pooling_seed fold rank draw step source a b term name side word index chosen_as
answer axis site_a site_b layer_a layer_b label domain
"""
KEYS = set(_KEYS.split())
WORDS = {"note", "notes", "text", "why", "verdict", "sentence", "ci_method"}
"""Prose, which goes to the sentences: its wording may change on purpose."""
GROUPS = ("model", "site", "layer", "target", "split")
"""A long table is summed apart for each of their values."""
LISTED = 64
"""Rows of scores and frames up to which all are listed."""

Row = tuple[str, str, str, str, str, str]  # study, result, part, key, column, value


def rows_of_result(study: str, name: str, result: Any) -> Iterator[Row]:
    """Every number of an AnalysisResult."""
    tables = {"table": result.table, "scores": result.scores}
    tables |= {f"frames.{key}": frame for key, frame in sorted(result.frames.items())}
    for part, table in tables.items():
        if table is None:
            continue
        listed = part == "table" or len(table) <= LISTED
        for cell in listed_rows(table) if listed else summed_rows(table):
            yield (study, name, part, *cell)
    for cell in direction_rows(result.directions) if result.directions is not None else ():
        yield (study, name, "directions", *cell)


def listed_rows(table: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(key, column, value) of every cell; a column that is the same in all rows stands once, under `*`."""
    table = table[[c for c in table.columns if c not in WORDS]]
    same = [c for c in table.columns if len(table) > 1 and is_constant(table[c])]
    for column in same:
        yield "*", name_of(column), cell(table[column].iloc[0], exact=column not in KEYS)
    keys = [c for c in table.columns if c in KEYS and c not in same]
    values = [c for c in table.columns if c not in keys and c not in same]
    seen: dict[str, int] = {}
    for _, row in table.iterrows():
        key = ";".join(f"{c}={cell(row[c])}" for c in keys if not missing(row[c]))
        seen[key] = seen.get(key, 0) + 1
        key = key if seen[key] == 1 else f"{key};#={seen[key]}"
        for column in values:
            if not missing(row[column]):
                yield key, str(column), cell(row[column], exact=True)


def is_constant(column: pd.Series) -> bool:
    """No gap, and one value throughout."""
    return not column.isna().any() and len({cell(value, exact=True) for value in column}) == 1


def name_of(column: Any) -> str:
    """Its name, with a colon before it where it says what a row is of."""
    return f":{column}" if column in KEYS else str(column)


def summed_rows(table: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Three rows of a long table, what its rows are of as a hash, and sums and a hash of every column."""
    table = in_order(table)
    yield from listed_rows(table.iloc[:3])
    keys = [c for c in table.columns if c in KEYS - WORDS]
    yield "all", "rows", str(len(table))
    yield "all", "keys", hashed_words(";".join(map(cell, row)) for row in table[keys].to_numpy(dtype=object))
    groups = [c for c in GROUPS if c in table and 1 < table[c].nunique(dropna=False) <= 12]
    parts = table.groupby(groups, dropna=False, sort=True) if groups else [((), table)]
    for key, part in parts:
        named = ";".join(f"{c}={cell(v)}" for c, v in zip(groups, key, strict=True))
        for column in part.columns:
            if column not in KEYS | WORDS:
                yield from summary(f"all;{named}".rstrip(";"), str(column), part[column])


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by what they are of, so that another order of the same rows is no difference."""
    keys = [c for c in table.columns if c in KEYS]
    if not keys:
        return table
    return table.sort_values(keys, key=lambda c: c.map(cell), kind="stable").reset_index(drop=True)


def summary(key: str, column: str, values: Iterable[Any]) -> Iterator[tuple[str, str, str]]:
    """Exact sums (in no order at all) and a hash of the bytes; of words the hash alone."""
    values = list(values)
    if all(missing(v) or is_number(v) for v in values):
        numbers = np.array([math.nan if missing(v) else float(v) for v in values], dtype=np.float64)
        finite = numbers[np.isfinite(numbers)]
        yield key, f"{column}:sum", repr(math.fsum(finite))
        yield key, f"{column}:abs", repr(math.fsum(np.abs(finite)))
        yield key, f"{column}:hash", hashed(numbers)
    else:
        yield key, f"{column}:hash", hashed_words(map(cell, values))


def direction_rows(directions: Any) -> Iterator[tuple[str, str, str]]:
    """Weights, biases and further arrays of every label, site and layer."""
    labels = directions.by_target or {"": directions}
    for label, one in labels.items():
        arrays = {"weight": one.weights, "bias": one.bias, **one.extra}
        for name, sites in arrays.items():
            for site, layers in sites.items():
                for layer, array in layers.items():
                    yield from array_rows(f"target={label};site={site};layer={layer}", name, array)


def array_rows(key: str, name: str, array: Any) -> Iterator[tuple[str, str, str]]:
    """Shape, first value, sums and hash of an array."""
    array = array.detach().cpu().float().numpy() if hasattr(array, "detach") else np.asarray(array)
    flat = array.astype(np.float64).ravel()
    yield key, f"{name}:shape", "x".join(map(str, array.shape)) or "1"
    if flat.size:
        yield key, f"{name}:first", repr(float(flat[0]))
    yield from summary(key, name, flat)


def hashed_words(words: Iterable[str]) -> str:
    """Of words in this order."""
    return hashlib.sha256("\x1f".join(words).encode()).hexdigest()[:16]


def hashed(numbers: np.ndarray) -> str:
    """Of the float64 bytes; all NaNs alike, and -0.0 told from 0.0."""
    numbers = np.where(np.isnan(numbers), np.nan, numbers)
    return hashlib.sha256(np.ascontiguousarray(numbers, dtype="<f8").tobytes()).hexdigest()[:16]


def missing(value: Any) -> bool:
    """None, NaN or pandas' NA."""
    return value is None or (pd.api.types.is_scalar(value) and bool(pd.isna(value)))


def is_number(value: Any) -> bool:
    """Numbers and truth values."""
    return isinstance(value, int | float | np.integer | np.floating | np.bool_)


def cell(value: Any, *, exact: bool = False) -> str:
    """One cell with all its digits; in keys a whole number has no point, whatever its type."""
    if missing(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, float | np.floating):
        whole = not exact and float(value).is_integer() and abs(value) < 1e9
        return str(int(value)) if whole else repr(float(value))
    return " ".join(str(value).replace(";", ",").replace("=", ":").split())
