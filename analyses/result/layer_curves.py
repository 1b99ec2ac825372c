"""Curves over layers: line, interval, null band, reference levels and labels, in one panel or several."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...hooks.errors import LayerprobeError
from .alt_text import describe
from .curve_rows import Curves, tooltips
from .findings import ALPHA
from .layer_axis import Axis, tick_step
from .theme import (
    CHANCE,
    FACET_COLUMNS,
    NULL,
    ORDERED,
    PANEL,
    SINGLE,
    SURFACE,
    UNTRUSTED,
    colours,
)

if TYPE_CHECKING:
    import altair as alt

DIRECT = 4
"""As many curves are named at their ends; more get a legend."""
DASHES = ([1, 0], [5, 3], [1.5, 3], [8, 3, 2, 3], [12, 4], [3, 2, 1, 2])


@dataclass(frozen=True)
class Reference:
    """A level that curves are to be held against: chance, a baseline, zero.

    Attributes:
        value: one level for all panels, or a frame with `value` and, where it differs, the column of the
            facet, and `layer` for a level that changes from layer to layer.
        label: written at its end.
        colour: `CHANCE` for what means nothing, `BASELINE` for what is known without activations.
        dash: of the line.
    """

    value: float | pd.DataFrame
    label: str = ""
    colour: str = CHANCE
    dash: tuple[float, ...] = (4, 3)


def layer_curves(
    frame: pd.DataFrame,
    *,
    y_title: str,
    x: str = "layer",
    x_title: str | None = None,
    colour: str = "model",
    dash: str | None = None,
    facet: str | None = None,
    titles: Mapping[Any, str] | None = None,
    names: Sequence[str] | None = None,
    found: str | None = None,
    found_text: str = f"family-wise p ≤ {ALPHA:g}",
    references: Sequence[Reference] = (),
    untrusted: pd.DataFrame | None = None,
    untrusted_text: str = "not to be quoted",
    interval_text: str = "95 % interval",
    bands: bool = True,
    zero: bool = False,
    log: bool = False,
    log_x: bool = False,
    depth: bool | None = None,
    shared_y: bool = True,
    title: str | None = None,
    subtitle: str | None = None,
    description: str | None = None,
) -> "alt.LayerChart | alt.FacetChart":
    """Estimates over layers, each curve with its interval, the null band and reference levels.

    Sites without layers stand as points at the right, their name below them. Up to four curves in one panel
    are named at their ends, otherwise a legend stands on top. What bands and markers mean is said in the
    subtitle. With more than `MANY_FACETS` panels use `layer_map` instead.

    Args:
        frame: tidy rows; `estimate`, where known `lo`, `hi`, `null_lo`, `null_hi` (else `null_mean` and
            `null_sd`, drawn as ± 1.96 sd), `site` for rows without a layer, and the columns named below.
        y_title: of the vertical axis.
        x: column of the horizontal axis, `layer` or any number, such as training rows.
        x_title: default: `layer`, or the name of `x`.
        colour: column whose values have a colour each; a column of numbers gets a colour scale instead.
        dash: column told apart by the line's dash.
        facet: column with a panel for each value, four side by side.
        titles: value of the facet → what stands over its panel.
        names: all values of `colour` in the study's order, so that each keeps its colour.
        found: boolean column: filled markers where true, open ones elsewhere.
        found_text: what a filled marker means.
        references: levels to hold the curves against.
        untrusted: rows whose `layer` (and facet, where the frame has it) lie on grey.
        untrusted_text: what the grey means.
        interval_text: what the bands are.
        bands: whether intervals are drawn; with many curves in one panel they hide one another.
        zero: whether the vertical axis must hold zero.
        log: whether the vertical axis is logarithmic.
        log_x: whether the horizontal axis is logarithmic.
        depth: whether layers are drawn as relative depth, from 0 (first) to 1 (last), by the column
            `n_layers` or else each model's last layer; default: where `n_layers` differs.
        shared_y: whether all panels share the vertical axis.
        title: of the picture.
        subtitle: said before what bands and markers mean.
        description: for those who hear the picture; default: the shape of each curve.

    Raises:
        LayerprobeError: the frame has no rows, lacks a column, or has two rows for one place of one curve.
    """
    import altair as alt

    wanted = [colour, *(name for name in (dash, facet, found) if name)]
    _check(frame, [name for name in wanted if name != "model"], x)
    axis = Axis(frame, x=x, depth=depth, log=log_x)
    rows = Curves(frame, axis, colour=colour, dash=dash, facet=facet, titles=titles, found=found, log=log)
    rows.add_references(references)
    rows.add_untrusted(untrusted)
    rows.has_interval &= bands
    faceted = len(rows.facets) > 1
    size = SINGLE if not faceted else (320, 210) if len(rows.facets) == 2 else PANEL
    numbered = rows.numbered
    series = rows.series if names is None else list(dict.fromkeys([*names, *rows.series]))
    palette = {} if numbered else colours(series, "model" if colour == "model" else "other")
    direct = not faceted and not numbered and len(rows.series) <= DIRECT
    domain = rows.domain(zero=zero) if shared_y or not faceted else None
    if faceted:
        rows.label_references_inside(domain, height=size[1], least=12)
    else:
        rows.label_ends(direct, domain, height=size[1], least=13)
    if numbered:
        scale = alt.Scale(range=list(ORDERED), interpolate="lab")
        shades = alt.Legend(orient="right", **_whole_values(rows.rows["s"]))
        painted = alt.Color("s:Q", title=colour, scale=scale, legend=shades)
    else:
        scale = alt.Scale(domain=rows.series, range=[palette[name] for name in rows.series])
        shown = None if direct or len(rows.series) < 2 else _legend(alt, rows.series, size, faceted)
        painted = alt.Color("s:N", title=None, scale=scale, legend=shown)
    y_scale: dict[str, Any] = {"zero": zero and domain is None, "nice": domain is None}
    if domain is not None:
        y_scale["domain"] = list(domain)
    if log:
        y_scale["type"] = "log"
    layers = _marks(
        alt,
        rows,
        x=alt.X("x:Q", title=x_title or axis.title, axis=axis.ticks(alt), scale=axis.scale(alt)),
        y={"title": y_title, "scale": alt.Scale(**y_scale), "axis": alt.Axis(tickCount=5)},
        colour=painted,
    )
    said = _subtitle(rows, subtitle, found_text, untrusted_text, interval_text)
    wide = size[0] * min(len(rows.facets), FACET_COLUMNS)
    shape = describe(
        frame, by=[n for n in (facet, colour, dash) if n], x=x, x_name="layer" if x == "layer" else axis.title
    )
    chart = alt.layer(*layers).properties(width=size[0], height=size[1])
    whole: alt.LayerChart | alt.FacetChart = chart
    data = alt.InlineData(values=rows.records())
    if faceted:
        header = alt.Header(title=None, labelOrient="top")
        panels = alt.Facet("f:N", title=None, sort=rows.facets, header=header)
        whole = chart.facet(facet=panels, columns=min(FACET_COLUMNS, _even(len(rows.facets))), data=data)
        if not shared_y:
            whole = whole.resolve_scale(y="independent")
    else:
        whole.data = data
    return whole.properties(
        **heading(title, said, wide), description=description or f"{title or y_title}. {shape}."
    )


def heading(title: str | None, subtitle: str | None, width: int) -> dict[str, Any]:
    """Title and subtitle as a chart's properties, the subtitle broken to the width of the picture."""
    if not title and not subtitle:
        return {}
    import altair as alt

    lines = textwrap.wrap(subtitle or "", max(40, int(width / 5.6)))
    return {"title": alt.TitleParams(text=title or "", subtitle=lines or alt.Undefined)}


