"""Separation after topic matching, in findings and in a picture."""

from typing import TYPE_CHECKING, Any

from ..result.findings import Claim, Finding, Number, Verdict, found_layers
from ..result.records import extreme, records

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

BALANCED = 0.65
"""AUROC of words alone up to which matched classes are called alike in their words."""
SURVIVES = Claim(
    "survives_matching",
    found="the matched classes are apart beyond chance",
    not_found="no evidence that the matched classes are apart",
    undecided="matching did not balance the words, so what survives may still be topic or wording",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model and site: how much separation is left after matching, and what words alone tell."""
    words = result.frames["words"]
    out = []
    for (model, _), part in result.table.groupby(["model", "site"], sort=False):
        mine = words[words["model"] == model] if "model" in words else words
        auroc = mine.set_index("subset")["auroc"]
        share = part[part["metric"] == "surviving_share"]
        score = part[(part["metric"] == "silhouette") & (part["subset"] == "topic-matched")]
        row = extreme(share, "estimate") if len(share) else records(score)[-1]
        clear = found_layers(score)
        balanced = auroc["topic-matched"] <= BALANCED
        verdict: Verdict = "not_found" if not clear else "found" if balanced else "undecided"
        numbers = tuple(
            Number(f"AUROC of words alone, {name}", float(auroc[name]))
            for name in ("unmatched", "topic-matched")
        )
        out.append(
            Finding.of(
                row,
                SURVIVES,
                verdict,
                subset=None,
                numbers=numbers,
                layers=clear,
                looked=len(score),
                lead=True,
                test=None,
            )
        )
    return out


def draw(result: "AnalysisResult") -> Any:
    """Separation per layer, unmatched and topic-matched."""
    from ..result.charts import Reference, layer_curves

    table = result.table[result.table["metric"] == "aqi_debiased"]
    return layer_curves(
        table,
        y_title="separation above chance (AQI)",
        colour="subset",
        facet="model" if table["model"].nunique() > 1 else None,
        dash="site" if table["site"].nunique() > 1 else None,
        references=[Reference(0.0, "chance")],
        zero=True,
        title=f"Separation of “{table['target'].iloc[0]}” before and after topic matching",
    )
