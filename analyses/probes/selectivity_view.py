"""Selectivity in words and as a picture."""

from typing import Any

import pandas as pd

from ..result.analysis import AnalysisResult
from ..result.panels import column, place_name


def summarise(result: AnalysisResult) -> list[str]:
    """The most selective place, or that none reads more than word types."""
    table = result.table
    best = table.sort_values("estimate").iloc[-1]
    numbers = (
        f"balanced accuracy {best['accuracy']:.3f} against {best['control']:.3f} on random labels per word "
        f"type (selectivity {best['estimate']:+.3f}{_bounds(best)})"
    )
    lowest = best["estimate"] if pd.isna(best.get("lo")) else best["lo"]
    if lowest > 0:
        return [f"{best['target']!r} is read most selectively at {place_name(best)}: {numbers}."]
    places = "the one place probed" if len(table) == 1 else f"none of {len(table)} places"
    verb = "does not read" if len(table) == 1 else "reads"
    return [
        f"{places[0].upper()}{places[1:]} {verb} {best['target']!r} better than random labels of word types, "
        f"which can only be memorised; highest at {place_name(best)}: {numbers}."
    ]


def _bounds(row: pd.Series) -> str:
    return "" if pd.isna(row.get("lo")) else f" [{row['lo']:+.3f}, {row['hi']:+.3f}]"


def draw(result: AnalysisResult) -> Any:
    """Accuracy on the label and on random labels per word type: the gap is the selectivity.

    A panel per site, a colour per model; for sites read by heads, a map of the selectivity.
    """
    from ..result.charts import layer_curves, layer_map, stacked

    table = result.table
    by_head = column(table, "head").notna()
    title = f"“{table['target'].iloc[0]}”: selectivity"
    charts = []
    if (~by_head).any():
        charts.append(
            layer_curves(
                _both(table[~by_head]),
                y_title="balanced accuracy",
                dash="read from",
                facet="site" if _apart(table[~by_head]) else None,
                interval_text="95 % interval of the gap, set on the lower curve",
                title=title,
            )
        )
    if by_head.any():
        maps = _named_panels(table[by_head])
        charts.append(
            layer_map(
                maps,
                x="head",
                y="layer",
                value_title="selectivity",
                facet="panel" if maps["panel"].nunique() > 1 else None,
                title=f"{title}, by head",
            )
        )
    return stacked(charts)


def _both(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row twice: its accuracy with the interval of the gap above the control, and the control."""
    label = rows.assign(estimate=rows["accuracy"], **{"read from": "on the label"})
    for end in ("lo", "hi"):
        if end in rows:
            label[end] = rows["control"] + rows[end]
    control = rows.drop(columns=[end for end in ("lo", "hi") if end in rows])
    control = control.assign(estimate=rows["control"], **{"read from": "on random labels per word type"})
    return pd.concat([label, control], ignore_index=True)


def _apart(rows: pd.DataFrame) -> bool:
    """Whether sites need panels of their own: more than one of them has layers."""
    return rows.loc[column(rows, "layer").notna(), "site"].nunique() > 1


def _named_panels(rows: pd.DataFrame) -> pd.DataFrame:
    names = rows["site"].astype(str)
    if column(rows, "model").nunique() > 1:
        names = rows["model"].astype(str) + " · " + names
    return rows.assign(panel=names, head=rows["head"].astype(int))
