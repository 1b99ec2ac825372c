"""A behaviour result in sentences and in a figure."""

from typing import TYPE_CHECKING

from .on_pairs import summarise as summarise

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult


def draw(result: "AnalysisResult") -> "Figure":
    """MAR and BR of every model and subset, with intervals."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for metric, name in (
        ("mar_conditional", "MAR: target wrong where contrast right"),
        ("br_conditional", "BR: the reverse"),
    ):
        part = result.table[result.table["metric"] == metric]
        labels = [f"{row['model']}, {row['subset']} ({row['method']})" for _, row in part.iterrows()]
        up, down = part["hi"] - part["estimate"], part["estimate"] - part["lo"]
        figure.add_bar(
            x=labels,
            y=part["estimate"],
            name=name,
            error_y={"type": "data", "array": up, "arrayminus": down, "symmetric": False},
        )
    figure.update_layout(template="plotly_white", yaxis_title="rate", barmode="group", yaxis_tickformat=".0%")
    return figure
