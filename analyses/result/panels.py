"""Which rows of a probe's table belong in one panel of a picture.

A result may hold several labels, sites with layers, sites without, and sites that are read by heads. They
share no axes, so each gets a panel of its own; no number is averaged with another to fit a picture.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

NAMES = {
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
    "r2": "R²",
    "text": "bag of words",
    "length": "prompt length",
    "majority": "majority",
}


@dataclass(frozen=True)
class Panel:
    """Rows that share axes."""

    title: str
    rows: pd.DataFrame
    """Of one label and one metric."""
    shape: str
    """`layers`: curves over layers; `points`: sites without layers; `heads`: a map of layer × head."""

    @property
    def x(self) -> list[Any]:
        """Where rows lie on the horizontal axis: layers, or names of sites."""
        return x_of(self.rows)


def column(table: pd.DataFrame, name: str) -> pd.Series:
    """A column; missing values where a table has none, since tables leave out what has no value."""
    return table[name] if name in table else pd.Series(pd.NA, index=table.index, dtype="Int64")


def place_name(row: pd.Series) -> str:
    """`resid_post[3]`, `head_out[1] head 2`, or the site alone where it has no layers.

    >>> place_name(pd.Series({"site": "embed", "layer": pd.NA}))
    'embed'
    >>> place_name(pd.Series({"site": "q", "layer": 1, "head": 2}))
    'q[1] head 2'
    """
    layer, head = row.get("layer"), row.get("head")
    place = str(row["site"]) if pd.isna(layer) else f"{row['site']}[{int(layer)}]"
    return place if pd.isna(head) else f"{place} head {int(head)}"


def same_place(table: pd.DataFrame, row: pd.Series) -> pd.Series:
    """[rows] whether a row is of the same site, layer and head."""
    alike = table["site"] == row["site"]
    for name in ("layer", "head"):
        values = column(table, name)
        alike &= values.isna() if pd.isna(row.get(name)) else values.eq(row[name]).fillna(False).astype(bool)
    return alike


def x_of(rows: pd.DataFrame) -> list[Any]:
    """Layers of rows, or the names of their sites where they have none."""
    layers = column(rows, "layer")
    return [site if pd.isna(layer) else int(layer) for site, layer in zip(rows["site"], layers, strict=True)]


def first_metric(table: pd.DataFrame) -> pd.DataFrame:
    """Of each label the rows of the metric that comes first, which is the one tested."""
    targets = table.groupby("target", sort=False)["metric"]
    return table[table["metric"] == targets.transform("first")]


def panels_of(rows: pd.DataFrame, *, one_site: bool = False) -> list[Panel]:
    """Panels for rows of one label and metric.

    Args:
        rows: a part of the table.
        one_site: a panel for every site, also for those that could share one.
    """
    layer, head = column(rows, "layer"), column(rows, "head")
    panels = []
    for shape, mine in (
        ("layers", rows[head.isna() & layer.notna()]),
        ("points", rows[head.isna() & layer.isna()]),
    ):
        parts = [part for _, part in mine.groupby("site", sort=False)] if one_site else [mine]
        panels += [Panel(", ".join(part["site"].unique()), part, shape) for part in parts if len(part)]
    for site, mine in rows[head.notna()].groupby("site", sort=False):
        panels.append(Panel(f"{site} by head", mine, "heads"))
    return panels
