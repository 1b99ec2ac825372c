"""How figures look: one palette, one layout, curves over layers with their bands.

Colours are Okabe and Ito's, told apart by the colour-blind; dash and marker repeat them for print.
Backgrounds are transparent and the text colour is left to the page, so that a figure works on light and dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")
NEUTRAL = "#7f8790"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif'


def see_through(colour: str, alpha: float) -> str:
    """A hex colour as rgba.

    >>> see_through("#0072B2", 0.5)
    'rgba(0,114,178,0.5)'
    """
    r, g, b = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha})"


def style_of(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Colour, dash and marker of one series among its like."""
    i = list(names).index(name)
    return {
        "colour": PALETTE[i % len(PALETTE)],
        "dash": DASHES[i % len(DASHES)],
        "marker": MARKERS[i % len(MARKERS)],
    }


def panels(
    rows: int,
    columns: int,
    *,
    titles: Sequence[str] = (),
    x_title: str = "layer",
    y_title: str = "",
    shared_y: bool | str = True,
    height: int | None = None,
) -> Figure:
    """An empty figure of small multiples in the house style."""
    from plotly.subplots import make_subplots

    many = len(titles) or rows * columns
    figure = make_subplots(
        rows=rows,
        cols=columns,
        specs=[[{} if r * columns + c < many else None for c in range(columns)] for r in range(rows)],
        subplot_titles=list(titles) or None,
        shared_xaxes=rows > 1,
        shared_yaxes="all" if shared_y is True else shared_y,
        horizontal_spacing=0.06 if columns < 4 else 0.04,
        vertical_spacing=min(0.16, 0.34 / rows),
        x_title=x_title,
    )
    figure.update_layout(
        template="none",
        height=height or (150 + 230 * rows),
        font={"family": FONT, "size": 13, "color": NEUTRAL},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 62, "r": 16, "t": 64, "b": 58},
        legend={
            "orientation": "h",
            "y": 1.0,
            "yref": "container",
            "x": 0,
            "yanchor": "top",
        },
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": NEUTRAL},
        hovermode="x unified",
        hoverlabel={"namelength": -1, "font": {"family": FONT, "size": 12}},
    )
    axis = {
        "gridcolor": "rgba(127,135,144,0.22)",
        "zeroline": False,
        "linecolor": "rgba(127,135,144,0.6)",
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "rgba(127,135,144,0.6)",
    }
    figure.update_xaxes(**axis, tickformat="d")
    figure.update_yaxes(**axis, title_standoff=6)
    for row in range(1, rows + 1):
        figure.update_yaxes(title_text=y_title, row=row, col=1)
    for note in figure.layout.annotations:
        note.font = {"family": FONT, "size": 13, "color": NEUTRAL}
    return figure


def curve(
    figure: Figure,
    rows: pd.DataFrame,
    *,
    name: str,
    style: dict[str, Any],
    at: tuple[int, int] = (1, 1),
    legend: bool = True,
    digits: int = 3,
    filled: Sequence[bool] | None = None,
) -> None:
    """One line over layers, its interval as a band, its numbers on hovering.

    Args:
        figure: from `panels`.
        rows: columns layer, estimate and, where known, lo and hi; one row per layer.
        name: what the legend says.
        style: from `style_of`.
        at: row and column of the panel, from 1.
        legend: whether this panel puts the name into the legend.
        digits: decimals on hovering.
        filled: per row, whether the marker is filled (open otherwise).
    """
    import plotly.graph_objects as go

    rows = rows.sort_values("layer")
    x = rows["layer"].astype(int).tolist()
    figure.update_xaxes(dtick=tick_step(max(x, default=0)), row=at[0], col=at[1])
    banded = rows.dropna(subset=["lo", "hi"]) if {"lo", "hi"} <= set(rows) else rows.iloc[:0]
    if len(banded):
        there = banded["layer"].astype(int).tolist()
        figure.add_trace(
            go.Scatter(
                x=there + there[::-1],
                y=banded["hi"].astype(float).tolist() + banded["lo"].astype(float).tolist()[::-1],
                mode="lines",
                fill="toself",
                fillcolor=see_through(style["colour"], 0.16),
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=name,
            ),
            row=at[0],
            col=at[1],
        )
    hover = [_hover(row, digits) for row in rows.to_dict("records")]
    size = 8 if len(x) <= 24 else 5
    opened = [] if filled is None else [style["marker"] + ("" if f else "-open") for f in filled]
    figure.add_trace(
        go.Scatter(
            x=x,
            y=rows["estimate"].astype(float).tolist(),
            mode="lines+markers",
            cliponaxis=False,
            name=name,
            legendgroup=name,
            showlegend=legend,
            line={"color": style["colour"], "width": 2.2, "dash": style["dash"]},
            marker={"symbol": opened or style["marker"], "size": size, "color": style["colour"]},
            text=hover,
            hovertemplate="%{text}<extra>" + name.replace("<", "&lt;") + "</extra>",
        ),
        row=at[0],
        col=at[1],
    )


