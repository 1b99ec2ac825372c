"""A tidy table as people read it: one row per place and quantity, one column per model."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .words import missing, p_value, place, subset_words, title_of, unit_of, with_interval

# columns that tell rows apart, in the order in which a reader wants them
TOLD_APART = (
    *("target", "subset", "minus", "reference", "dataset", "trained_on", "scored_on", "effect"),
    *("method", "space", "metric", "split", "head", "site", "layer", "component"),
)
HEADINGS = {"metric": "quantity", "subset": "prompts", "minus": "minus prompts", "component": "part"}


def wide(table: pd.DataFrame, models: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of text cells.

    Columns with one value throughout are left out, and site, layer and head become one place. Where a row
    was tested, its corrected p stands beside the interval.

    Args:
        table: an `AnalysisResult.table`.
        models: names in the order of the columns; default: in order of appearance.
    """
    named = "model" in table and table["model"].notna().any()
    order = list(models or table["model"].unique()) if named else [""]
    names = [name for name in order if not named or (table["model"] == name).any()]
    keys = [key for key in TOLD_APART if key in table and _tells(table[key])]
    shown = [key for key in keys if key not in ("site", "layer", "head")]
    placed = "site" in table and table["site"].notna().any()
    columns = (["place"] if placed else []) + [HEADINGS.get(key, key.replace("_", " ")) for key in shown]
    columns += [name or "estimate" for name in names]
    places = [key for key in ("site", "layer", "head") if key in table] if placed else []
    by = [*shown, *places] or ["metric"]
    rows = []
    for _, part in table.groupby(by, sort=False, dropna=False):
        first = part.iloc[0]
        head = [place(first)] if placed else []
        cells = [_cell(part[part["model"] == name] if name else part) for name in names]
        rows.append([*head, *(_word(key, first[key]) for key in shown), *cells])
    return columns, rows


def _tells(values: pd.Series) -> bool:
    return bool(values.notna().any()) and values.nunique(dropna=False) > 1


def _word(key: str, value: Any) -> str:
    if missing(value):
        return "–"
    if key in ("metric", "space"):
        return title_of(str(value))
    return subset_words(str(value)) if key in ("subset", "minus") else str(value)


def _cell(rows: pd.DataFrame) -> str:
    if not len(rows):
        return "–"
    row = rows.iloc[0]
    said = with_interval(row, unit_of(str(row.get("metric", ""))))
    p = next((row[name] for name in ("p_familywise", "p") if name in row and not missing(row[name])), None)
    return said if p is None else f"{said}, p {p_value(float(p))}"
