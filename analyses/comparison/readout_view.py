"""A readout of mean differences in findings and in a picture."""

from typing import TYPE_CHECKING, Any

from ..result.findings import Claim, Finding
from ..result.records import column, extreme
from ..result.words import listed, missing

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

READS = Claim(
    "reproducible difference",
    found="",
    not_found="the models do not differ on these prompts",
    not_tested="where the mean difference is most reproducible",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model: where the mean difference is most reproducible, and the tokens that it points to."""
    out = []
    # a table leaves out a column without a single value, as of models that differ nowhere
    table = result.table.assign(estimate=column(result.table, "estimate").astype("Float64").astype(float))
    for model, part in table.groupby("model", sort=False):
        best = extreme(part, "estimate")
        if part["estimate"].isna().all():
            nothing: dict[str, Any] = {"estimate": None, "site": None, "layer": None, "why": ""}
            out.append(Finding.of(best, READS, "not_found", test=None, lead=True, **nothing))
            continue
        tokens = result.frames["tokens"]
        at = tokens["layer"].isna() if missing(best.get("layer")) else tokens["layer"] == best["layer"]
        shown = tokens[(tokens["model"] == model) & at]["token"].head(5)
        reads = (f"There it reads as {listed(map(repr, shown))}.",) if len(shown) else ()
        out.append(Finding.of(best, READS, "not_tested", test=None, caveats=reads, why="", lead=True))
    return out


def draw(result: "AnalysisResult") -> Any:
    """Split-half cosine of the mean difference per layer."""
    from ..result.charts import Reference, layer_curves

    return layer_curves(
        result.table[column(result.table, "estimate").notna()],
        y_title="cosine between halves of the prompts",
        references=[Reference(0.0, "only noise")],
        zero=True,
        title="How reproducible the mean difference is",
    )
