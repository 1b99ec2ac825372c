"""How much data a probe needs, in words and as a picture."""

from typing import TYPE_CHECKING

import pandas as pd

from ..result.analysis import AnalysisResult
from ..result.canvas import Canvas
from ..result.panels import NAMES, Panel, column, panels_of, place_name, same_place
from ..result.words import bounds, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def summarise(result: AnalysisResult) -> list[str]:
    """One sentence per site on each quantity."""
    sentences = []
    for site, rows in result.table.groupby("site", sort=False):
        code = rows[rows["metric"] == "codelength"]
        if len(code):
            best = code.sort_values("estimate").iloc[0]
            sentences.append(
                f"{best['model']} {site}: labels of {best['target']!r} cost {best['estimate']:.0f} bits "
                f"at {place_name(best)} against {best['baseline_majority']:.0f} by class frequencies "
                f"alone (compression {best['compression']:.2f})."
            )
        curve = rows[rows["metric"] != "codelength"]
        full = curve[curve["share"] == curve["share"].max()]
        if len(full):
            best = full.sort_values("estimate").iloc[-1]
            least = curve[same_place(curve, best)].sort_values("share").iloc[0]
            metric = NAMES.get(best["metric"], best["metric"])
            highest = f", highest of {len(full)} places on these rows," if len(full) > 1 else ""
            sentences.append(
                f"At {place_name(best)}{highest} {metric} is {number(least['estimate'])}{bounds(least)} with "
                f"{least['n_train']:.0f} training rows and {number(best['estimate'])}{bounds(best)} with "
                f"{best['n_train']:.0f}."
            )
    return sentences


def draw(result: AnalysisResult) -> "Figure":
    """Held-out score against training rows, one panel per site and one line per layer; for sites read by
    heads a map of layer × head at each share of the data."""
    curve = result.table[result.table["metric"] != "codelength"]
    metric = str(curve["metric"].iloc[0])
    label = NAMES.get(metric, metric)
    grid: list[list[Panel]] = []
    for panel in panels_of(curve, one_site=True):
        if panel.shape != "heads":
            grid.append([panel])
            continue
        shares = panel.rows.groupby("share")
        grid.append(
            [
                Panel(f"{panel.title}, {_percent(float(mine['share'].iloc[0]))} of the data", mine, "heads")
                for _, mine in shares
            ]
        )
    canvas = Canvas(grid, f"{curve['target'].iloc[0]}: learning curve on held-out groups")
    colours = _by_layer(curve)
    for cell, panel in canvas.cells():
        if panel.shape == "heads":
            canvas.heads(cell, panel.rows, metric, label=label)
            continue
        for place, rows in panel.rows.groupby(_places(panel.rows), sort=False):
            rows = rows.sort_values("n_train")
            spread = None
            if "lo" not in rows and "sd" in rows:
                spread = pd.DataFrame({"up": rows["sd"], "down": rows["sd"]})
            name = str(place)
            canvas.series(cell, rows, name, x=list(rows["n_train"]), spread=spread, colour=colours[name])
        said = label if "lo" in curve or "sd" not in curve else f"{label} (± sd over draws)"
        canvas.axes(cell, "training rows", said)
        canvas.figure.update_xaxes(type="log", row=cell[0], col=cell[1])
    return canvas.finish()


def _places(rows: pd.DataFrame) -> pd.Series:
    return rows.apply(place_name, axis=1)


def _by_layer(curve: pd.DataFrame) -> dict[str, str]:
    """A colour for each place, early layers dark and late ones light."""
    from plotly.colors import sample_colorscale

    layers = column(curve, "layer").fillna(0).astype(int)
    height = max(int(layers.max()), 1)
    return {
        place: sample_colorscale("Viridis", [0.9 * layer / height])[0]
        for place, layer in zip(_places(curve), layers, strict=True)
    }


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
