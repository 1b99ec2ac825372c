"""A refusal direction in a sentence and as a figure."""

from typing import Any

from ..result.analysis import AnalysisResult


def summarise(result: AnalysisResult) -> list[str]:
    """The chosen direction and what it does on test prompts, against the unedited model and a random one."""
    chosen = result.provenance
    table = result.table[result.table["split"] == "test prompts"].set_index("metric")["estimate"]
    return [
        f"Refusal direction of {result.table['model'].iloc[0]}: the stream entering layer {chosen['layer']} "
        f"at position {chosen['position']}. On test prompts, removing it takes the log-odds of refusing "
        f"harmful ones from {table['refusal_harmful']:.2f} to {table['refusal_ablated']:.2f} (a random "
        f"direction: {table['random_refusal_ablated']:.2f}), adding it takes those on harmless ones from "
        f"{table['refusal_harmless']:.2f} to {table['refusal_added']:.2f} (random: "
        f"{table['random_refusal_added']:.2f}), at a KL of {table['kl_ablated']:.3f} nats."
    ]


def draw(result: AnalysisResult) -> Any:
    """Log-odds of refusal with the direction of each layer removed, and added."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for metric, name in (
        ("refusal_ablated", "harmful, direction removed"),
        ("refusal_added", "harmless, direction added"),
    ):
        part = result.table[
            (result.table["metric"] == metric) & (result.table["split"] == "validation prompts")
        ]
        part = part[part["position"] == result.provenance["position"]].sort_values("layer")
        figure.add_scatter(x=part["layer"], y=part["estimate"], name=name, mode="lines+markers")
    figure.update_layout(template="plotly_white", xaxis_title="layer", yaxis_title="log-odds of refusing")
    return figure
