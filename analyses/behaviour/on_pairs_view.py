"""A behaviour result in findings and in a picture."""

from typing import TYPE_CHECKING, Any

from ..result.findings import Claim, Finding, Number, Test
from ..result.records import records
from ..result.words import missing, subset_words

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

UNLIKE = Claim(
    "targets and contrasts are answered differently",
    found="target and contrast are not answered alike",
    not_found="no evidence that target and contrast are answered differently",
    not_tested="the rate is undefined, since no contrast is answered correctly",
)
CELLS = (
    ("a", "both right in"),
    ("b", "only the target in"),
    ("c", "only the contrast in"),
    ("d", "neither in"),
)
METHODS = {"logits": "by logits", "generated": "by generated text"}


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model, method and subset, by McNemar's test; all prompts by logits lead."""
    table = result.table
    looks = int((table["metric"] == "mcnemar").sum())
    out: list[Finding] = []
    for model, mine in table.groupby("model", sort=False):
        for (method, subset), part in mine.groupby(["method", "subset"], sort=False):
            rows = {row["metric"]: row for row in records(part)}
            rate, test = rows["mar_conditional"], rows["mcnemar"]
            first = not any(finding.model == model for finding in out)
            numbers = (
                Number("pairs", rate["n"], unit="count"),
                *(Number(words, rows[cell]["estimate"], unit="count") for cell, words in CELLS),
                _share("right on targets", rows["accuracy_target"]),
                _share("right on contrasts", rows["accuracy_contrast"]),
                _share("the reverse, bias rate", rows["br_conditional"]),
            )
            exact = Test(p=test["q"], looks=looks, name="exact McNemar")
            undefined = missing(rate["estimate"])
            out.append(
                Finding.of(
                    rate,
                    UNLIKE,
                    "not_tested" if undefined else None,
                    test=None if undefined else exact,
                    subset=None if subset == "all" else subset,
                    method=METHODS.get(str(method), method),
                    numbers=tuple(one for one in numbers if one.value == one.value),
                    n=None,
                    n_groups=None,
                    lead=first,
                )
            )
    return out


def _share(name: str, row: dict[str, Any]) -> Number:
    lo, hi = (None if missing(row.get(end)) else row[end] for end in ("lo", "hi"))
    return Number(name, row["estimate"], lo=lo, hi=hi, unit="share")


RATES = {
    "mar_conditional": "MAR: target wrong, contrast right",
    "br_conditional": "BR: contrast wrong, target right",
}


def draw(result: "AnalysisResult") -> Any:
    """Misfired-alignment rate and its reverse of every model and subset, with intervals."""
    from ..result.charts import forest

    table = result.table
    rows = table[table["metric"].isin(RATES) & table["estimate"].notna()]
    methods = rows["method"].nunique() > 1
    words = [
        ("all pairs" if row["subset"] == "all" else subset_words(row["subset"]))
        + (f", {METHODS.get(row['method'], row['method'])}" if methods else "")
        for row in records(rows)
    ]
    return forest(
        rows.assign(pairs=words),
        y="pairs",
        x_title="share of the pairs whose other member is right",
        colour="model",
        facet="metric",
        titles=RATES,
        title="Where only one member of a pair is answered correctly",
    )
