"""Selectivity in findings and as a picture."""

from typing import TYPE_CHECKING

import pandas as pd

from ..result.findings import Claim, Finding, Number, decide_interval
from ..result.records import column, rows_like
from .readable import leading

if TYPE_CHECKING:
    from altair import Chart

    from ..result.analysis import AnalysisResult

SELECTIVE = Claim(
    "selective",
    found="more is read than random labels of word types, which can only be memorised",
    not_found="no evidence that more is read than random labels of word types, which can only be memorised",
    not_tested="not judged",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model and site, at the place chosen on training groups; by the interval."""
    table = result.table
    best = result.frames.get("best_layer")
    if best is None:  # results of former versions do not say what was chosen
        best = table.loc[
            table.assign(model=column(table, "model")).groupby("model", dropna=False)["estimate"].idxmax()
        ]
    leads = leading(best)
    out = []
    for index, one in best.iterrows():
        row = rows_like(table, one.to_dict(), "model", "site", "layer", "head").iloc[0].to_dict()
        verdict = decide_interval(row.get("lo"), row.get("hi"))
        if row["estimate"] <= 0 and (verdict != "found" or row["hi"] < 0):
            verdict = "not_found"  # which needs no interval
        numbers = (
            Number(name="balanced accuracy", value=float(row["accuracy"])),
            Number(name="on random labels", value=float(row["control"])),
        )
        out.append(Finding.of(row, SELECTIVE, verdict, test=None, numbers=numbers, lead=index in leads))
    return out


def draw(result: "AnalysisResult") -> "Chart":
    """Accuracy on the label and on random labels per word type: the gap is the selectivity.

    A panel per site, a colour per model; for sites read by heads, a map of the selectivity.
    """
    from ..result.charts import layer_curves, layer_map, stacked

    table = result.table
    by_head = column(table, "head").notna()
    title = f"“{table['target'].iloc[0]}”: selectivity"
    charts = []
    if (~by_head).any():
        charts.append(
            layer_curves(
                _both(table[~by_head]),
                y_title="balanced accuracy",
                dash="read from",
                facet="site" if _apart(table[~by_head]) else None,
                interval_text="95 % interval of the gap, set on the lower curve",
                title=title,
            )
        )
    if by_head.any():
        maps = _named_panels(table[by_head])
        charts.append(
            layer_map(
                maps,
                x="head",
                y="layer",
                value_title="selectivity",
                facet="panel" if maps["panel"].nunique() > 1 else None,
                title=f"{title}, by head",
            )
        )
    return stacked(charts)


def _both(rows: pd.DataFrame) -> pd.DataFrame:
    """Each row twice: its accuracy with the interval of the gap above the control, and the control."""
    label = rows.assign(estimate=rows["accuracy"], **{"read from": "on the label"})
    for end in ("lo", "hi"):
        if end in rows:
            label[end] = rows["control"] + rows[end]
    control = rows.drop(columns=[end for end in ("lo", "hi") if end in rows])
    control = control.assign(estimate=rows["control"], **{"read from": "on random labels per word type"})
    return pd.concat([label, control], ignore_index=True)


def _apart(rows: pd.DataFrame) -> bool:
    """Whether sites need panels of their own: more than one of them has layers."""
    return rows.loc[column(rows, "layer").notna(), "site"].nunique() > 1


def _named_panels(rows: pd.DataFrame) -> pd.DataFrame:
    names = rows["site"].astype(str)
    if column(rows, "model").nunique() > 1:
        names = rows["model"].astype(str) + " · " + names
    return rows.assign(panel=names, head=rows["head"].astype(int))
