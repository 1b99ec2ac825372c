"""The kinds of pictures: curves over layers, maps, matrices, estimates side by side, points.

Each takes tidy rows, as `AnalysisResult.table` has them, and gives one Altair chart in the colours of the
theme, its data inside, with a description for those who hear it. Labels are text, never markup.
`saving` writes them to disk.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from .alt_text import describe, describe_cells
from .curve_rows import plain, tooltips
from .findings import ALPHA
from .layer_curves import Reference, heading, layer_curves
from .maps import layer_map, matrix
from .saving import notebook_bundle, save_figure, to_svg
from .theme import FACET_COLUMNS, PANEL, SINGLE, colours

if TYPE_CHECKING:
    import altair as alt

__all__ = [
    "Reference",
    "describe",
    "describe_cells",
    "forest",
    "layer_curves",
    "layer_map",
    "matrix",
    "notebook_bundle",
    "save_figure",
    "scatter",
    "stacked",
    "to_svg",
]


def forest(
    frame: pd.DataFrame,
    *,
    y: str,
    x_title: str,
    y_title: str | None = None,
    colour: str | None = None,
    facet: str | None = None,
    titles: Mapping[Any, str] | None = None,
    names: Sequence[str] | None = None,
    reference: float | None = 0.0,
    reference_label: str = "",
    found: str | None = None,
    found_text: str = f"p ≤ {ALPHA:g}",
    interval_text: str = "95 % interval",
    log: bool = False,
    title: str | None = None,
    subtitle: str | None = None,
    description: str | None = None,
) -> "alt.LayerChart | alt.FacetChart":
    """Estimates with their intervals, a row for each category, in the order of the frame.

    Args:
        frame: tidy rows; `estimate`, where known `lo`, `hi`, `null_lo`, `null_hi`, and the columns
            named below; one row per category, colour and panel.
        y: column of the categories.
        x_title: of the values.
        y_title: of the categories.
        colour: column whose values lie side by side in one row, such as `model`.
        facet: column with a panel for each value.
        titles: value of the facet → what stands over its panel.
        names: all values of `colour` in the study's order, so that each keeps its colour.
        reference: value of a vertical line; None for none.
        reference_label: written at its upper end.
        found: boolean column: filled markers where true, open ones elsewhere.
        found_text: what a filled marker means.
        interval_text: what the bars are.
        log: whether the values lie on a logarithmic axis.
        title: of the picture.
        subtitle: said before what bars and markers mean.
        description: for those who hear the picture; default: every estimate in words.
    """
    import altair as alt

    from .forest_rows import forest_layers, forest_rows

    rows = forest_rows(frame, y=y, colour=colour, facet=facet, titles=titles, found=found)
    categories, series = list(dict.fromkeys(rows["y"])), list(dict.fromkeys(rows["s"]))
    panels = list(dict.fromkeys(rows["f"]))
    every = list(dict.fromkeys([*(names or ()), *series]))
    palette = colours(every, "model" if colour in (None, "model") else "other")
    layers = forest_layers(
        alt,
        rows,
        categories=categories,
        series=series,
        palette=palette,
        x_title=x_title,
        y_title=y_title,
        reference=reference,
        reference_label=reference_label,
        log=log,
        found=found is not None,
    )
    said = [subtitle] if subtitle else []
    said += [f"Bars: {interval_text}."] if rows["lo"].notna().any() else []
    said += ["Grey: 95 % of values where there is nothing to find."] if rows["nlo"].notna().any() else []
    said += [f"Filled markers: {found_text}."] if found else []
    width = SINGLE[0] - 120 if len(panels) == 1 else PANEL[0]
    step = 24 if len(series) < 2 else 9 + 13 * len(series)
    told = describe(frame, by=[n for n in (facet, y, colour) if n and n in frame], x="\0")
    wide = width * min(len(panels), FACET_COLUMNS)
    whole: Any = alt.layer(*layers).properties(width=width, height=alt.Step(step, **{"for": "position"}))
    data = alt.InlineData(values=[plain(row) for row in rows.to_dict("records")])
    if len(panels) > 1:
        header = alt.Facet("f:N", title=None, sort=panels)
        whole = whole.facet(facet=header, columns=min(FACET_COLUMNS, len(panels)), data=data)
    else:
        whole.data = data
    return whole.properties(
        **heading(title, " ".join(said), max(wide, SINGLE[0])),
        description=description or f"{title or x_title}. {told}.",
    )


def stacked(charts: Sequence[Any], *, title: str | None = None) -> Any:
    """Charts of different kinds below one another, each with its own scales, as one picture.

    Args:
        charts: from top to bottom; a single one comes back as it is.
        title: of the whole.
    """
    import altair as alt

    if len(charts) == 1:
        return charts[0]
    described = " ".join(str(chart.to_dict(validate=False).get("description", "")) for chart in charts)
    whole = alt.vconcat(*charts).resolve_scale(color="independent", strokeDash="independent")
    return whole.properties(**heading(title, None, SINGLE[0]), description=described)


def scatter(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    x_title: str,
    y_title: str,
    colour: str | None = None,
    facet: str | None = None,
    titles: Mapping[Any, str] | None = None,
    names: Sequence[str] | None = None,
    hover: Sequence[str] = (),
    shared: bool = True,
    axes: bool = True,
    title: str | None = None,
    subtitle: str | None = None,
    description: str | None = None,
) -> "alt.Chart | alt.FacetChart":
    """Points, one for each row.

    Args:
        frame: one row per point; the columns named below.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        x_title: of the horizontal axis.
        y_title: of the vertical axis.
        colour: column whose values have a colour each.
        facet: column with a panel for each value.
        titles: value of the facet → what stands over its panel.
        names: all values of `colour`, so that each keeps its colour.
        hover: columns shown when the mouse is over a point, such as the prompt.
        shared: whether panels share their axes.
        axes: whether ticks and numbers are drawn; not where they mean nothing, as on principal axes.
        title: of the picture.
        subtitle: below it.
        description: for those who hear the picture.
    """
    import altair as alt

    rows = pd.DataFrame({"x": frame[x].astype(float), "y": frame[y].astype(float)})
    rows["s"] = frame[colour].astype(str) if colour else ""
    rows["f"] = [str((titles or {}).get(v, v)) for v in frame[facet]] if facet else ""
    for i, name in enumerate(hover):
        rows[f"h{i}"] = frame[name].astype(str)
    series, panels = list(dict.fromkeys(rows["s"])), list(dict.fromkeys(rows["f"]))
    palette = colours(
        list(dict.fromkeys([*(names or ()), *series])), "model" if colour == "model" else "other"
    )
    scale = alt.Scale(domain=series, range=[palette[name] for name in series])
    legend = alt.Legend(orient="top", symbolSize=80) if len(series) > 1 else None
    painted: Any = alt.Color("s:N", title=None, scale=scale, legend=legend)
    if not any(series):  # no column of colours; a scale over an empty name paints nothing
        painted = alt.value(palette[series[0]])
    axis = alt.Axis() if axes else alt.Axis(labels=False, ticks=False, grid=False)
    nearest = alt.Scale(zero=False, nice=True)
    tips = tooltips(alt, {f"h{i}": name for i, name in enumerate(hover)})
    chart: Any = (
        alt.Chart()
        .mark_point(filled=True, size=22, opacity=0.65)
        .encode(
            x=alt.X("x:Q", title=x_title, scale=nearest, axis=axis),
            y=alt.Y("y:Q", title=y_title, scale=nearest, axis=axis),
            color=painted,
            tooltip=tips,
        )
        .properties(width=PANEL[0] if facet else SINGLE[0], height=PANEL[1] if facet else SINGLE[1])
    )
    data = alt.InlineData(values=[plain(row) for row in rows.to_dict("records")])
    if len(panels) > 1:
        columns = min(FACET_COLUMNS, len(panels))
        chart = chart.facet(facet=alt.Facet("f:N", title=None, sort=panels), columns=columns, data=data)
        if not shared:
            chart = chart.resolve_scale(x="independent", y="independent")
    else:
        chart.data = data
    told = description or f"{title or y_title}: {len(rows)} points" + (
        f" of {', '.join(series)}" if colour else ""
    )
    width = PANEL[0] * min(len(panels), FACET_COLUMNS) if facet else SINGLE[0]
    return chart.properties(**heading(title, subtitle, max(width, SINGLE[0])), description=told)
