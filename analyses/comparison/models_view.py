"""A comparison of models in findings and in a picture: differences only, never what a model is by itself."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..lens.contrasts import difference, in_one_order, is_contrast
from ..result.findings import ALPHA, Claim, Finding, Number, Test, Verdict, found_layers, p_of
from ..result.records import column, extreme, records
from ..result.words import layer_ranges, missing, number, on_prompts, place, subset_words

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

SUPPRESSED = Claim(
    "suppression differs",
    found="the models differ",
    not_found="no evidence that the models differ",
)
DEPENDS = Claim(
    "change depends on the prompts",
    found="the change depends on the kind of prompts",
    not_found="no evidence that the change depends on the kind of prompts",
)
CLASSES = Claim(
    "class difference changed",
    found="the class difference changed",
    not_found="no evidence that the class difference changed",
    not_tested="it could not be estimated",
)
ALIKE = Claim("least alike", found="", not_found="", not_tested="where the models are least alike")
TRANSFERS = Claim(
    "direction transfers",
    found="the reference's direction reads the label in every layer that can be judged",
    not_found="no evidence that the reference's direction reads the label in any layer that can be judged",
    not_tested="whether the reference's direction still reads the label cannot be judged",
)
SIMILARITIES = ("cka_debiased", "procrustes_r2", "rsa_spearman", "direction_cosine_ratio")
Row = dict[str, Any]


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model against its reference: suppression, class difference, probe transfer, similarities.

    The change of suppression that depends on the kind of prompts leads; else the first finding.
    """
    table = against(result.table)
    index = table[table["metric"] == "suppression_index"]
    crossed = in_one_order(records(index[is_contrast(index)]))
    widest = max(crossed, key=lambda row: row["estimate"], default={})
    out = []
    for model, mine in table.groupby("model", sort=False):
        plain = records(index[(index["model"] == model) & ~is_contrast(index)])
        here = [row for row in crossed if row["model"] == model]
        looks = len(plain) + len(here)  # told side by side
        told = [difference(row, SUPPRESSED, looks=looks) for row in plain]
        told += [difference(row, DEPENDS, looks=looks) for row in here]
        told += _class_change(mine) + _transfer(mine)
        told += [one for metric in SIMILARITIES for one in _least(mine[mine["metric"] == metric])]
        pairs = [(finding.subset, finding.minus) for finding in told]
        lead = (widest.get("subset"), widest.get("minus"))
        chosen = pairs.index(lead) if widest and lead in pairs else 0
        out += [replace(finding, lead=i == chosen) for i, finding in enumerate(told)]
    return out


