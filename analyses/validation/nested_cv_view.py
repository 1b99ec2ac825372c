"""A nested cross-validation in findings and as a picture."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..probes.picture import curves, head_maps
from ..probes.readable import baseline_numbers
from ..result.findings import Claim, Finding, Number
from ..result.records import column
from ..result.words import place, title_of, unit_of
from ..statistics.quantities import quantity

if TYPE_CHECKING:
    from altair import Chart

    from ..result.analysis import AnalysisResult

SCORED = Claim(
    "cross_validated",
    found="above chance",
    not_found="no evidence that it can be read",
    not_tested="not tested against chance",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model: the range over places; nothing is chosen or tested."""
    table = result.table.assign(model=column(result.table, "model"))
    return [
        _range(rows[rows["estimate"].notna()]) for _, rows in table.groupby("model", sort=False, dropna=False)
    ]


def _range(rows: pd.DataFrame) -> Finding:
    metric = str(rows["metric"].iloc[0])
    ordered = rows.sort_values("estimate", ascending=quantity(metric).direction == "lower", kind="stable")
    best, worst = ordered.iloc[0].to_dict(), ordered.iloc[-1].to_dict()
    numbers: list[Number] = []
    if len(rows) > 1:
        numbers.append(
            _number("lowest" if quantity(metric).direction != "lower" else "highest", worst, metric)
        )
    numbers += baseline_numbers(best)
    ratio = (rows["standard_error"] / rows["naive_error"].where(rows["naive_error"] > 0)).mean()
    if pd.notna(ratio):
        numbers.append(Number(name="standard error over that of pooled cross-validation", value=float(ratio)))
    return Finding.of(
        best,
        SCORED,
        "not_tested",
        looked=len(rows),
        numbers=tuple(numbers),
        why=f"the best of {len(rows)} places" if len(rows) > 1 else "linear_probe does that",
        lead=True,
    )


def _number(name: str, row: dict[Any, Any], metric: str) -> Number:
    lo, hi = (None if pd.isna(row.get(end)) else float(row[end]) for end in ("lo", "hi"))
    return Number(name=name, value=float(row["estimate"]), lo=lo, hi=hi, unit=unit_of(metric), at=place(row))


def draw(result: "AnalysisResult") -> "Chart":
    """Cross-validated scores by layer with nested intervals and baselines; a map for sites read by heads."""
    from ..result.charts import stacked

    rows = result.table[result.table["estimate"].notna()]
    title = f"“{rows['target'].iloc[0]}”: {title_of(str(rows['metric'].iloc[0]))} by nested cross-validation"
    by_head = column(rows, "head").notna()
    charts = [curves(rows[~by_head], title)] if (~by_head).any() else []
    charts += [head_maps(rows[by_head], title)] if by_head.any() else []
    return stacked(charts)
