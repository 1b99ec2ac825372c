"""A separation result in findings and in a picture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import Claim, Finding, found_layers
from ..result.words import number, place
from .indices import INDICES

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SEPARATED = Claim(
    "separated",
    found="separated beyond chance",
    not_found="no evidence of separation",
    not_tested="no null was drawn",
)


def lead_space(table: pd.DataFrame) -> str:
    """The space that is reported first: z-scored where there is one."""
    spaces = list(table["space"].unique())
    return "zscored" if "zscored" in spaces else spaces[0]


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model and index, at its clearest layer; the first index leads."""
    table = result.table
    lead = table[table["space"] == lead_space(table)]
    out = []
    for _, mine in lead.groupby("model", sort=False, dropna=False):
        for i, (name, part) in enumerate(mine.groupby("metric", sort=False)):
            row = _clearest(part, str(name)).to_dict()
            looked = part["layer"].nunique() if "layer" in part else 0
            caveats = tuple(_left_out(result, row["model"])) if i == 0 else ()
            out.append(
                Finding.of(
                    row, SEPARATED, layers=found_layers(part), looked=looked, caveats=caveats, lead=i == 0
                )
            )
    return out


def _clearest(part: pd.DataFrame, name: str) -> pd.Series:
    """The row farthest from its null, or the most separated one where no null was drawn."""
    if "z" in part and part["z"].notna().any():
        return part.loc[part["z"].idxmax()]
    best = part["estimate"].idxmin() if INDICES[name].better == "lower" else part["estimate"].idxmax()
    return part.loc[best]


def _left_out(result: "AnalysisResult", model: Any) -> Iterator[str]:
    """What leaving out dominant dimensions and sink rows changes, one sentence per kind."""
    frame = result.frames.get("left_out")
    if frame is None:
        return
    frame = frame[(frame["model"] == model) & (frame["metric"] == frame["metric"].iloc[0])]
    for kind, part in frame.groupby("left_out", sort=False):
        worst = part.loc[(part["estimate"] - part["without"]).abs().idxmax()]
        yield (
            f"{len(part)} layers have {kind}; at {place(worst)} ({worst['which']}: "
            f"{number(worst['share'], 'share')} of the variance) leaving them out moves the raw "
            f"{INDICES[worst['metric']].title} from {number(worst['estimate'])} to {number(worst['without'])}."
        )


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
