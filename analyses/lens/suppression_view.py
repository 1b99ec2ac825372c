"""A suppression result in findings and in a picture."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import ALPHA, Claim, Finding, Number, Verdict, p_of
from ..result.records import records
from ..result.words import missing, on_prompts, subset_words
from .contrasts import UNSAID, difference, in_one_order, is_contrast
from .trajectories import middle_layers

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

SMALL = 0.1
"""Share of a lead whose loss is nothing to speak of: models without an override lose a few hundredths."""
NOTHING = "no evidence of suppression"
CLAIMS = {
    ("override", True): "the answer is represented and then overridden",
    ("override", False): "the answer leads and is then overtaken by the foil",
    ("weakened", True): "the answer is represented and then loses half of its lead or more",
    ("weakened", False): "the answer leads and then loses half of its lead or more",
}
"""(verdict, whether the answer was shown to be represented) → what is claimed; a lead alone shows less."""
DIFFERS = Claim(
    "suppression differs",
    found="the kinds of prompts differ",
    not_found="no evidence that the kinds of prompts differ",
)
TUNED = (
    "Read through a tuned lens, which is fitted to its model's own output: trained where an override acts, "
    "it learns the override into earlier layers, and a small index says little. Compare the logit "
    "lens, or a lens trained on text where the override does not act."
)
Row = dict[str, Any]


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per subset and per contrast of subsets; the largest contrast leads, or the only subset."""
    table = result.table
    index = table[(table["metric"] == "suppression_index") & is_contrast(table)]
    gaps = in_one_order(records(index))
    widest = max(gaps, key=lambda row: row["estimate"], default={})
    verdicts = result.frames["verdicts"]
    out = []
    for model, mine in table.groupby("model", sort=False):
        own = mine[~is_contrast(mine)]
        judged = records(verdicts[verdicts["model"] == model])
        told = [_of_subset(own[own["subset"] == row["subset"]], row, len(judged)) for row in judged]
        here = [row for row in gaps if row["model"] == model]
        told += [_of_contrast(row, mine, len(here)) for row in here]
        pairs = [(finding.subset, finding.minus) for finding in told]
        lead = (widest.get("subset"), widest.get("minus"))
        chosen = pairs.index(lead) if lead in pairs else 0
        tuned = "method" in mine and (mine["method"] == "tuned_lens").any()
        told[chosen] = replace(told[chosen], lead=True, caveats=(TUNED,) if tuned else ())
        out += told
    return out


def _of_subset(own: pd.DataFrame, verdict: Row, looks: int) -> Finding:
    """What is claimed of one kind of prompts, with the numbers that carry it."""
    scalars = {row["metric"]: row for row in records(own[own["metric"].isin(SCALARS)])}
    index = scalars["suppression_index"]
    said, why = judge(scalars, verdict, own[own["metric"] == "logit_difference"])
    numbers = [
        _number("lead at the peak", scalars["peak_logit_difference"], "logits"),
        _number("lead at the output", scalars["final_logit_difference"], "logits"),
        _number("handoff rate", scalars["handoff_rate"], "share"),
    ]
    if verdict["verdict"] == "none":
        if scalars["peak_logit_difference"]["lo"] > 0:
            numbers.insert(2, _number("share of the lead lost", scalars["lost_share"], "share"))
    else:
        when = "late" if verdict["late"] else "early, not late"
        numbers.append(_number(f"lead lost {when}, at layer", scalars["onset_layer"], "layers"))
    known = not missing(verdict.get("represented"))
    if known and said != "not_found":
        numbers.append(Number("random answers that rank as high", verdict["rank_share"], unit="share"))
    kind = (str(verdict["verdict"]), known)
    small = index["lo"] > 0 and scalars["lost_share"]["estimate"] < SMALL  # NaN where nothing leads
    nothing = f"{NOTHING}, for less than a tenth of the lead is lost" if small else NOTHING
    claim = Claim("suppressed", found=CLAIMS.get(kind, NOTHING), not_found=nothing)
    test = p_of(index, looks=looks)
    return Finding.of(
        index, claim, said, test=test, numbers=tuple(numbers), **UNSAID, **({"why": why} if why else {})
    )


SCALARS = (
    *("suppression_index", "peak_logit_difference", "final_logit_difference", "lost_share"),
    *("handoff_rate", "onset_layer"),
)


