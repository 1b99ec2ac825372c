"""A refusal direction in a finding and as a figure."""

from typing import TYPE_CHECKING, Any

from ..result.findings import Claim, Finding, Number

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

REFUSAL = Claim(
    "direction_of_refusal",
    found="removing the direction changes it",
    not_found="removing the direction changes nothing",
    not_tested="what removing and adding it does stands beside a random direction, without an interval",
)
MOVES = {
    "refusal_ablated": "direction removed",
    "random_refusal_ablated": "a random one removed",
    "refusal_harmless": "harmless prompts as they are",
    "refusal_added": "direction added",
    "random_refusal_added": "a random one added",
    "kl_ablated": "KL on harmless prompts",
}


def found(result: "AnalysisResult") -> list[Finding]:
    """The chosen direction and what it does on test prompts, against the unedited model and a random one."""
    out = []
    for model, table in result.table.groupby("model", sort=False):
        rows = {str(r["metric"]): r for r in table[table["split"] == "test prompts"].to_dict("records")}
        numbers = tuple(
            Number(name=name, value=rows[metric]["estimate"], unit="nats")
            for metric, name in MOVES.items()
            if metric in rows
        )
        edited = rows["refusal_ablated"]
        out.append(
            Finding.of(
                {**rows["refusal_harmful"], "note": None},
                REFUSAL,
                site="resid_pre",
                layer=int(edited["layer"]),
                numbers=numbers,
                caveats=(f"The direction is read at token position {int(edited['position'])}.",),
                model=str(model),
                lead=True,
            )
        )
    return out


def draw(result: "AnalysisResult") -> Any:
    """Log-odds of refusal with the direction of each layer removed, and added."""
    from ..result.charts import layer_curves

    table = result.table[result.table["split"] == "validation prompts"]
    moved = table[table["metric"].isin(["refusal_ablated", "refusal_added"])]
    chosen = result.table.loc[result.table["split"] == "test prompts", "position"].dropna()
    moved = moved[moved["position"].isin(chosen.unique())]
    names = {"refusal_ablated": "harmful, direction removed", "refusal_added": "harmless, direction added"}
    return layer_curves(
        moved.assign(prompts=moved["metric"].map(names)),
        y_title="log-odds of refusing (nats)",
        colour="prompts",
        facet="model" if moved["model"].nunique() > 1 else None,
        title="Refusal with the direction of each layer removed or added",
    )
