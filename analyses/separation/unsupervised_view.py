"""Structure without labels, in findings and in a picture."""

from typing import TYPE_CHECKING, Any

from ..result.findings import Claim, Finding, Number, found_layers
from ..result.records import extreme, records
from ..result.words import place, title_of

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

DESCRIBED = ("two_nn", "effective_rank", "participation_ratio", "anisotropy")
AGREES = Claim(
    "agrees",
    found="clusters found without labels agree with them beyond chance",
    not_found="no evidence that clusters found without labels agree with them",
    not_tested="no null was drawn",
)


SHAPE = Claim("shape", found="", not_found="", not_tested="described, not tested")


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model and method: the best agreement with the labels; then dimension, rank and anisotropy."""
    out = []
    table = result.table
    for model, mine in table.groupby("model", sort=False):
        agreement = mine[mine["metric"] == "adjusted_mutual_info"]
        for i, (_, part) in enumerate(agreement.groupby("method", sort=False)):
            best = extreme(part, "estimate")
            layers = found_layers(part)
            out.append(Finding.of(best, AGREES, layers=layers, looked=len(part), lead=i == 0))
        for metric in DESCRIBED:
            part = mine[mine["metric"] == metric]
            if not len(part):
                continue
            first, *_, last = records(part.iloc[[0, -1]])
            number = Number("last", last["estimate"], at=place(last))
            out.append(Finding.of(first, SHAPE, numbers=(number,), target=None, test=None, model=str(model)))
    return out


def draw(result: "AnalysisResult") -> Any:
    """Agreement of clusterings with the labels, and dimension, rank and anisotropy, over layers."""
    from ..result.charts import layer_curves

    table = result.table[result.table["metric"].isin(["adjusted_mutual_info", *DESCRIBED])]
    titles = {name: title_of(name) for name in table["metric"].unique()}
    method = table["method"].fillna("") if "method" in table else ""
    return layer_curves(
        table.assign(method=method),
        y_title="",
        facet="metric",
        titles=titles,
        dash="method",
        shared_y=False,
        title="Structure without labels",
    )
