"""Maps: a value in colour at each pair of two categories, such as layer × head, or in a square matrix."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...hooks.errors import LayerprobeError
from .alt_text import describe_cells
from .curve_rows import plain, tooltips
from .findings import ALPHA
from .layer_axis import tick_step
from .layer_curves import heading
from .theme import FACET_COLUMNS, INK, SINGLE, SURFACE
from .words import bounds, number

if TYPE_CHECKING:
    import altair as alt

NUMBERS = 12
"""As many rows and columns have their numbers written in the cells."""
SIDE = 260


def layer_map(
    frame: pd.DataFrame,
    *,
    x: str = "layer",
    y: str,
    value: str = "estimate",
    value_title: str,
    x_title: str | None = None,
    y_title: str | None = None,
    facet: str | None = None,
    titles: Mapping[Any, str] | None = None,
    found: str | None = None,
    found_text: str = f"family-wise p ≤ {ALPHA:g}",
    diverging: bool = True,
    centre: float = 0.0,
    title: str | None = None,
    subtitle: str | None = None,
    description: str | None = None,
) -> "alt.LayerChart | alt.FacetChart":
    """A map of layer × head, component or model; numbers in the cells where there are at most 12 × 12.

    Args:
        frame: tidy rows, one per cell and panel.
        x: column from left to right.
        y: column from top to bottom (numbers: from bottom to top, as layers grow).
        value: column of the colours.
        value_title: of the colour scale.
        x_title: default: the column's name.
        y_title: default: the column's name.
        facet: column with a map for each value; all share one colour scale.
        titles: value of the facet → what stands over its map.
        found: boolean column: a dot (a bold number) where true.
        found_text: what the dot means.
        diverging: whether colours go to both sides of `centre`; else from low to high.
        centre: of diverging colours, such as 0, or 0.5 for an AUROC.
        title: of the picture.
        subtitle: below it.
        description: for those who hear the picture.

    Raises:
        LayerprobeError: no rows, a missing column, or two rows for one cell.
    """
    import altair as alt

    rows = _cells(frame, x, y, value, facet, titles, found)
    columns, lines = _order(frame[x]), _order(frame[y])
    if pd.api.types.is_numeric_dtype(frame[y]):
        lines = lines[::-1]
    panels = list(dict.fromkeys(rows["f"]))
    numbers = len(columns) <= NUMBERS and len(lines) <= NUMBERS
    wide = _side(len(columns), numbers and len(columns) * 34, bool(facet))
    tall = _side(len(lines), numbers and len(lines) * 24, bool(facet))
    scale = _scale(alt, rows["value"], diverging, centre)
    layers = _layers(
        alt,
        rows,
        scale,
        x=alt.X("x:N", sort=columns, title=x_title or x.replace("_", " "), axis=_axis(alt, columns, 0)),
        y=alt.Y("y:N", sort=lines, title=y_title or y.replace("_", " "), axis=_axis(alt, lines, None)),
        names=(x, y, value_title),
        numbers=numbers,
        strong=_strong(rows["value"], diverging, centre),
    )
    told = describe_cells(frame, x=x, y=y, value=value)
    return _whole(
        alt,
        layers,
        rows,
        panels,
        size=(wide, tall),
        title=title,
        subtitle=_with_marks(subtitle, found and found_text, numbers),
        description=description or f"{title or value_title}: {told}.",
    )


def matrix(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    value: str = "estimate",
    value_title: str,
    x_title: str | None = None,
    y_title: str | None = None,
    facet: str | None = None,
    titles: Mapping[Any, str] | None = None,
    order: Sequence[Any] | None = None,
    found: str | None = None,
    found_text: str = f"family-wise p ≤ {ALPHA:g}",
    diverging: bool = False,
    centre: float = 0.0,
    title: str | None = None,
    subtitle: str | None = None,
    description: str | None = None,
) -> "alt.LayerChart | alt.FacetChart":
    """A square matrix of the same things down and across, its diagonal outlined: generalisation, CKA.

    Args:
        frame: tidy rows, one per cell and panel.
        x: column across, such as what was tested.
        y: column down, such as what was trained on.
        value: column of the colours.
        value_title: of the colour scale.
        x_title: default: the column's name.
        y_title: default: the column's name.
        facet: column with a matrix for each value; all share one colour scale.
        titles: value of the facet → what stands over its matrix.
        order: of the things; default: as they come in the frame.
        found: boolean column: a bold number (a dot) where true.
        found_text: what it means.
        diverging: whether colours go to both sides of `centre`.
        centre: of diverging colours.
        title: of the picture.
        subtitle: below it.
        description: for those who hear the picture.

    Raises:
        LayerprobeError: no rows, a missing column, or two rows for one cell.
    """
    import altair as alt

    rows = _cells(frame, x, y, value, facet, titles, found)
    things = [str(name) for name in order] if order is not None else _order(pd.concat([frame[y], frame[x]]))
    panels = list(dict.fromkeys(rows["f"]))
    numbers = len(things) <= NUMBERS
    side = _side(len(things), numbers and len(things) * 38, bool(facet))
    slant = 0 if max(len(name) for name in things) <= 4 else -40
    layers = _layers(
        alt,
        rows,
        _scale(alt, rows["value"], diverging, centre),
        x=alt.X(
            "x:N",
            sort=things,
            scale=alt.Scale(domain=things),
            title=x_title or x,
            axis=_axis(alt, things, slant),
        ),
        y=alt.Y(
            "y:N",
            sort=things,
            scale=alt.Scale(domain=things),
            title=y_title or y,
            axis=_axis(alt, things, None),
        ),
        names=(x, y, value_title),
        numbers=numbers,
        strong=_strong(rows["value"], diverging, centre),
    )
    outline = alt.Chart().mark_rect(filled=False, stroke=INK, strokeWidth=1.4)
    layers.append(
        outline.transform_filter("datum.x == datum.y").encode(x=layers[0].encoding.x, y=layers[0].encoding.y)
    )
    told = describe_cells(frame, x=x, y=y, value=value)
    return _whole(
        alt,
        layers,
        rows,
        panels,
        size=(side, side),
        title=title,
        subtitle=_with_marks(subtitle, found and found_text, numbers),
        description=description or f"{title or value_title}: {told}.",
    )


def _with_marks(subtitle: str | None, found_text: str | None, numbers: bool) -> str:
    """The subtitle, and after it what a mark means where cells are marked."""
    said = [subtitle] if subtitle else []
    if found_text:
        said.append(f"{'Bold' if numbers else 'Dots'}: {found_text}.")
    return " ".join(said)


def _cells(
    frame: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    facet: str | None,
    titles: Mapping[Any, str] | None,
    found: str | None,
) -> pd.DataFrame:
    """`x`, `y`, `f`, `value`, `t` (number as written), `v` (with its interval), `found`."""
    lacking = [name for name in (x, y, value, facet, found) if name and name not in frame]
    if lacking or not len(frame):
        lacks = f"no column {lacking[0]!r}" if lacking else "no rows"
        raise LayerprobeError(f"this map has {lacks}; the table has {', '.join(map(str, frame))}")
    rows = pd.DataFrame(
        {
            "x": frame[x].astype(str),
            "y": frame[y].astype(str),
            "f": [str((titles or {}).get(v, v)) for v in frame[facet]] if facet else "",
            "value": frame[value].astype(float),
            "found": frame[found].fillna(False).astype(bool) if found else False,
        }
    )
    if (twice := rows.duplicated(["x", "y", "f"])).any():
        first = rows[twice].iloc[0]
        raise LayerprobeError(
            f"two rows for {x} {first['x']}, {y} {first['y']}: choose rows first, or pass facet= a column "
            "that tells them apart"
        )
    digits = _digits(rows["value"])
    rows["t"] = [f"{v:.{digits}f}".replace("-", "−") if pd.notna(v) else "" for v in rows["value"]]
    told = zip(rows["value"], frame.to_dict("records"), strict=True)
    rows["v"] = [
        number(v) + (bounds(r) if value == "estimate" else "") if pd.notna(v) else "–" for v, r in told
    ]
    return rows


def _digits(values: pd.Series) -> int:
    size = float(values.abs().max())
    return 0 if size >= 100 else 1 if size >= 10 else 2


def _order(values: pd.Series) -> list[str]:
    """Numbers by size, names as they come."""
    unique = values.dropna().unique()
    return [str(v) for v in (sorted(unique) if pd.api.types.is_numeric_dtype(values) else unique)]


def _side(count: int, written: int, faceted: bool) -> int:
    """Pixels of one side: cells neither tiny nor huge, wide enough for their numbers."""
    cell = min(34, max(8, (SIDE if faceted else SINGLE[0]) / max(count, 1)))
    return int(max(cell * count, written, 48))


def _axis(alt: Any, names: Sequence[str], angle: int | None) -> Any:
    shown: dict[str, Any] = {"grid": False, "domain": False, "ticks": False, "labelLimit": 160}
    if angle is not None:
        shown["labelAngle"] = angle
    if len(names) > NUMBERS and all(name.isdigit() for name in names):
        whole = sorted(int(name) for name in names)
        step = tick_step(whole[-1] - whole[0])
        shown["values"] = [str(v) for v in whole if (v - whole[0]) % step == 0]
    return alt.Axis(**shown)


def _scale(alt: Any, values: pd.Series, diverging: bool, centre: float) -> Any:
    """Diverging colours reach equally far to both sides."""
    known = values[np.isfinite(values)]
    if not len(known):
        return alt.Scale(domain=[0, 1])
    if diverging:
        far = float((known - centre).abs().max()) or 1.0
        return alt.Scale(domain=[centre - far, centre, centre + far], range="diverging", interpolate="lab")
    low, high = float(known.min()), float(known.max())
    return alt.Scale(domain=[low, high if high > low else low + 1.0], range="heatmap", interpolate="lab")


def _strong(values: pd.Series, diverging: bool, centre: float) -> str:
    """Where a cell is so deeply coloured that its number must be light."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "false"
    if diverging:
        far = float((known - centre).abs().max()) or 1.0
        return f"abs(datum.value - {centre!r}) > {0.62 * far!r}"
    low, high = float(known.min()), float(known.max())
    return f"datum.value > {low + 0.5 * (high - low)!r}"


