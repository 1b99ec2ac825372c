"""What a probe found: is the label read where other data said to look, and beyond what the prompts tell."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.findings import Claim, Finding, Number, Verdict, decide, found_layers, p_of
from ..result.records import clear, column, rows_like
from ..result.words import layer_ranges, listed, missing, place, unit_of
from ..statistics.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

Row = dict[Any, Any]

READABLE = Claim(
    "readable",
    found="can be read above chance",
    not_found="no evidence that it can be read",
    undecided="not clearly read",
)
BASELINES = {"text": "bag of words", "length": "prompt length", "majority": "majority class"}
"""What is known without the model's activations, by the names in tables."""
SAID = {"text": "a bag of words", "length": "prompt length"}
BEYOND = {
    name: Claim(
        f"beyond_{name}",
        found=f"more can be read than {said} tells",
        not_found=f"no evidence of more than {said} tells",
    )
    for name, said in SAID.items()
}
QUESTION = ("model", "subset", "target")
"""What tells the questions of one result apart; each has one leading finding."""


def found(result: "AnalysisResult", claim: Claim = READABLE) -> list[Finding]:
    """Per model, label and site: the place chosen on training groups, and its lead over the baselines.

    The site that did best on training groups leads.
    """
    best = result.frames["best_layer"]
    leads = leading(best)
    out = []
    for index, one in best.iterrows():
        row = one.to_dict()
        main = _readable(result.table, row, claim)
        beyond = list(_beyond(result.frames.get("against_baselines"), row))
        alike = [str(lead.reference) for lead in beyond if lead.verdict == "not_found"]
        if alike and main.verdict in ("found", "not_tested"):
            said = f"What is read may be no more than {' or '.join(alike)} tells."
            main = replace(main, caveats=(said, *main.caveats))
        if main.verdict != "found":
            beyond = []  # what reads nothing cannot read more than something
        out += [replace(main, lead=index in leads), *beyond]
    return out


def leading(best: pd.DataFrame) -> set[Any]:
    """Of each question the index of the place that did best on training groups, else of the first."""
    out = set()
    for _, mine in best.groupby([name for name in QUESTION if name in best], sort=False, dropna=False):
        inner = column(mine, "inner_estimate").astype(float)
        lower = mine["metric"].iloc[0] in LOWER_IS_BETTER
        out.add(mine.index[0] if inner.isna().all() else inner.idxmin() if lower else inner.idxmax())
    return out


def _readable(table: pd.DataFrame, best: Row, claim: Claim) -> Finding:
    """Whether the label is read at the place that training groups chose for one site."""
    family = rows_like(table, best, "model", "subset")
    rows = rows_like(family, best, "target", "site", "metric")
    here = rows_like(rows, best, "layer", "head")
    row = here.iloc[0].to_dict() if len(here) else best
    looks = int(family["p_familywise"].notna().sum()) if "p_familywise" in family else None
    test = p_of(row, looks=looks) if "p_familywise" in row else None
    verdict: Verdict = decide(test)
    others = rows[clear(rows)]
    more: dict[str, Any] = {}
    if verdict == "not_found" and len(others):
        verdict = "undecided"
        more["why"] = f"above chance only elsewhere: {_places(others)}"
    return Finding.of(
        row,
        claim,
        verdict,
        test=test,
        layers=found_layers(rows),
        looked=rows["layer"].nunique() if "layer" in rows else 0,
        numbers=tuple(baseline_numbers(row)),
        caveats=tuple(_unfinished(rows)),
        **more,
    )


def _places(rows: pd.DataFrame) -> str:
    if "head" not in rows or rows["head"].isna().all():
        layers = rows["layer"].dropna().astype(int)
        return f"layer{'s' if len(layers) > 1 else ''} {layer_ranges(layers)}"
    shown = [place(row) for row in rows.head(4).to_dict("records")]
    return listed([*shown, f"{len(rows) - 4} more"] if len(rows) > 4 else shown)


def baseline_numbers(row: Row) -> Iterator[Number]:
    """What the prompts alone score on the same rows; not class frequencies where they are chance."""
    metric = str(row["metric"])
    for name, title in BASELINES.items():
        value: Any = row.get(f"baseline_{name}")
        if not missing(value) and not (name == "majority" and metric in CHANCE):
            yield Number(name=title, value=float(value), unit=unit_of(metric))


CHANCE = {"auroc": 0.5, "r2": 0.0, "pearson": 0.0, "spearman": 0.0, "kendall": 0.0, "selectivity": 0.0}
"""Metric → its value where nothing is read, whatever the classes."""


def _unfinished(rows: pd.DataFrame) -> Iterator[str]:
    if "converged" not in rows:
        return
    failed = int((~rows["converged"].fillna(True).astype(bool)).sum())
    if failed:
        probes = "probe" if len(rows) == 1 else "probes"
        yield (
            f"{failed} of {len(rows)} {probes} had not converged when their iterations ran out: their scores "
            "are lower bounds on what a probe finds."
        )


def _beyond(leads: pd.DataFrame | None, best: Row) -> Iterator[Finding]:
    """Per baseline whether the probe reads more, by the interval of the paired difference."""
    if leads is None:
        return
    mine = rows_like(leads, best, *QUESTION, "site", "layer", "head")
    for row in mine[mine["reference"].isin(list(BEYOND))].to_dict("records"):
        if missing(row.get("lo")):
            continue
        name = str(row["reference"])
        verdict: Verdict = "found" if row["lo"] > 0 else "not_found"
        if best["metric"] in LOWER_IS_BETTER:  # the table's leads are positive where the probe is better
            row |= {"estimate": -row["estimate"], "lo": -row["hi"], "hi": -row["lo"]}
        yield Finding.of(row, BEYOND[name], verdict, reference=SAID[name], test=None)
