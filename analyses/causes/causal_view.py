"""A causal check in sentences and as a figure."""

from typing import TYPE_CHECKING

from .attribution import component_map

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult


def summarise(result: "AnalysisResult") -> list[str]:
    """What was chosen, what it recovers, and what the controls do."""
    rows = {(row["metric"], row.get("method")): row for row in result.table.to_dict("records")}
    one = {metric: row for (metric, _), row in rows.items()}
    chosen, random, moved, corrupt, clean = (
        one[name]
        for name in (
            "recovery_of_set",
            "recovery_of_random_sets",
            "recovery_of_random_directions",
            "corrupt_logit_difference",
            "clean_logit_difference",
        )
    )
    others = (
        "no other set as large is left among the parts that differ"
        if random["estimate"] != random["estimate"]
        else f"other sets as large bring back {random['estimate']:.0%} ({random['note']})"
    )
    names = result.provenance["chosen"]
    sentences = [
        f"{chosen['model']} patched from {chosen['reference']}: restoring {len(names)} components "
        f"({', '.join(names)}), chosen on other prompts, brings back {chosen['estimate']:.0%} "
        f"[{chosen['lo']:.0%}, {chosen['hi']:.0%}] of the logit difference (from {corrupt['estimate']:.2f} "
        f"towards {clean['estimate']:.2f}); {others}, and the chosen parts moved as far in random directions "
        f"{moved['estimate']:.0%}."
    ]
    if "change_on_control" in one:
        row = one["change_on_control"]
        sentences.append(
            f"On control prompts the same patch changes the logit difference by {row['estimate']:+.2f} "
            f"[{row['lo']:.2f}, {row['hi']:.2f}] ({row['note']})."
        )
    changes = "; ".join(
        f"{row['method']} {row['estimate']:+.2f} [{row['lo']:.2f}, {row['hi']:.2f}]"
        for (metric, _), row in rows.items()
        if metric == "change_by_ablation"
    )
    sentences.append(f"Ablating the set instead changes the logit difference by: {changes} logits.")
    return sentences


def draw(result: "AnalysisResult") -> "Figure":
    """Recovery by every component alone, on the scoring half."""
    frame = result.frames["verdicts"].rename(columns={"effect": "estimate"})
    return component_map(frame.sort_values(["layer", "site", "head"]), "Recovery by component", "recovery")
