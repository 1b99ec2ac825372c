"""Selectivity in findings and as a picture."""

from typing import TYPE_CHECKING

import pandas as pd

from ..result.findings import Claim, Finding, Number, decide_interval
from ..result.rows import column, rows_like
from .findings import leading
from .picture import head_maps, stacked, with_panels

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
    """Accuracy on the label and on random labels of word types; the gap between them is the selectivity.

    For sites read by heads a map of the selectivity.
    """
    from ..result.charts import layer_curves

    rows = result.table
    title = f"“{rows['target'].iloc[0]}”: selectivity of the probe"
    by_head = column(rows, "head").notna()
    charts = []
    if (~by_head).any():
        both = _both(with_panels(rows[~by_head]))
        charts.append(
            layer_curves(
                both,
                y_title="balanced accuracy",
                dash="labels",
                facet="panel" if both["panel"].nunique() > 1 else None,
                interval_text="95 % interval of the gap to the random labels",
                title=title,
            )
        )
    if by_head.any():
        charts.append(head_maps(rows[by_head], title))
    return stacked(charts)


def _both(rows: pd.DataFrame) -> pd.DataFrame:
    """Each place twice: with the accuracy, which carries the gap's interval, and with the controls'."""
    shift = rows["accuracy"] - rows["estimate"]
    real = rows.assign(
        labels="as labelled",
        estimate=rows["accuracy"],
        lo=column(rows, "lo").astype(float) + shift,
        hi=column(rows, "hi").astype(float) + shift,
    )
    control = rows.assign(
        labels="random per word type", estimate=rows["control"], lo=float("nan"), hi=float("nan")
    )
    return pd.concat([real, control], ignore_index=True)
