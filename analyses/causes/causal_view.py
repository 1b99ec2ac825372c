"""A causal check in findings and as a map."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import Claim, Finding, Number
from ..result.records import records
from ..result.words import listed, number
from .component_views import component_map

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

CAUSE = Claim(
    "cause",
    found="the chosen parts bring the answer back, and more than the controls do",
    not_found="the chosen parts bring back no more than the controls do",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model: what the chosen parts restore, against other parts and random directions."""
    return [_of_model(table, result) for _, table in result.table.groupby("model", sort=False)]


def _of_model(table: pd.DataFrame, result: "AnalysisResult") -> Finding:
    rows = {str(row["metric"]): row for row in records(table)}
    chosen, others = rows["recovery_of_set"], rows["recovery_of_random_sets"]
    moved = rows["recovery_of_random_directions"]
    controls = [row["estimate"] for row in (others, moved) if row["estimate"] == row["estimate"]]
    above = chosen["lo"] > max([0.0, *controls])
    numbers = [
        Number(name="before", value=rows["corrupt_logit_difference"]["estimate"], unit="logits"),
        Number(name="in the other run", value=rows["clean_logit_difference"]["estimate"], unit="logits"),
        Number(name="moved as far in random directions", value=moved["estimate"], unit="share"),
    ]
    if others["estimate"] == others["estimate"]:
        numbers.append(Number(name="other sets as large", value=others["estimate"], unit="share"))
    verdicts = result.frames["verdicts"]
    mine = verdicts[verdicts["model"] == chosen["model"]] if "model" in verdicts else verdicts
    names = mine.loc[mine["chosen"].astype(bool), "component"]
    caveats = [f"The parts, chosen on other prompts: {listed(map(str, names))}."]
    if others["estimate"] != others["estimate"]:
        caveats.append("No other set as large is left among the parts that differ.")
    if "change_on_control" in rows:
        row = rows["change_on_control"]
        caveats.append(
            f"On control prompts the same patch changes the logit difference by {_signed(row)} "
            f"({row['note']})."
        )
    changes = [r for r in records(table) if r["metric"] == "change_by_ablation"]
    if changes:
        told = "; ".join(f"{row['method']} {_signed(row)}" for row in changes)
        caveats.append(f"Ablating the parts instead changes the logit difference by: {told} logits.")
    return Finding.of(
        chosen,
        CAUSE,
        "found" if above else "not_found",
        numbers=tuple(numbers),
        caveats=tuple(caveats),
        lead=True,
    )


def _signed(row: dict[str, Any]) -> str:
    return f"{number(row['estimate'])} [{number(row['lo'])}, {number(row['hi'])}]"


def draw(result: "AnalysisResult") -> Any:
    """Recovery by every component alone, on the scoring half."""
    frame = result.frames["verdicts"].rename(columns={"effect": "estimate"})
    frame = frame.sort_values(["layer", "site", "head"] if "head" in frame else ["layer", "site"])
    return component_map(frame, title="Recovery by each part alone", value_title="recovery")
