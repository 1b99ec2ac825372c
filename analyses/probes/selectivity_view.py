"""Selectivity in words and as a picture."""

from typing import TYPE_CHECKING

import pandas as pd

from ..result.analysis import AnalysisResult
from ..result.canvas import Canvas
from ..result.panels import panels_of, place_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


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


def draw(result: AnalysisResult) -> "Figure":
    """Accuracy and control accuracy by layer, one panel per site: the gap between the curves is the
    selectivity. For sites read by heads, a map of it."""
    panels = panels_of(result.table, one_site=True)
    canvas = Canvas([panels], f"{result.table['target'].iloc[0]}: selectivity")
    for cell, panel in canvas.cells():
        if panel.shape == "heads":
            canvas.heads(cell, panel.rows, "selectivity", label="selectivity")
            continue
        curve = panel.rows.sort_values("layer") if "layer" in panel.rows else panel.rows
        for column, dash in (("accuracy", "solid"), ("control", "dash")):
            spread = None
            if column == "accuracy" and "lo" in curve:
                # the interval is of the gap between the curves, drawn on the upper one
                half = (curve["hi"] - curve["lo"]) / 2
                spread = pd.DataFrame({"up": half, "down": half})
            name = "on the label" if column == "accuracy" else "on random labels per word type"
            canvas.series(cell, curve, name, value=column, spread=spread, dash=dash)
        canvas.axes(cell, "layer" if panel.shape == "layers" else None, "balanced accuracy")
    return canvas.finish()