def judge(scalars: Mapping[str, Row], verdict: Row, curve: pd.DataFrame) -> tuple[Verdict, str]:
    """What the numbers of one subset carry, and why it is undecided.

    Args:
        scalars: metric → row of the table.
        verdict: its row of the frame `verdicts`.
        curve: its logit differences by layer.
    """
    index, peak, share = (
        scalars[name] for name in ("suppression_index", "peak_logit_difference", "lost_share")
    )
    if verdict["verdict"] != "none":
        return "found", ""
    if verdict.get("outside"):
        return "undecided", outside(verdict, curve["layer"])
    if not (index["lo"] > 0 and peak["estimate"] > 0):
        return "not_found", ""
    if not peak["lo"] > 0:
        return "undecided", "at its peak the lead itself may be zero"
    if not index["p_familywise"] <= ALPHA:
        return "undecided", "the interval excludes zero and the sign flips do not"
    if share["estimate"] < SMALL:
        return "not_found", ""
    if not missing(verdict.get("represented")) and not verdict["represented"]:
        return "undecided", "the answer leads, but at its peak it ranks no higher than random answers"
    sure = "is" if share["hi"] < 0.5 else "may be"
    return "undecided", f"less than half of the lead {sure} lost"


def outside(verdict: Row, layers: pd.Series) -> str:
    """Where a lead was lost before L/4, where no peak is looked for."""
    middle = layers[middle_layers(layers, int(layers.max()) + 1)]
    return (
        f"the answer leads at layer {verdict['early_peak_layer']:.0f} and has lost its lead by layer "
        f"{verdict['lead_lost_layer']:.0f}, while a peak is looked for in layers "
        f"{middle.min()}–{middle.max()} only"
    )


def _of_contrast(row: Row, table: pd.DataFrame, looks: int) -> Finding:
    """Whether one kind of prompts loses more than another."""
    apart = table[(table["metric"] == "divergence_layer") & is_contrast(table)]
    apart = apart[apart["estimate"].notna() & (apart["subset"].isin([row["subset"], row["minus"]]))]
    numbers = [_number("curves apart from layer", one, "layers") for one in records(apart[:1])]
    return difference(row, DIFFERS, looks=looks, numbers=tuple(numbers))


def draw(result: "AnalysisResult") -> Any:
    """The answer's lead by layer, a panel for each kind of prompts; below it the index and its differences.

    Several models differ by colour; of one model, the kinds of prompts do, in one panel.
    """
    from ..result.charts import Reference, forest, layer_curves

    own = result.table[~is_contrast(result.table)]
    curves = own[own["metric"] == "logit_difference"]
    curves = curves.assign(prompts=curves["subset"].map(_prompts))
    models = list(dict.fromkeys(curves["model"]))
    one = len(models) == 1
    trust = result.frames.get("trust")
    doubted = trust[~trust["trusted"].astype(bool)].drop_duplicates("layer") if trust is not None else None
    depth = int(curves["layer"].max()) + 1
    middle = curves["layer"][middle_layers(curves["layer"], depth)]
    same_depth = curves.groupby("model")["layer"].max().nunique() == 1
    looked = f"The peak is looked for in layers {middle.min()} to {middle.max()}." if same_depth else ""
    above = layer_curves(
        curves,
        y_title="logit of answer − foil",
        colour="prompts" if one else "model",
        facet=None if one else "prompts",
        references=[Reference(0.0, "answer = foil")],
        untrusted=None if doubted is None else doubted[["layer"]],
        untrusted_text="the lens is far from the output" + ("" if one else " in some model"),
        zero=True,
        title="Lead of the answer over the foil, read through the lens",
        subtitle=looked,
    )
    told = pd.DataFrame(
        {
            "model": finding.model,
            "prompts": _prompts(str(finding.subset), finding.minus),
            "estimate": finding.estimate,
            "lo": finding.lo,
            "hi": finding.hi,
            "found": finding.verdict == "found",
        }
        for finding in found(result)
    )
    below = forest(
        told,
        y="prompts",
        x_title="suppression index: lead at the peak − at the output (logits)",
        colour=None if one else "model",
        found="found",
        found_text="overridden or at least halved; for two kinds of prompts, different",
        title="What of the lead is lost",
    )
    both = (above & below).resolve_scale(color="independent")
    return both.properties(description=f"{above.description} {below.description}")


def _prompts(subset: str, minus: str | None = None) -> str:
    """A kind of prompts, as a panel and a row are called."""
    if minus:
        return on_prompts(subset, minus).removeprefix(" on ").removesuffix(" prompts")
    return "all prompts" if subset == "all" else subset_words(subset)


def _number(name: str, row: Mapping[str, Any], unit: str) -> Number:
    """A further number with its interval."""
    lo, hi = (None if missing(row[end]) else row[end] for end in ("lo", "hi"))
    return Number(name=name, value=row["estimate"], lo=lo, hi=hi, unit=unit)
