"""Rows and marks of a forest: estimates with intervals, a row for each category."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...hooks.errors import LayerprobeError
from .curve_rows import null_bounds, tooltips
from .records import column
from .theme import CHANCE, NULL, SURFACE
from .words import bounds, number


def forest_rows(
    frame: pd.DataFrame,
    *,
    y: str,
    colour: str | None,
    facet: str | None,
    titles: Mapping[Any, str] | None,
    found: str | None,
) -> pd.DataFrame:
    """`y`, `s` (series), `f` (panel), `e` (estimate), `lo`, `hi`, `nlo`, `nhi`, `found`, `v` (in words)."""
    needed = [name for name in (y, colour, facet, found) if name and name not in frame]
    if not len(frame) or needed:
        lacks = f"no column {needed[0]!r}" if needed else "no rows"
        raise LayerprobeError(f"this picture has {lacks}; the table has {', '.join(map(str, frame))}")
    null_lo, null_hi = null_bounds(frame)
    rows = pd.DataFrame(
        {
            "y": frame[y].astype(str),
            "s": frame[colour].astype(str) if colour else "",
            "f": [str((titles or {}).get(v, v)) for v in frame[facet]] if facet else "",
            "e": frame["estimate"].astype(float),
            "lo": column(frame, "lo").astype(float),
            "hi": column(frame, "hi").astype(float),
            "nlo": null_lo,
            "nhi": null_hi,
            "found": frame[found].fillna(False).astype(bool) if found else np.nan,
        }
    )
    twice = rows.duplicated(["y", "s", "f"])
    if twice.any():
        name = rows.loc[twice, "y"].iloc[0]
        raise LayerprobeError(f"two rows for {name!r}: pass colour= or facet= a column that tells them apart")
    known = rows["e"].notna()
    said = [number(r["estimate"]) + bounds(r) for r in frame[known.to_numpy()].to_dict("records")]
    return rows[known].assign(v=said)


def forest_layers(
    alt: Any,
    rows: pd.DataFrame,
    *,
    categories: Sequence[str],
    series: Sequence[str],
    palette: Mapping[str, str],
    x_title: str,
    y_title: str | None,
    reference: float | None,
    reference_label: str,
    log: bool,
    found: bool,
) -> list[Any]:
    """Marks from the back to the front: null, reference, interval, estimate."""
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    axis = alt.Axis(grid=True, domain=False, tickCount=5)

    def along(field: str) -> Any:
        return alt.X(f"{field}:Q", title=x_title, scale=scale, axis=axis)

    axis_y = alt.Axis(grid=False, domain=False, ticks=False, labelLimit=280, labelPadding=8)
    row = {"y": alt.Y("y:N", sort=list(categories), title=y_title, axis=axis_y)}
    if len(series) > 1:
        row["yOffset"] = alt.YOffset("s:N", sort=list(series), scale=alt.Scale(paddingInner=0.2))
    shown = alt.Legend(orient="top", symbolType="circle", symbolSize=70) if len(series) > 1 else None
    scale_of = alt.Scale(domain=list(series), range=[palette[name] for name in series])
    painted = alt.Color("s:N", title=None, legend=shown, scale=scale_of)
    if not any(series):  # no column of colours; a scale over an empty name paints nothing
        painted = alt.value(palette[series[0]])
    tips = tooltips(alt, {"y": "row", **({"s": "series"} if len(series) > 1 else {}), "v": x_title})
    base = alt.Chart()
    layers = []
    if rows["nlo"].notna().any():
        band = base.mark_rule(color=NULL, opacity=0.32, strokeWidth=9)
        layers.append(band.encode(x=along("nlo"), x2="nhi:Q", **row))
    if reference is not None:
        once = alt.Chart(alt.InlineData(values=[{"x": reference, "t": reference_label}]))
        layers.append(once.mark_rule(color=CHANCE, strokeDash=[4, 3]).encode(x=along("x")))
        if reference_label:
            text = once.mark_text(color=CHANCE, baseline="bottom", dy=-3)
            layers.append(text.encode(x=along("x"), y=alt.value(0), text="t:N"))
    if rows["lo"].notna().any():
        bar = base.mark_rule(strokeWidth=2, opacity=0.8)
        layers.append(bar.encode(x=along("lo"), x2="hi:Q", color=painted, **row))
    drawn = {"x": along("e"), "color": painted, "tooltip": tips, **row}
    if found:
        hollow = base.mark_point(filled=False, fill=SURFACE, opacity=1, size=58, strokeWidth=1.6)
        layers.append(hollow.transform_filter("!datum.found").encode(**drawn))
        layers.append(
            base.mark_point(filled=True, opacity=1, size=64).transform_filter("datum.found").encode(**drawn)
        )
    else:
        layers.append(base.mark_point(filled=True, opacity=1, size=60).encode(**drawn))
    return layers
