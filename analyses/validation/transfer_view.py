"""Whether probes travel from one dataset to another, in findings and as a picture."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..probes.readable import CHANCE
from ..result.findings import Claim, Finding, Number, Verdict
from ..result.records import column, rows_like
from ..result.words import place, title_of, unit_of

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

TRAVELS = Claim(
    "travels",
    found="a probe holds on every other dataset",
    not_found="no evidence that a probe holds on another dataset",
    undecided="a probe holds on some of the other datasets",
    not_tested="no probe could be scored on a dataset other than its own",
)


def found(result: "AnalysisResult") -> list[Finding]:
    """One finding per model and site: the worst pair of datasets, at the place that is best at home.

    A place chosen by home scores leaves scores elsewhere unchosen. That all intervals lie above chance needs
    no correction for the number of pairs.
    """
    table = result.table.assign(model=column(result.table, "model"))
    out = []
    for _, mine in table.groupby("model", sort=False, dropna=False):
        lead = _home(mine)
        for site, rows in mine.groupby("site", sort=False):
            out.append(_worst(at_home(rows), lead=lead is not None and lead["site"] == site))
    return out


def _home(rows: pd.DataFrame) -> pd.Series | None:
    """Where the mean score on the datasets' own held-out rows is highest; None without any."""
    own = rows[(rows["train_on"] == rows["test_on"]) & rows["estimate"].notna()]
    if not len(own):
        return None
    where = pd.DataFrame({"site": own["site"], "layer": column(own, "layer"), "head": column(own, "head")})
    mean = own["estimate"].groupby([where[name] for name in where], sort=False, dropna=False).mean()
    return mean.reset_index().sort_values("estimate", kind="stable", ascending=False).iloc[0]


def at_home(rows: pd.DataFrame) -> pd.DataFrame:
    """The matrix at the place that is best at home; where nothing was scored, at the first."""
    best = _home(rows)
    one = rows.iloc[0] if best is None else best
    return rows_like(rows, one.to_dict(), "site", "layer", "head")


def above_chance(rows: pd.DataFrame) -> pd.Series:
    """[rows] whether the interval lies above chance."""
    chance = rows["metric"].map(CHANCE).astype(float).fillna(0.0)
    return (column(rows, "lo").astype(float) > chance).fillna(False).astype(bool)


def _worst(here: pd.DataFrame, *, lead: bool) -> Finding:
    away = here[here["train_on"] != here["test_on"]].dropna(subset="estimate")
    if not len(away):
        row = here.iloc[0].to_dict() | {"estimate": None, "lo": None, "hi": None, "note": None}
        return Finding.of(row, TRAVELS, "not_tested", test=None, n=None, n_groups=None, lead=lead)
    row = away.sort_values("estimate", kind="stable").iloc[0].to_dict()
    above = int(above_chance(away).sum())
    verdict: Verdict = "found" if above == len(away) else "undecided" if above else "not_found"
    unit = unit_of(str(row["metric"]))
    own = here[here["train_on"] == here["test_on"]]["estimate"].mean()
    numbers = [Number(name="mean elsewhere", value=float(away["estimate"].mean()), unit=unit)]
    if pd.notna(own):
        numbers.insert(
            0, Number(name="mean at home, by which the place was chosen", value=float(own), unit=unit)
        )
    pairs = f"The lowest of {len(away)} pairs: " if len(away) > 1 else "The pair: "
    caveats = [f"{pairs}fitted on “{row['train_on']}”, scored on “{row['test_on']}”."]
    if row.get("hi") is not None and row["hi"] < CHANCE.get(str(row["metric"]), 0.0):
        caveats.append("Its scores lie below chance: the direction is reversed.")
    why = f"{above} of {len(away)} pairs of datasets have an interval above chance"
    more = {"why": why} if verdict == "undecided" else {}
    return Finding.of(
        row,
        TRAVELS,
        verdict,
        test=None,
        dataset=row["test_on"],
        numbers=tuple(numbers),
        caveats=tuple(caveats),
        lead=lead,
        **more,
    )


def draw(result: "AnalysisResult") -> Any:
    """For every model and site the matrix of datasets at the place that is best at home."""
    from ..result.charts import matrix

    table = result.table.assign(model=column(result.table, "model"))
    several = table["model"].nunique() > 1
    parts = []
    for (model, _), rows in table.groupby(["model", "site"], sort=False, dropna=False):
        here = at_home(rows)
        where = place(here.iloc[0])
        parts.append(here.assign(panel=f"{model} · {where}" if several else where, above=above_chance(here)))
    shown = pd.concat(parts, ignore_index=True)
    metric = str(shown["metric"].iloc[0])
    return matrix(
        shown,
        x="test_on",
        y="train_on",
        x_title="scored on",
        y_title="fitted on",
        value_title=title_of(metric),
        facet="panel",
        found="above",
        found_text="95 % interval above chance",
        diverging=metric in CHANCE,
        centre=CHANCE.get(metric, 0.0),
        title=f"“{shown['target'].iloc[0]}”: probes from one dataset to another",
        subtitle=f"{title_of(metric)} at the layer that is best on the datasets' own held-out rows.",
    )
