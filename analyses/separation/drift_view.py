"""Where a third set of prompts lies, in findings and in a picture."""

from typing import TYPE_CHECKING, Any

from ..result.findings import Claim, Finding, Number, Verdict, decide_interval
from ..result.records import extreme, records
from ..result.words import place

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

PLACED = Claim(
    "placed",
    found="nearer to the second",
    not_found="nearer to the first",
    undecided="the interval holds the middle",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model and site: the position at the last layer, and at the layer where it is closest to the end."""
    positions = result.table[result.table["metric"] == "drift_position"]
    out = []
    for _, part in positions.groupby(["model", "site"], sort=False):
        first, *_, last = records(part.iloc[[0, -1]])
        nearest = extreme(part.assign(off=(part["estimate"] - 1).abs()), "off", least=True)
        numbers = (
            Number("first", first["estimate"], lo=first["lo"], hi=first["hi"], at=place(first)),
            Number(
                "closest to the second",
                nearest["estimate"],
                lo=nearest["lo"],
                hi=nearest["hi"],
                at=place(nearest),
            ),
        )
        off = decide_interval(last["lo"], last["hi"], zero=0.5)
        sure: Verdict = "found" if last["estimate"] > 0.5 else "not_found"
        verdict: Verdict = {"found": sure, "not_found": "undecided"}.get(off, off)
        caveat = f"Position of {last['subset']}: 0 is the first, 1 the second."
        out.append(
            Finding.of(
                last, PLACED, verdict, subset=None, numbers=numbers, caveats=(caveat,), lead=True, test=None
            )
        )
    return out


def draw(result: "AnalysisResult") -> Any:
    """Position over layers with its interval, between the two reference clusters at 0 and 1."""
    from ..result.charts import Reference, layer_curves

    positions = result.table[result.table["metric"] == "drift_position"]
    several = positions["site"].nunique() > 1
    return layer_curves(
        positions,
        y_title="position",
        dash="site" if several else None,
        references=[Reference(0.0, "first"), Reference(1.0, "second")],
        zero=True,
        title=f"Position of {positions['subset'].iloc[0]}",
    )