def _layers(
    alt: Any,
    rows: pd.DataFrame,
    scale: Any,
    *,
    x: Any,
    y: Any,
    names: tuple[str, str, str],
    numbers: bool,
    strong: str,
) -> list[Any]:
    """Cells and what is written on them."""
    tips = tooltips(alt, dict(zip(("x", "y", "v"), names, strict=True)))
    lines = rows["y"].nunique()
    legend = alt.Legend(
        title=names[2],
        orient="right",
        gradientLength=min(120, max(60, 24 * lines - 20)),
        gradientThickness=10,
        tickCount=3 if lines < 5 else 5,
    )
    cells = alt.Chart().mark_rect(stroke=SURFACE, strokeWidth=1 if len(rows) < 700 else 0)
    layers = [cells.encode(x=x, y=y, color=alt.Color("value:Q", scale=scale, legend=legend), tooltip=tips)]
    ink = alt.condition(strong, alt.value(SURFACE), alt.value(INK))
    if numbers:
        for found, weight in ((False, "normal"), (True, "bold")):
            if (rows["found"] == found).any():
                text = alt.Chart().mark_text(fontSize=10.5, fontWeight=weight)
                filtered = text.transform_filter(f"datum.found === {str(found).lower()}")
                layers.append(filtered.encode(x=x, y=y, text="t:N", color=ink))
    elif rows["found"].any():
        dot = alt.Chart().mark_point(filled=True, size=9, opacity=0.9).transform_filter("datum.found")
        layers.append(dot.encode(x=x, y=y, color=ink))
    return layers


def _whole(
    alt: Any,
    layers: Sequence[Any],
    rows: pd.DataFrame,
    panels: Sequence[str],
    *,
    size: tuple[int, int],
    title: str | None,
    subtitle: str,
    description: str,
) -> Any:
    chart = alt.layer(*layers).properties(width=size[0], height=size[1])
    data = alt.InlineData(values=[plain(row) for row in rows.to_dict("records")])
    wide = size[0]
    if len(panels) > 1:
        columns = min(FACET_COLUMNS, len(panels), max(1, 1160 // (size[0] + 40)))
        chart = chart.facet(facet=alt.Facet("f:N", title=None, sort=list(panels)), columns=columns, data=data)
        wide = size[0] * columns
    else:
        chart.data = data
    return chart.properties(**heading(title, subtitle, max(wide, 320)), description=description)