def against(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that set a model against its reference, with a column `layer`."""
    rows = table[table["reference"].notna()] if "reference" in table else table.iloc[:0]
    return rows if "layer" in rows else rows.assign(layer=pd.Series(pd.NA, index=rows.index, dtype="Int64"))


def _class_change(table: pd.DataFrame) -> list[Finding]:
    """Where the difference of the class means changed most."""
    rows = table[table["metric"] == "class_difference_change"]
    if rows.empty:
        return []
    top = extreme(rows, "estimate")
    if missing(top["estimate"]):
        return [Finding.of(top, CLASSES, "not_tested", test=None, estimate=None, site=None, layer=None)]
    more: Row = {"layers": found_layers(rows), "looked": len(rows), "space": None}
    # the null is of plain lengths and the estimate is cross-fitted, so they are not set side by side
    return [Finding.of(top, CLASSES, test=Test(p=top["p_familywise"], looks=len(rows)), **more)]


def _least(rows: pd.DataFrame) -> list[Finding]:
    """Where a similarity is lowest; it is described and not tested."""
    if "space" in rows and (rows["space"] == "zscored").any():
        rows = rows[rows["space"] == "zscored"]
    if rows.empty:
        return []
    low = extreme(rows, "estimate", least=True)
    known = rows[rows["estimate"].notna()]
    if known.empty:
        claim = replace(ALIKE, not_tested="it could not be estimated in any layer")
        return [Finding.of(low, claim, "not_tested", test=None, estimate=None, site=None, layer=None)]
    first = records(known.sort_values("layer"))[0]
    numbers = [Number("at the first layer", first["estimate"])] if place(first) != place(low) else []
    caveats = []
    if len(known) < len(rows):
        why = column(rows, "note")[rows["estimate"].isna()].dropna()
        reason = f": {why.iloc[0]}" if len(why) else ""
        caveats.append(f"It could be estimated at {len(known)} of {len(rows)} layers{reason}.")
    claim = (
        ALIKE if len(known) > 1 else replace(ALIKE, not_tested="the only layer where it could be estimated")
    )
    more: Row = {"numbers": tuple(numbers), "caveats": tuple(caveats), "method": None, "why": ""}
    if low.get("space") == "raw":
        more["space"] = None
    return [Finding.of(low, claim, "not_tested", test=None, **more)]


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """Transfer at the places where the reference's own direction reads the label in the reference at all."""
    moved, home = (table[table["metric"] == name] for name in ("transfer_auroc", "reference_auroc"))
    keys = ["model", "site", "layer"]
    tests = home.groupby("model")["p"].transform("size") if len(home) else 1
    readable = home[home["p"].astype(float) * tests <= ALPHA]  # Bonferroni
    return moved.merge(readable[keys], on=keys, how="inner")


def _transfer(table: pd.DataFrame) -> list[Finding]:
    """Transfer at its worst among the layers where it can be judged."""
    moved = table[table["metric"] == "transfer_auroc"]
    if moved.empty:
        return []
    rows = judged(table)
    home = table[table["metric"] == "reference_auroc"]
    if rows.empty:
        best = float(home["estimate"].max())
        why = (
            "the reference's own direction is at chance in it, with a held-out AUROC of at most "
            f"{number(best)}"
        )
        more: Row = {"estimate": None, "lo": None, "hi": None, "site": None, "layer": None, "test": None}
        claim = replace(TRANSFERS, not_tested=f"{TRANSFERS.not_tested}: {why}")
        return [Finding.of(records(moved)[0], claim, "not_tested", why="", **more)]
    low = extreme(rows, "estimate", least=True)
    reads = rows[rows["p"].astype(float) * len(rows) <= ALPHA]
    verdict: Verdict = "found"
    why = ""
    if reads.empty:
        verdict = "not_found"
    elif len(reads) < len(rows):
        layers = layer_ranges(int(layer) for layer in reads["layer"].dropna())
        verdict = "undecided"
        why = f"it does in layers {layers}, {len(reads)} of the {len(rows)} that can be judged"
    numbers = []
    for metric, name in (("reference_auroc", "at home"), ("own_auroc", "of the model's own direction")):
        there = table[(table["metric"] == metric) & (table["site"] == low["site"])]
        there = there[there["layer"].isna() if missing(low["layer"]) else there["layer"] == low["layer"]]
        numbers += [Number(name, row["estimate"]) for row in records(there)]
    p = p_of(low)
    test = replace(p, p=min(1.0, p.p * len(rows)), looks=len(rows)) if p else None
    more = {"numbers": tuple(numbers), "space": None, "method": None, "why": why, "test": test}
    return [Finding.of(low, TRANSFERS, verdict, **more)]


MEASURES = (
    # metric, space, what the panel is called, the value that means "no difference"
    ("logit_difference", None, "change of the lead (logits)", 0.0),
    ("class_difference_change", None, "change of the class difference", 0.0),
    ("transfer_auroc", None, "AUROC of the reference's direction", 0.5),
    ("direction_cosine_ratio", None, "direction cosine / its ceiling", 1.0),
    ("cka_debiased", "zscored", "debiased CKA", 1.0),
    ("rsa_spearman", None, "RSA", 1.0),
    ("procrustes_r2", None, "held-out Procrustes R²", 1.0),
    ("effective_rank_difference", None, "difference of effective rank", 0.0),
    ("lens_kl", None, "KL between lenses (nats)", 0.0),
)


def draw(result: "AnalysisResult") -> Any:
    """A small panel for each measure: every model against its reference, by layer.

    Probe transfer is drawn only where it can be judged.
    """
    from ..result.charts import Reference, layer_curves

    table = against(result.table)
    table = pd.concat([table[table["metric"] != "transfer_auroc"], judged(table)], ignore_index=True)
    parts = [part for measure in MEASURES for part in _panels(table, *measure)]
    rows = pd.concat(parts, ignore_index=True) if parts else table.iloc[:0].assign(panel="")
    none = rows.drop_duplicates("panel")[["panel", "same"]].rename(columns={"same": "value"})
    inside = rows[rows["site"] != "lens"]["site"].nunique()
    pairs = ", ".join(
        f"{m} against {r}" for m, r in rows.groupby("model", sort=False)["reference"].first().items()
    )
    tested = (rows["metric"] == "class_difference_change").any()
    return layer_curves(
        rows,
        y_title="",
        facet="panel",
        names=result.provenance.get("models"),
        dash="site" if inside > 1 else None,
        references=[Reference(none)],
        found="found" if tested else None,
        found_text=f"change of the class difference, family-wise p ≤ {ALPHA:g}; nothing else here is tested",
        shared_y=False,
        title="Models against their reference, on the same prompts",
        subtitle=f"{pairs}. Dashed: no difference, or chance.",
    )


def _panels(
    table: pd.DataFrame, metric: str, space: str | None, title: str, same: float
) -> list[pd.DataFrame]:
    """The rows of one measure, a panel for each kind of prompts."""
    rows = table[(table["metric"] == metric) & table["estimate"].notna() & ~is_contrast(table)]
    if space is not None and "space" in rows and (rows["space"] == space).any():
        rows = rows[rows["space"] == space]
    drawn = []
    for subset in dict.fromkeys(column(rows, "subset")):
        chosen = rows[rows["subset"] == subset] if isinstance(subset, str) else rows
        where = f", {subset_words(subset)}" if on_prompts(subset if isinstance(subset, str) else None) else ""
        reads = column(chosen, "p_familywise").astype(float) <= ALPHA
        more: dict[str, Any] = {
            "panel": f"{title}{where}",
            "same": same,
            "found": reads & (metric == "class_difference_change"),
        }
        if metric == "class_difference_change":  # the null is of plain lengths, the estimate cross-fitted
            chosen = chosen.drop(columns=[n for n in chosen if str(n).startswith("null_")])
        drawn.append(chosen.assign(**more))
    return drawn
