"""Where rows lie from left to right: layers, relative depth, and sites without layers."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .records import column

if TYPE_CHECKING:
    pass


class Axis:
    """Where rows lie from left to right: layers, or their relative depth, then sites without layers."""

    def __init__(self, frame: pd.DataFrame, *, x: str, depth: bool | None, log: bool) -> None:
        self.name, self.log = x, log
        places = pd.to_numeric(column(frame, x)).astype(float)
        if depth is None:
            depth = x == "layer" and "n_layers" in frame and frame["n_layers"].nunique() > 1
        self.depth = depth
        self.title = "relative depth" if depth else x.replace("_", " ")
        positions = places / _deepest(frame, places) if depth else places
        self.count = int(places.nunique())
        known = positions.dropna()
        self.low, self.high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        bare: Sequence[Any] = (
            frame.loc[places.isna(), "site"].astype(str).unique().tolist() if places.isna().any() else []
        )
        # room for the names of several side by side
        self.step = (0.18 if len(bare) < 2 else 0.3) * (self.high - self.low) or 1.0
        first = self.high + self.step if len(known) else 0.0
        self.sites = {str(site): round(first + i * self.step, 6) for i, site in enumerate(bare)}
        self.positions = positions
        self.layers = places

    def scale(self, alt: Any) -> Any:
        """Its Vega-Lite scale."""
        if self.log:
            return alt.Scale(type="log", domain=[self.low, self.high], padding=8)
        end = max([self.high, *self.sites.values()])
        margin = 0.02 * (end - self.low) or 0.5
        if self.sites:
            margin = max(margin, self.step * 0.5)
        return alt.Scale(domain=[self.low - margin, end + margin], nice=False, zero=False)

    def ticks(self, alt: Any) -> Any:
        """Its Vega-Lite axis: whole layers, or tenths of the depth, and names of sites without layers."""
        if self.log:
            return alt.Axis(format="~s", tickCount=5)
        if self.depth:
            values = [0, 0.25, 0.5, 0.75, 1.0]
        elif self.name == "layer":
            step = tick_step(self.high - self.low)
            values = (
                [int(v) for v in np.arange(np.ceil(self.low), self.high + 0.5, step)] if self.count else []
            )
        else:
            return alt.Axis(tickCount=6)
        options: dict[str, Any] = {"format": ".2~f" if self.depth else "d"}
        if self.sites:
            options |= {"labelExpr": _label_expression(self.sites), "labelLimit": 90, "labelOverlap": False}
        values = [*values, *self.sites.values()]
        # else Vega drops every other one where it thinks them too many, or closer than whole numbers are
        return alt.Axis(values=values, tickCount=len(values), tickMinStep=0.001, **options)


def _label_expression(sites: Mapping[str, float]) -> str:
    """The tick's label; names stand in it as quoted strings, never as code, and break after underscores."""
    import json

    names = json.dumps([re.split(r"(?<=_)(?=.)", site) for site in sites])
    places = json.dumps(list(sites.values()))
    where = f"indexof({places}, datum.value)"
    return f"{where} >= 0 ? {names}[{where}] : datum.label"


def _deepest(frame: pd.DataFrame, layers: pd.Series) -> pd.Series:
    """The last layer of each row's model."""
    if "n_layers" in frame:
        return (frame["n_layers"].astype(float) - 1).clip(lower=1)
    models = column(frame, "model").astype(object).fillna("")
    return layers.groupby(models).transform("max").clip(lower=1)


def tick_step(span: float) -> int:
    """Layers between ticks: whole numbers, at most nine ticks.

    >>> [tick_step(n) for n in (4, 8, 11, 23, 31, 79)]
    [1, 1, 2, 4, 4, 10]
    """
    return next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 200, 500, 1000) if span / step <= 8.5)
