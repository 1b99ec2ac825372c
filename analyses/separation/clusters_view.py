"""A separation result in findings and in a picture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import ALPHA, Claim, Finding, found_layers
from ..result.records import extreme
from ..result.words import number, place, title_of
from ..statistics.quantities import QUANTITIES

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

SEPARATED = Claim(
    "separated",
    found="separated beyond chance",
    not_found="no evidence of separation",
    not_tested="no null was drawn",
)


def lead_space(table: pd.DataFrame) -> str:
    """The space that is reported first: z-scored where there is one."""
    spaces = list(table["space"].unique())
    return "zscored" if "zscored" in spaces else spaces[0]


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model and index, at its clearest layer; the first index leads."""
    table = result.table
    lead = table[table["space"] == lead_space(table)]
    out = []
    for _, mine in lead.groupby("model", sort=False, dropna=False):
        for i, (name, part) in enumerate(mine.groupby("metric", sort=False)):
            row = _clearest(part, str(name))
            looked = part["layer"].nunique() if "layer" in part else 0
            caveats = tuple(_left_out(result, row["model"])) if i == 0 else ()
            out.append(
                Finding.of(
                    row, SEPARATED, layers=found_layers(part), looked=looked, caveats=caveats, lead=i == 0
                )
            )
    return out


def _clearest(part: pd.DataFrame, name: str) -> dict[str, Any]:
    """The row farthest from its null, or the most separated one where no null was drawn."""
    if "z" in part and part["z"].notna().any():
        return extreme(part, "z")
    return extreme(part, "estimate", least=QUANTITIES[name].direction == "lower")


def _left_out(result: "AnalysisResult", model: Any) -> Iterator[str]:
    """What leaving out dominant dimensions and sink rows changes, one sentence per kind."""
    frame = result.frames.get("left_out")
    if frame is None:
        return
    frame = frame[(frame["model"] == model) & (frame["metric"] == frame["metric"].iloc[0])]
    for kind, part in frame.groupby("left_out", sort=False):
        worst = extreme(part.assign(moved=(part["estimate"] - part["without"]).abs()), "moved")
        yield (
            f"{len(part)} layers have {kind}; at {place(worst)} ({worst['which']}: "
            f"{number(worst['share'], 'share')} of the variance) leaving them out moves the raw "
            f"{title_of(worst['metric'])} from {number(worst['estimate'])} to {number(worst['without'])}."
        )


def draw(result: "AnalysisResult") -> Any:
    """One panel per index over layers, as z against the null, so that layers and indices compare.

    Up is always more separated. Where no null was drawn, the indices as they are.
    """
    from ..result.charts import Reference, layer_curves

    table = result.table
    space = lead_space(table)
    lead = table[table["space"] == space]
    several = lead["site"].nunique() > 1
    shared: dict[str, Any] = {"facet": "metric", "titles": {m: title_of(m) for m in lead["metric"].unique()}}
    shared |= {"dash": "site" if several else None, "shared_y": False}
    title = f"Separation of “{table['target'].iloc[0]}” ({title_of(space)})"
    if "z" not in lead or lead["z"].isna().all():
        return layer_curves(lead, y_title="index", title=title, **shared)
    places = [name for name in ("model", "site", "layer", "metric") if name in lead]
    against = lead[places].assign(estimate=lead["z"], found=lead["p_familywise"] <= ALPHA)
    return layer_curves(
        against,
        y_title="z against permuted labels",
        found="found",
        references=[Reference(0.0, "chance")],
        zero=True,
        title=title,
        subtitle="Up is more separated.",
        **shared,
    )