def _whole_values(shades: pd.Series) -> dict[str, Any]:
    """Whole numbers for a legend of whole numbers, such as layers.

    >>> _whole_values(pd.Series([0.0, 1.0, 2.0]))["values"], _whole_values(pd.Series([0.5]))
    ([0, 1, 2], {})
    """
    known = shades.dropna().astype(float)
    if not len(known) or (known % 1 != 0).any():
        return {}
    low, high = int(known.min()), int(known.max())
    return {"values": list(range(low, high + 1, tick_step(high - low))), "format": "d"}


def _even(n: int) -> int:
    """Panels side by side: four, or three where that leaves fewer holes.

    >>> [_even(n) for n in (2, 3, 4, 5, 6, 8, 9, 12)]
    [2, 3, 4, 3, 3, 4, 3, 4]
    """
    if n <= FACET_COLUMNS:
        return n
    return min((4, 3), key=lambda columns: (-n % columns, -columns))


def _marks(alt: Any, rows: Curves, *, x: Any, y: dict[str, Any], colour: Any) -> list[Any]:
    """The layers of one panel, from the back to the front."""
    base = alt.Chart()
    drawn = []
    has = rows.roles

    def only(role: str, mark: Any) -> Any:
        return mark.transform_filter(f"datum.role == '{role}'")

    def ends(low: str, high: str) -> dict[str, Any]:
        return {"y": alt.Y(f"{low}:Q", **y), "y2": f"{high}:Q"}

    height = alt.Y("y:Q", **y)
    detail = alt.Detail(["s:N", "d:N"])
    if "untrusted" in has:
        mark = base.mark_rect(color=UNTRUSTED, opacity=0.45, tooltip=None)
        drawn.append(only("untrusted", mark).encode(x=x, x2="x2:Q"))
    if rows.has_null:
        band = base.mark_area(color=NULL, opacity=0.24, interpolate="linear")
        drawn.append(only("curve", band).encode(x=x, detail=detail, **ends("nlo", "nhi")))
        bar = base.mark_rule(color=NULL, opacity=0.3, strokeWidth=8)
        drawn.append(only("site", bar).encode(x=x, detail=detail, **ends("nlo", "nhi")))
    if "level" in has:
        for style in rows.reference_styles("level"):
            mark = base.mark_rule(color=style[1], strokeDash=list(style[2]), strokeWidth=1.2)
            drawn.append(only("level", mark).transform_filter(f"datum.r == {style[0]}").encode(y=height))
    if "path" in has:
        for style in rows.reference_styles("path"):
            mark = base.mark_line(color=style[1], strokeDash=list(style[2]), strokeWidth=1.4)
            drawn.append(only("path", mark).transform_filter(f"datum.r == {style[0]}").encode(x=x, y=height))
    if rows.has_interval:
        if "curve" in has:
            drawn.append(
                only("curve", base.mark_area(opacity=0.17)).encode(
                    x=x, color=colour, detail=detail, **ends("lo", "hi")
                )
            )
        bars = base.mark_rule(strokeWidth=1.6, opacity=0.75).transform_filter(
            "datum.role == 'site' || datum.alone"
        )
        drawn.append(bars.encode(x=x, color=colour, detail=detail, **ends("lo", "hi")))
    if "curve" in has:
        line = only("curve", base.mark_line()).encode(x=x, y=height, color=colour, detail=detail)
        if rows.dashes:
            scale = alt.Scale(domain=rows.dashes, range=[DASHES[i % 6] for i in range(len(rows.dashes))])
            legend = alt.Legend(orient="top", symbolType="stroke", symbolSize=420)
            line = line.encode(strokeDash=alt.StrokeDash("d:N", title=None, scale=scale, legend=legend))
        drawn.append(line)
    drawn += _points(alt, base, rows, x, height, colour)
    if "name" in has:
        text = base.mark_text(align="left", dx=8, fontWeight=600, fontSize=12, limit=220)
        drawn.append(only("name", text).encode(x=alt.value("width"), y=height, text="t:N", color=colour))
    for role, style in ((role, style) for role in rows.label_roles for style in rows.reference_styles()):
        outside = role == "said"
        side = "right" if role == "inside right" else "left"
        text = base.mark_text(
            color=style[1], fontSize=11, align=side, **({"dx": 8} if outside else {"dy": -6})
        )
        where = alt.value(2 if role == "inside left" else "width")
        mark = text.transform_filter(f"datum.role == '{role}' && datum.r == {style[0]}")
        drawn.append(mark.encode(x=where, y=height, text="t:N"))
    return drawn


