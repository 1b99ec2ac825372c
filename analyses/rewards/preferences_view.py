"""What a reward rests on, in words and as a picture."""

from typing import TYPE_CHECKING

from ..result.analysis import AnalysisResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def summarise(result: AnalysisResult) -> list[str]:
    """What the reward rests on, with numbers."""
    table = result.table.set_index("metric")
    r2, left = table.loc["r2"], table.loc["unexplained_norm"]
    parts = result.table[result.table["metric"] == "unique_r2"].sort_values("estimate", ascending=False)
    listed = ", ".join(
        f"{row['target']} {row['estimate']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}]"
        for _, row in parts.iterrows()
    )
    return [
        f"The dimensions' scores explain R² = {r2['estimate']:.3f} [{r2['lo']:.3f}, {r2['hi']:.3f}] of "
        f"the reward on groups held out; {left['estimate']:.0%} of the reward direction's length lies "
        "outside their span.",
        f"R² lost without each dimension: {listed}.",
    ]


def draw(result: AnalysisResult) -> "Figure":
    """R² lost without each dimension, with interval, and the cosine of its direction with the reward's."""
    import plotly.graph_objects as go

    table = result.table.set_index("metric")
    parts = result.table[result.table["metric"] == "unique_r2"].sort_values("estimate", ascending=False)
    bars = {
        "type": "data",
        "array": (parts["hi"] - parts["estimate"]).clip(lower=0),
        "arrayminus": (parts["estimate"] - parts["lo"]).clip(lower=0),
    }
    figure = go.Figure()
    figure.add_bar(x=parts["target"], y=parts["estimate"], error_y=bars, name="R² lost without it")
    figure.add_scatter(
        x=parts["target"], y=parts["cosine"], mode="markers", name="cosine with the reward's direction"
    )
    explained, left = (float(table["estimate"][name]) for name in ("r2", "unexplained_norm"))
    return figure.update_layout(
        title=f"What the reward rests on: R² {explained:.2f} together, {left:.0%} of its direction outside",
        template="plotly_white",
    )
