"""A separation result in sentences and in a figure."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.words import bounds, number, p_value, place
from .indices import INDICES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def lead_space(table: pd.DataFrame) -> str:
    """The space that is reported first: z-scored where there is one."""
    spaces = list(table["space"].unique())
    return "zscored" if "zscored" in spaces else spaces[0]


def summarise(result: "AnalysisResult") -> list[str]:
    """One sentence per index about the best layer, and one per thing left out that matters."""
    table = result.table
    space = lead_space(table)
    lead = table[table["space"] == space]
    sentences = []
    for name, part in lead.groupby("metric", sort=False):
        index = INDICES[str(name)]
        key = "z" if "z" in part and part["z"].notna().any() else "estimate"
        low = key == "estimate" and index.better == "lower"
        best = part.iloc[int(part[key].argmin() if low else part[key].argmax())]
        sentences.append(_sentence(best, index.title, space, len(part)))
    return [*sentences, *_left_out(result)]


def _sentence(row: Any, title: str, space: str, looked: int) -> str:
    value = f"{title} of {row['target']} is {number(row['estimate'])}{bounds(row)} at {place(row)} ({space})"
    rows = f"{row['n']} rows in {row['n_groups']} groups"
    if pd.isna(row.get("z")):
        return f"{value}; no null was drawn ({rows})."
    against = (
        f"{number(row['null_mean'])} under permuted labels, z = {row['z']:.1f}, family-wise "
        f"p {p_value(row['p_familywise'])}; {rows}"
    )
    if row["p_familywise"] <= 0.05:
        return f"{value}, its clearest of {looked}: separated beyond chance ({against})."
    return f"{value}, its clearest of {looked}: no evidence of separation ({against})."


def _left_out(result: "AnalysisResult") -> list[str]:
    frame = result.frames.get("left_out")
    if frame is None:
        return []
    sentences = []
    silhouettes = frame[frame["metric"] == frame["metric"].iloc[0]]
    for kind, part in silhouettes.groupby("left_out", sort=False):
        worst = part.iloc[int((part["estimate"] - part["without"]).abs().argmax())]
        title = INDICES[worst["metric"]].title
        sentences.append(
            f"{len(part)} layers have {kind}; at {place(worst)} ({worst['which']}: {worst['share']:.0%} of "
            f"the variance) leaving them out moves the raw {title} from {number(worst['estimate'])} to "
            f"{number(worst['without'])}."
        )
    return sentences


def draw(result: "AnalysisResult") -> "Figure":
    """One panel per index over layers: estimate with interval, null band, one colour per site."""
    from plotly.subplots import make_subplots

    table = result.table
    space = lead_space(table)
    lead = table[(table["space"] == space) & table["layer"].notna()] if "layer" in table else table
    names = list(lead["metric"].unique())
    titles = [f"{INDICES[n].title} ({INDICES[n].better} is better)" for n in names]
    figure = make_subplots(rows=1, cols=max(1, len(names)), subplot_titles=titles)
    series = ["model", "site"] if "model" in lead else ["site"]
    for column, name in enumerate(names, start=1):
        part = lead[lead["metric"] == name]
        for count, (key, line) in enumerate(part.groupby(series, sort=False)):
            _curve(figure, line, " ".join(map(str, key)), COLOURS[count % len(COLOURS)], column)
        if INDICES[name].scale == "log" and (part["estimate"] > 0).all():
            figure.update_yaxes(type="log", row=1, col=column)
        figure.update_xaxes(title_text="layer", row=1, col=column)
    figure.update_layout(
        title=f"Cluster separation of {table['target'].iloc[0]} ({space} space; grey: permuted labels)",
        template="plotly_white",
        width=320 * max(1, len(names)),
        height=380,
    )
    return figure


def _curve(figure: "Figure", line: pd.DataFrame, name: str, colour: str, column: int) -> None:
    import plotly.graph_objects as go

    where = {"row": 1, "col": column}
    x = line["layer"].astype(int)
    if "null_mean" in line:
        band = 1.96 * line["null_sd"]
        for y, fill in ((line["null_mean"] - band, None), (line["null_mean"] + band, "tonexty")):
            figure.add_trace(
                go.Scatter(
                    x=x, y=y, mode="lines", line={"width": 0}, fill=fill, fillcolor="rgba(127,135,144,.25)"
                ).update(showlegend=False, hoverinfo="skip"),
                **where,
            )
    bars = None
    if "lo" in line and line["lo"].notna().any():
        bars = {
            "type": "data",
            "array": line["hi"] - line["estimate"],
            "arrayminus": line["estimate"] - line["lo"],
            "width": 2,
        }
    figure.add_trace(
        go.Scatter(
            x=x,
            y=line["estimate"],
            error_y=bars,
            mode="lines+markers",
            name=name,
            legendgroup=name,
            showlegend=column == 1,
            line={"color": colour},
        ),
        **where,
    )
