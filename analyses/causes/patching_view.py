"""A patching result in sentences and as maps."""

from typing import TYPE_CHECKING

from ..result.words import p_value
from .attribution import component_map

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult


def summarise(result: "AnalysisResult") -> list[str]:
    """What separates the runs, and which parts bring it back."""
    table = result.table.set_index("metric")
    corrupt, clean = table.loc["corrupt_logit_difference"], table.loc["clean_logit_difference"]
    part = result.table[result.table["metric"] == "recovery"].sort_values("estimate", ascending=False)
    clear = part[part["p_familywise"] <= 0.05]
    top = ", ".join(
        f"{row['component']} {row['estimate']:.0%} [{row['lo']:.0%}, {row['hi']:.0%}]"
        for _, row in part.head(3).iterrows()
    )
    sentences = [
        f"{corrupt['model']} patched from {corrupt['reference']}: the logit difference is "
        f"{corrupt['estimate']:.2f} as it is and "
        f"{clean['estimate']:.2f} in the other run; of {len(part)} heads and MLPs, {len(clear)} "
        f"change it beyond chance "
        f"(family-wise 5 %), most of all {top}."
    ]
    if "positions" in result.frames:
        best = result.frames["positions"].sort_values("estimate", ascending=False, kind="stable").iloc[0]
        sentences.append(
            f"Of the stream by layer and position, most comes back at the input of layer "
            f"{best['layer']}, position "
            f"{best['position']} ({best['token']!r}): {best['estimate']:.0%}."
        )
    if "paths" in result.frames and len(result.frames["paths"]):
        ordered = result.frames["paths"].sort_values("effect", key=abs, ascending=False, kind="stable")
        strongest = "; ".join(
            f"{row['sender']} → {row['receiver']} {row['effect']:+.2f} [{row['lo']:.2f}, {row['hi']:.2f}] "
            f"(family-wise p {p_value(row['p_familywise'])})"
            for _, row in ordered.head(3).iterrows()
        )
        sentences.append(
            f"Along {len(ordered)} single paths, all else held as it was, the logit difference changes most "
            f"by {strongest}."
        )
    return sentences


def draw(result: "AnalysisResult") -> "Figure":
    """Layer × position map where there is one, with the tokens that most prompts share; else layer × head."""
    if "positions" not in result.frames:
        return component_map(result.frames["map"], "Recovery by component", "recovery")
    import plotly.graph_objects as go

    frame = result.frames["positions"]
    grid = frame.pivot(index="layer", columns="position", values="estimate")
    tokens = frame.drop_duplicates("position").set_index("position").loc[grid.columns]
    labels = [
        f"{position} {row['token']}" if row["token_share"] > 0.5 else str(position)
        for position, row in tokens.iterrows()
    ]
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(dtype=float),
            x=labels,
            y=[int(layer) for layer in grid.index],
            customdata=[list(zip(tokens["token"], tokens["token_share"], strict=True))] * len(grid),
            hovertemplate="layer %{y}, position %{x}: %{z:.0%}<br>"
            "commonest token: %{customdata[0]} (%{customdata[1]:.0%} of prompts)<extra></extra>",
            zmin=-1,
            zmax=1,
            colorscale="RdBu",
            colorbar={"title": "recovery"},
        )
    )
    figure.update_layout(
        title="Recovery by the stream entering a layer, per position",
        yaxis_title="layer",
        template="plotly_white",
    )
    return figure
