"""A two by two of weights and templates in findings and in a picture."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..lens.contrasts import difference, in_one_order, is_contrast
from ..result.findings import Claim, Finding
from ..result.records import extreme, records
from ..result.words import on_prompts
from .models_view import DEPENDS, against

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

INTERACTION = "interaction"
BOTH: dict[str, Any] = {"target": "tuning × template", "reference": None}
"""A difference of differences: no single model was subtracted."""
CHANGED = Claim(
    "suppression differs",
    found="the two differ",
    not_found="no evidence that the two differ",
)
TOGETHER = Claim(
    "tuning and template interact",
    found="what tuning changed depends on the template",
    not_found="no evidence that what tuning changed depends on the template",
    not_tested="the part of the change that needs tuning and template together",
)
MOVED = Claim("moved", found="", not_found="", not_tested="where activations move most")


def found(result: "AnalysisResult") -> list[Finding]:
    """Per effect: where activations move most, and what happens to suppression; the interaction leads.

    An effect is one model minus another: instruct/chat minus base/chat is tuning under the chat template.
    All differences of suppression are told side by side, so each p is corrected for all of them.
    """
    table = against(result.table)
    index = table[table["metric"] == "suppression_index"]
    crossed = in_one_order([{**row, "model": row["effect"]} for row in records(index[is_contrast(index)])])
    looks = len(crossed) + int((~is_contrast(index)).sum())
    out: dict[str, list[Finding]] = {}
    for effect, mine in table.groupby("effect", sort=False):
        together, here = effect == INTERACTION, [row for row in crossed if row["effect"] == effect]
        told = [*_suppressed(mine[mine["metric"] == "suppression_index"], together, looks)]
        told += [difference({**row, "model": mine["model"].iloc[0]}, DEPENDS, looks=looks) for row in here]
        told += _moved(mine[mine["metric"] == "mean_shift"], together)
        out[str(effect)] = told
    leads = {told[0].model: effect for effect, told in out.items() if told}  # the last is the interaction
    return [
        replace(finding, lead=leads[finding.model] == effect and i == 0)
        for effect, told in out.items()
        for i, finding in enumerate(told)
    ]


def _suppressed(index: pd.DataFrame, together: bool, looks: int) -> Iterator[Finding]:
    claim, more = (TOGETHER, BOTH) if together else (CHANGED, {})
    for row in records(index[~is_contrast(index)]):
        yield difference(row, claim, looks=looks, **more)


def _moved(shift: pd.DataFrame, together: bool) -> list[Finding]:
    """Where the mean shift is largest; a place that was chosen is described and not tested."""
    if not shift["estimate"].notna().any():
        return []
    top, claim = extreme(shift, "estimate"), TOGETHER if together else MOVED
    more = BOTH if together else {}
    return [Finding.of(top, claim, "not_tested", test=None, space=None, **more)]


def draw(result: "AnalysisResult") -> Any:
    """Mean shift by layer, a curve for each effect; below it the index of suppression, where it was read."""
    from ..result.charts import Reference, forest, layer_curves

    table = against(result.table)
    shift = table[(table["metric"] == "mean_shift") & table["estimate"].notna()]
    curves = layer_curves(
        shift,
        y_title="shift of the mean / spread of the reference",
        colour="effect",
        references=[Reference(0.0, "no shift")],
        title="What tuning moves, and what the template moves",
    )
    index = table[(table["metric"] == "suppression_index") & ~is_contrast(table) & table["estimate"].notna()]
    if index.empty:
        return curves
    words = [on_prompts(subset).removeprefix(" on ") or "all prompts" for subset in index["subset"]]
    below = forest(
        index.assign(prompts=words).drop(columns=["null_mean", "null_sd"], errors="ignore"),
        y="prompts",
        x_title="suppression index, difference (logits)",
        colour="effect",
        title="What it does to suppression",
    )
    both = (curves & below).resolve_scale(color="independent")
    return both.properties(description=f"{curves.description} {below.description}")