def tick_step(last: int) -> int:
    """Layers between ticks: whole numbers, about eight of them.

    >>> [tick_step(n) for n in (4, 11, 23, 79)]
    [1, 2, 4, 16]
    """
    step = 1
    while last / step > 8:
        step *= 2
    return step


def _hover(row: dict[Any, Any], digits: int) -> str:
    def number(value: Any) -> str:
        return "–" if value is None or value != value else f"{float(value):.{digits}f}"

    text = number(row.get("estimate"))
    if row.get("lo") is not None and row["lo"] == row["lo"]:
        text += f" [{number(row['lo'])}, {number(row.get('hi'))}]"
    return text


def level(
    figure: Figure,
    y: float,
    *,
    label: str = "",
    dash: str = "dot",
    at: tuple[int, int] = (1, 1),
    left: bool = False,
) -> None:
    """A horizontal reference line, its name at the right (or left) end; zero is always in sight."""
    if y == 0:
        figure.update_yaxes(rangemode="tozero", row=at[0], col=at[1])
    annotation = {"text": label, "font": {"size": 11, "color": NEUTRAL, "family": FONT}}
    named: dict[str, Any] = {"annotation": annotation} if label else {}
    if label:
        named["annotation_position"] = "bottom left" if left else "top right"
    figure.add_hline(
        y=y,
        line={"color": NEUTRAL, "width": 1.3, "dash": dash},
        exclude_empty_subplots=False,
        row=at[0],
        col=at[1],
        **named,
    )


def grey_band(
    figure: Figure, rows: pd.DataFrame, *, name: str, at: tuple[int, int] = (1, 1), legend: bool = True
) -> None:
    """What chance alone would give, layer by layer: columns layer, lo, hi."""
    import plotly.graph_objects as go

    rows = rows.sort_values("layer")
    x = rows["layer"].astype(int).tolist()
    figure.add_trace(
        go.Scatter(
            x=x + x[::-1],
            y=rows["hi"].astype(float).tolist() + rows["lo"].astype(float).tolist()[::-1],
            mode="lines",
            fill="toself",
            fillcolor=see_through(NEUTRAL, 0.25),
            line={"width": 0},
            hoverinfo="skip",
            name=name,
            showlegend=legend,
            legendgroup=name,
        ),
        row=at[0],
        col=at[1],
    )


def restyled(fig: Figure) -> Figure:
    """A figure of an analysis in the page's style: transparent, its text left to the page.

    Altair charts come in the page's style already.
    """
    if not hasattr(fig, "update_layout"):
        return fig
    fig.update_layout(
        template="none",
        font={"family": FONT, "size": 13, "color": NEUTRAL},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    if fig.layout.height is None:
        fig.update_layout(height=420)
    fig.update_xaxes(gridcolor="rgba(127,135,144,0.22)", zerolinecolor="rgba(127,135,144,0.5)")
    fig.update_yaxes(gridcolor="rgba(127,135,144,0.22)", zerolinecolor="rgba(127,135,144,0.5)")
    return fig
