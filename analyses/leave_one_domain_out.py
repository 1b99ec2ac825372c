"""Sentences and picture of a result that left one domain out at a time."""

from typing import TYPE_CHECKING

from .result import AnalysisResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def summarise(result: AnalysisResult) -> list[str]:
    """How each domain does at the layer that its own training domains chose."""
    sentences = []
    for _, best in result.frames["best_layer"].iterrows():
        bounds = "" if best.isna().get("lo", True) else f" [{best['lo']:.3f}, {best['hi']:.3f}]"
        place = best["site"] if best.isna().get("layer", True) else f"{best['site']}[{best['layer']}]"
        sentences.append(
            f"Left out {best['subset']}: at {place}, chosen on the other domains, the probe of "
            f"{best['target']!r} has {best['metric']} {best['estimate']:.3f}{bounds} on {best['n']} rows."
        )
    return sentences


def draw(result: AnalysisResult) -> "Figure":
    """One layer curve for every domain left out."""
    import plotly.graph_objects as go

    table = result.table
    metric = table["metric"].iloc[0]
    rows = table[(table["metric"] == metric) & table["layer"].notna()]
    figure = go.Figure()
    for (site, subset), curve in rows.groupby(["site", "subset"], sort=False):
        curve = curve.sort_values("layer")
        y, bars = curve["estimate"], None
        if "lo" in curve:
            bars = {"type": "data", "array": curve["hi"] - y, "arrayminus": y - curve["lo"], "thickness": 1}
        layers = [int(layer) for layer in curve["layer"]]
        figure.add_scatter(
            x=layers, y=y, error_y=bars, mode="lines+markers", name=f"{site}, without {subset}"
        )
    return figure.update_layout(xaxis_title="layer", yaxis_title=metric, template="plotly_white")
