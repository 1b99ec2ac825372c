"""How much data a probe needs, in words and as a picture."""

from typing import Any

import pandas as pd

from ..result.analysis import AnalysisResult
from ..result.panels import NAMES, column, place_name, same_place
from ..result.words import bounds, number, title_of


def summarise(result: AnalysisResult) -> list[str]:
    """One sentence per site on each quantity."""
    sentences = []
    for site, rows in result.table.groupby("site", sort=False):
        code = rows[rows["metric"] == "codelength"]
        if len(code):
            best = code.sort_values("estimate").iloc[0]
            sentences.append(
                f"{best['model']} {site}: labels of {best['target']!r} cost {best['estimate']:.0f} bits "
                f"at {place_name(best)} against {best['baseline_majority']:.0f} by class frequencies "
                f"alone (compression {best['compression']:.2f})."
            )
        curve = rows[rows["metric"] != "codelength"]
        full = curve[curve["share"] == curve["share"].max()]
        if len(full):
            best = full.sort_values("estimate").iloc[-1]
            least = curve[same_place(curve, best)].sort_values("share").iloc[0]
            metric = NAMES.get(best["metric"], best["metric"])
            highest = f", highest of {len(full)} places on these rows," if len(full) > 1 else ""
            sentences.append(
                f"At {place_name(best)}{highest} {metric} is {number(least['estimate'])}{bounds(least)} with "
                f"{least['n_train']:.0f} training rows and {number(best['estimate'])}{bounds(best)} with "
                f"{best['n_train']:.0f}."
            )
    return sentences


def draw(result: AnalysisResult) -> Any:
    """Held-out score against training rows: a panel per site (and model), a shade per layer.

    For sites read by heads a map of layer × head at each share of the data.
    """
    from ..result.charts import layer_curves, layer_map, stacked

    curve = result.table[result.table["metric"] != "codelength"]
    by_head, layered = column(curve, "head").notna(), column(curve, "layer").notna()
    metric = str(curve["metric"].iloc[0])
    title = f"“{curve['target'].iloc[0]}”: learning curve on held-out groups"
    charts: list[Any] = []
    for rows, colour in ((curve[~by_head & layered], "layer"), (curve[~by_head & ~layered], "site")):
        if not len(rows):
            continue
        rows, spread = _intervals(_panels(rows, by_site=colour == "layer"))
        charts.append(
            layer_curves(
                rows,
                x="n_train",
                x_title="training rows",
                y_title=title_of(metric),
                colour=colour,
                facet="panel" if rows["panel"].nunique() > 1 else None,
                bands=rows[colour].nunique() <= FEW,
                interval_text=spread,
                log_x=True,
                title=title if not charts else None,
            )
        )
    if by_head.any():
        maps = _panels(curve[by_head], by_site=True)
        maps["panel"] += ", " + maps["share"].map(_percent) + " of the data"
        charts.append(
            layer_map(
                maps.assign(head=maps["head"].astype(int)),
                x="head",
                y="layer",
                value_title=title_of(metric),
                facet="panel",
                diverging=metric in CHANCE,
                centre=CHANCE.get(metric, 0.0),
                title=f"{title}, by head",
            )
        )
    return stacked(charts)


FEW = 4
"""As many curves in a panel are drawn with their intervals."""
CHANCE = {"auroc": 0.5, "r2": 0.0}


def _panels(rows: pd.DataFrame, *, by_site: bool) -> pd.DataFrame:
    """Adds `panel`, named after what differs."""
    parts = [rows[name].astype(str) for name in ("model", "site") if name in rows]
    parts = [part for part in parts if part.nunique() > 1 and (by_site or part.name != "site")]
    panel = parts[0] if parts else rows["site"].astype(str) if by_site else pd.Series("", index=rows.index)
    for part in parts[1:]:
        panel = panel + " · " + part
    return rows.assign(panel=panel)


def _intervals(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows with `lo` and `hi`; where there is no interval, the spread over draws stands in and is named."""
    if ("lo" in rows and rows["lo"].notna().any()) or "sd" not in rows:
        return rows, "95 % interval"
    low, high = rows["estimate"] - rows["sd"], rows["estimate"] + rows["sd"]
    return rows.assign(lo=low, hi=high), "± standard deviation over draws of the training rows"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"