def _points(alt: Any, base: Any, rows: Curves, x: Any, y: Any, colour: Any) -> list[Any]:
    """Markers: filled where something was found, open elsewhere; small ones where nothing was tested."""
    size = 46 if rows.axis.count <= 16 else 20
    place = {"x": x, "y": y, "color": colour, "tooltip": tooltips(alt, rows.tips)}
    marks = "(datum.role == 'curve' || datum.role == 'site')"
    if rows.has_found:
        return [
            base.mark_point(filled=False, fill=SURFACE, opacity=1, size=size, strokeWidth=1.5)
            .transform_filter(f"{marks} && datum.found === false")
            .encode(**place),
            base.mark_point(filled=True, opacity=1, size=size + 6)
            .transform_filter(f"{marks} && datum.found !== false")
            .encode(**place),
        ]
    small = base.mark_point(filled=True, opacity=1, size=size * 0.6).transform_filter(marks)
    return [small.encode(**place)]


def _legend(alt: Any, names: Sequence[str], size: tuple[int, int], faceted: bool) -> Any:
    wide = size[0] * (3 if faceted else 1)
    columns = max(1, min(len(names), int(wide / (40 + 7 * max(len(name) for name in names)))))
    return alt.Legend(
        orient="top",
        symbolType="stroke",
        symbolSize=320,
        columns=columns,
        symbolStrokeWidth=2.6,
        symbolOpacity=1,
    )


def _subtitle(
    rows: Curves, subtitle: str | None, found_text: str, untrusted_text: str, interval_text: str
) -> str:
    said = [subtitle] if subtitle else []
    if rows.has_interval:
        said.append(f"Coloured bands: {interval_text}.")
    if rows.has_null:
        said.append("Grey band: 95 % of scores where there is nothing to find.")
    if rows.has_found:
        said.append(f"Filled markers: {found_text}.")
    if "untrusted" in rows.roles:
        said.append(f"Grey layers: {untrusted_text}.")
    return " ".join(said)


def _check(frame: pd.DataFrame, columns: Sequence[str], x: str) -> None:
    if not len(frame):
        raise LayerprobeError("there are no rows to draw; the analysis found nothing at these places")
    missing = [name for name in ("estimate", *columns) if name not in frame]
    if missing:
        raise LayerprobeError(
            f"a picture needs the column {missing[0]!r}; the table has {', '.join(map(str, frame))}"
        )
    if x not in frame and "site" not in frame:
        raise LayerprobeError(f"rows without {x!r} are drawn under the name of their site; add `site`")
