"""What a reward rests on, in findings and as a picture."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import Claim, Finding, Number, Verdict
from ..result.records import column
from ..result.words import number, title_of

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

EXPLAINED = Claim(
    "explained",
    found="the reward rests at least in part on these dimensions",
    not_found="no evidence that the reward rests on these dimensions",
)
RESTS = Claim(
    "rests_on",
    found="the reward rests on it",
    not_found="no evidence that the reward rests on it beyond the others",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model what all dimensions explain together, then each one by what is lost without it."""
    table = result.table.assign(model=column(result.table, "model"))
    out = []
    for _, mine in table.groupby("model", sort=False, dropna=False):
        of = {str(name): rows for name, rows in mine.groupby("metric", sort=False)}
        left = float(of["unexplained_norm"]["estimate"].iloc[0])
        outside = Number(name="of the reward direction outside their span", value=left, unit="share")
        whole = of["r2"].iloc[0].to_dict()
        out.append(Finding.of(whole, EXPLAINED, _above(whole), test=None, numbers=(outside,), lead=True))
        for row in of["unique_r2"].sort_values("estimate", ascending=False, kind="stable").to_dict("records"):
            cosine = Number(name="cosine with the reward", value=float(row["cosine"]))
            out.append(Finding.of(row, RESTS, _above(row), test=None, numbers=(cosine,)))
    return out


def _above(row: dict[object, object]) -> Verdict:
    """By an interval of what cannot be below zero but by chance."""
    lo = row.get("lo")
    if not isinstance(lo, float) or pd.isna(lo):
        return "not_tested"
    return "found" if lo > 0 else "not_found"


def draw(result: "AnalysisResult") -> Any:
    """R² lost without each dimension, with interval, and the cosine of its direction with the reward's."""
    from ..result.charts import forest

    table = result.table
    parts = table[table["metric"] == "unique_r2"].sort_values("estimate", ascending=False, kind="stable")
    lost = parts.assign(what="R² lost without it", found=column(parts, "lo").astype(float) > 0)
    nothing = float("nan")
    along = parts.assign(
        what="cosine with the reward", estimate=parts["cosine"], lo=nothing, hi=nothing, found=True
    )
    whole, left = (table.loc[table["metric"] == name, "estimate"] for name in ("r2", "unexplained_norm"))
    together = (
        f"Together: {title_of('r2')} {number(whole.iloc[0])}, {number(left.iloc[0], 'share')} of its "
        "direction outside."
    )
    several = column(table, "model").nunique() > 1
    return forest(
        pd.concat([lost, along], ignore_index=True),
        y="target",
        x_title="",
        facet="what",
        colour="model" if several else None,
        found="found",
        found_text="interval above zero, or no interval",
        title="What the reward rests on",
        subtitle=None if several else together,
    )
