"""Panels drawn side by side: curves with intervals, bands and maps of heads, every line under its name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .panels import Panel, column, place_name, x_of
from .words import bounds, number, p_value

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = ("#1f77b4", "#d95f02", "#2a9d5c", "#c2388a", "#7a5bb5", "#8c6d1f", "#17a2b8", "#555555")
CHANCE = {"auroc": 0.5, "selectivity": 0.0, "r2": 0.0}
"""Metrics whose maps are coloured to both sides of a value that says nothing was read."""


class Canvas:
    """A figure of panels, filled one by one.

    Args:
        grid: rows of panels.
        title: of the figure.
    """

    def __init__(self, grid: Sequence[Sequence[Panel]], title: str) -> None:
        from plotly.subplots import make_subplots

        self.grid = [list(row) for row in grid]
        height, width = len(self.grid), max(len(row) for row in self.grid)
        titles = [row[i].title if i < len(row) else "" for row in self.grid for i in range(width)]
        several = height * width > 1
        self.figure: Figure = make_subplots(
            rows=height,
            cols=width,
            subplot_titles=titles if several else None,
            vertical_spacing=min(0.22, 0.42 / height),
            horizontal_spacing=min(0.12, 0.3 / width),
        )
        self._colours: dict[str, str] = {}
        self._named: set[str] = set()
        self._maps: dict[str, str] = {}
        self._marked = False
        self._height = 400 if height == 1 else 120 + 300 * height
        self._width = 400 * width if width > 2 else None
        self.figure.update_layout(title=title, template="plotly_white")

    def cells(self) -> list[tuple[tuple[int, int], Panel]]:
        """Every panel with its row and column, from 1."""
        return [((r, c), panel) for r, row in enumerate(self.grid, 1) for c, panel in enumerate(row, 1)]

    def colour(self, name: str) -> str:
        """The colour of a series, the same in every panel."""
        return self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])

    def axes(self, cell: tuple[int, int], x: str | None, y: str) -> None:
        """Titles of a panel's axes."""
        whole: dict[str, Any] = {}
        if x == "layer":
            layers = sorted(set(self.grid[cell[0] - 1][cell[1] - 1].x))
            whole = {"tickmode": "array", "tickvals": layers[:: -(-len(layers) // 12)]}
        self.figure.update_xaxes(title_text=x, row=cell[0], col=cell[1], **whole)
        self.figure.update_yaxes(title_text=y, row=cell[0], col=cell[1])

    def trace(self, cell: tuple[int, int], name: str, *, group: str | None = None, **drawn: Any) -> None:
        """Any scatter trace; one entry in the legend for each name, however many panels have it."""
        self.figure.add_scatter(
            name=name,
            legendgroup=group or name,
            showlegend=name not in self._named,
            row=cell[0],
            col=cell[1],
            **drawn,
        )
        self._named.add(name)

    def series(
        self,
        cell: tuple[int, int],
        rows: pd.DataFrame,
        name: str,
        *,
        colour: str | None = None,
        dash: str = "solid",
        value: str = "estimate",
        spread: pd.DataFrame | None = None,
        x: Sequence[Any] | None = None,
        group: str | None = None,
    ) -> None:
        """A curve over layers, or a marker at each site without layers, with intervals where there are any.

        Args:
            cell: row and column.
            rows: sorted as they are to be joined.
            name: in the legend.
            colour: instead of the name's own.
            dash: of the line.
            value: the column drawn.
            spread: [rows] `up` and `down`; default: what `lo` and `hi` say.
            x: instead of layers or sites.
            group: what it is shown and hidden with.
        """
        places = x_of(rows) if x is None else list(x)
        joined = len(rows) > 1 and not any(isinstance(place, str) for place in places)
        if spread is None and {"lo", "hi"} <= set(rows) and value == "estimate":
            spread = pd.DataFrame({"up": rows["hi"] - rows[value], "down": rows[value] - rows["lo"]})
        bars = None
        if spread is not None:
            bars = {"type": "data", "array": spread["up"], "arrayminus": spread["down"], "thickness": 1}
        paint = colour or self.colour(name)
        self.trace(
            cell,
            name,
            group=group,
            x=places,
            y=rows[value],
            error_y=bars,
            mode="lines+markers" if joined else "markers",
            line={"dash": dash, "color": paint},
            marker={"color": paint, "symbol": "circle" if dash == "solid" else "circle-open"},
        )

    def band(self, cell: tuple[int, int], rows: pd.DataFrame, name: str, *, colour: str, group: str) -> None:
        """Where 95 % of relabelled scores lie, as mean ± 1.96 standard deviations."""
        known = rows[column(rows, "null_mean").notna() & column(rows, "null_sd").notna()]
        if not len(known):
            return
        x, mean = x_of(known), known["null_mean"].astype(float)
        half = 1.96 * known["null_sd"].astype(float)
        if len(known) > 1 and not any(isinstance(place, str) for place in x):
            drawn: dict[str, Any] = {
                "x": [*x, *x[::-1]],
                "y": [*(mean + half), *(mean - half)[::-1]],
                "fill": "toself",
                "mode": "none",
                "fillcolor": _faint(colour),
            }
        else:
            drawn = {
                "x": x,
                "y": mean,
                "mode": "markers",
                "marker": {"opacity": 0},
                "error_y": {
                    "type": "data",
                    "array": half,
                    "thickness": 16,
                    "width": 0,
                    "color": _faint(colour),
                },
            }
        self.trace(cell, name, group=group, **drawn)

    def level(self, cell: tuple[int, int], x: Sequence[Any], y: float, name: str, dash: str) -> None:
        """A grey line at one height for all places of a panel."""
        spots = list(dict.fromkeys(x))
        line = {"dash": dash, "color": "gray"}
        if len(spots) > 1:
            self.trace(cell, name, x=spots, y=[y] * len(spots), mode="lines", line=line)
        else:
            marker = {"symbol": "line-ew", "size": 40, "line": {"width": 2, "color": "gray"}}
            self.trace(cell, name, x=spots, y=[y], mode="markers", marker=marker)

    def heads(self, cell: tuple[int, int], rows: pd.DataFrame, metric: str, *, label: str) -> None:
        """A map of layer × head; • where the family-wise p-value is 0.05 at most.

        Args:
            cell: row and column.
            rows: of one site; two rows for one head are an error, never an average.
            metric: whose scale of colours to share.
            label: of that scale.
        """
        told = rows.assign(
            _y=x_of(rows),
            _told=[_told(row, label) for _, row in rows.iterrows()],
            _mark=["•" if p <= 0.05 else "" for p in column(rows, "p_familywise").astype(float)],
        )
        grids = {
            name: told.pivot(index="_y", columns="head", values=name)
            for name in ("estimate", "_told", "_mark")
        }
        values = grids["estimate"]
        self._marked |= bool((told["_mark"] != "").any())
        self.figure.add_heatmap(
            z=values.to_numpy(float),
            x=[int(head) for head in values.columns],
            y=list(values.index),
            text=grids["_mark"].fillna("").to_numpy(),
            texttemplate="%{text}",
            customdata=grids["_told"].fillna("").to_numpy(),
            hovertemplate="%{customdata}<extra></extra>",
            coloraxis=self._scale(metric, label),
            row=cell[0],
            col=cell[1],
        )
        step = {"dtick": 1} if values.shape[1] <= 16 else {}
        self.figure.update_xaxes(title_text="head", row=cell[0], col=cell[1], **step)
        self.figure.update_yaxes(
            title_text="layer", row=cell[0], col=cell[1], **({"dtick": 1} if len(values) <= 16 else {})
        )

    def _scale(self, metric: str, label: str) -> str:
        if metric not in self._maps:
            index = len(self._maps)
            self._maps[metric] = "coloraxis" if index == 0 else f"coloraxis{index + 1}"
            scale: dict[str, Any] = {"colorbar": {"title": {"text": label}, "x": 1.02 + 0.12 * index}}
            if metric in CHANCE:
                scale |= {"colorscale": "RdBu", "reversescale": True, "cmid": CHANCE[metric]}
            else:
                scale |= {"colorscale": "Viridis"}
            self.figure.update_layout({self._maps[metric]: scale})
        return self._maps[metric]

    def finish(self) -> "Figure":
        """The figure with room for its panels, the legend below them."""
        if self._marked:
            title = f"{self.figure.layout.title.text} (•: family-wise p ≤ 0.05)"
            self.figure.update_layout(title=title)
        self.figure.update_layout(
            height=self._height,
            width=self._width,
            legend={"orientation": "h", "y": -75 / max(self._height - 180, 200), "yanchor": "top"},
            margin={"b": 110},
        )
        return self.figure


def _told(row: pd.Series, label: str) -> str:
    said = f"{place_name(row)}<br>{label} {number(row['estimate'])}{bounds(row)}"
    p = row.get("p_familywise")
    return said if p is None or pd.isna(p) else f"{said}<br>family-wise p {p_value(p)}"


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def finite(values: pd.Series) -> np.ndarray:
    """The distinct finite values of a column."""
    numbers = values.dropna().to_numpy(float)
    return np.unique(numbers[np.isfinite(numbers)])
