"""Sentences and picture of a result that left one domain out at a time."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ..result.analysis import AnalysisResult
from ..result.canvas import Canvas, finite
from ..result.panels import NAMES, Panel, column, first_metric, panels_of, place_name
from ..result.words import bounds, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def summarise(result: AnalysisResult) -> list[str]:
    """How each domain does at the layer that its own training domains chose."""
    sentences = []
    for _, best in result.frames["best_layer"].iterrows():
        metric = NAMES.get(best["metric"], best["metric"])
        sentences.append(
            f"Left out {best['subset']}: at {place_name(best)}, chosen on the other domains, the probe of "
            f"{best['target']!r} has {metric} {number(best['estimate'])}{bounds(best)} on {best['n']} rows."
        )
    return sentences


def draw(result: AnalysisResult) -> "Figure":
    """One layer curve for every domain left out, one panel per label and site; for sites read by heads a map
    of layer × head for every domain."""
    rows = first_metric(result.table)
    targets = list(rows["target"].unique())
    grid: list[list[Panel]] = []
    for target in targets:
        panels: list[Panel] = []
        for panel in panels_of(rows[rows["target"] == target], one_site=True):
            if panel.shape != "heads":
                panels.append(panel)
                continue
            for subset, mine in panel.rows.groupby("subset", sort=False):
                panels.append(replace(panel, title=f"{panel.title}, without {subset!s}", rows=mine))
        if len(targets) > 1:
            panels = [replace(panel, title=f"{target}: {panel.title}") for panel in panels]
        grid.append(panels)
    shown = str(targets[0]) if len(targets) == 1 else f"{len(targets)} labels"
    canvas = Canvas(grid, f"{shown}: {rows['method'].iloc[0]} probe on a domain it has not seen")
    for cell, panel in canvas.cells():
        metric = str(panel.rows["metric"].iloc[0])
        label = NAMES.get(metric, metric)
        if panel.shape == "heads":
            canvas.heads(cell, panel.rows, metric, label=label)
            continue
        for subset, curve in panel.rows.groupby("subset", sort=False):
            curve = curve.sort_values("layer") if "layer" in curve else curve
            canvas.series(cell, curve, f"without {subset}")
        chance = finite(column(panel.rows, "baseline_majority"))
        if metric == "auroc" and len(chance) == 1 and len(set(panel.x)) > 1:
            canvas.level(cell, sorted(panel.x), chance[0], "chance", "dot")
        canvas.axes(cell, "layer" if panel.shape == "layers" else None, label)
    return canvas.finish()
