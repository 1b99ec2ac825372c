"""How much data a probe needs, in findings and as a picture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from ..probes.findings import CHANCE, baseline_numbers
from ..probes.picture import head_maps, stacked
from ..result.findings import Claim, Finding, Number
from ..result.rows import column, rows_like
from ..result.words import listed, number, title_of, unit_of
from ..statistics.quantities import quantity

if TYPE_CHECKING:
    from altair import Chart

    from ..result.analysis import AnalysisResult

LEARNT = Claim("learnt", found="above chance", not_found="no evidence that it can be read")
TRANSMITTED = Claim("transmitted", found="shorter", not_found="no shorter")


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model the score with the most and the least data, and the codelength; nothing is tested."""
    table = result.table.assign(model=column(result.table, "model"))
    out = []
    for _, rows in table.groupby("model", sort=False, dropna=False):
        out += [*_score(rows[rows["metric"] != "codelength"]), *_code(rows[rows["metric"] == "codelength"])]
    return out


def _score(curve: pd.DataFrame) -> Iterator[Finding]:
    full = curve[curve["share"] == curve["share"].max()].dropna(subset="estimate")
    if not len(full):
        return
    metric = str(full["metric"].iloc[0])
    best = (
        full.sort_values("estimate", ascending=quantity(metric).direction == "lower", kind="stable")
        .iloc[0]
        .to_dict()
    )
    least = rows_like(curve, best, "site", "layer", "head").sort_values("share").iloc[0]
    numbers = list(baseline_numbers(best))
    if least["share"] < best["share"]:
        lo, hi = (None if pd.isna(least.get(end)) else float(least[end]) for end in ("lo", "hi"))
        few = f"with {least['n_train']:.0f} instead of {best['n_train']:.0f} training rows"
        numbers.insert(
            0, Number(name=few, value=float(least["estimate"]), lo=lo, hi=hi, unit=unit_of(metric))
        )
    why = f"the best of {len(full)} places on these rows" if len(full) > 1 else "linear_probe does that"
    yield Finding.of(
        best, LEARNT, "not_tested", test=None, looked=len(full), numbers=tuple(numbers), why=why, lead=True
    )


def _code(rows: pd.DataFrame) -> Iterator[Finding]:
    if not len(rows):
        return
    best = rows.loc[rows["estimate"].idxmin()].to_dict()
    names = {"majority": "class frequencies alone", "text": "bag of words", "length": "prompt length"}
    numbers = [
        Number(name=said, value=float(best[f"baseline_{name}"]), unit="bits")
        for name, said in names.items()
        if pd.notna(best.get(f"baseline_{name}"))
    ]
    numbers.append(Number(name="compression", value=float(best["compression"])))
    why = f"the shortest of {len(rows)} places" if len(rows) > 1 else "a length in bits"
    yield Finding.of(
        best, TRANSMITTED, "not_tested", test=None, looked=len(rows), numbers=tuple(numbers), why=why
    )


def draw(result: "AnalysisResult") -> "Chart":
    """Held-out score against training rows, a panel for each model and site and a colour for each layer.

    For sites read by heads a map of layer × head at each share of the data.
    """
    from ..result.charts import Reference, layer_curves

    rows = result.table[result.table["metric"] != "codelength"]
    rows = rows[rows["estimate"].notna()]
    metric = str(rows["metric"].iloc[0])
    title = f"“{rows['target'].iloc[0]}”: learning curve on held-out groups"
    by_head = column(rows, "head").notna()
    charts = []
    for layered, mine in _shapes(rows[~by_head]):
        mine = _by_site(mine)
        bare = "" if layered else f" ({listed(mine['site'].unique())})"
        charts.append(
            layer_curves(
                mine,
                x="n_train",
                x_title="training rows",
                y_title=title_of(metric),
                colour="layer" if layered else "site",
                facet="panel" if mine["panel"].nunique() > 1 else None,
                references=[Reference(CHANCE[metric], label="chance")] if metric in CHANCE else [],
                log_x=True,
                title=title + bare,
            )
        )
    if by_head.any():
        mine = rows[by_head]
        mine = mine.assign(subset=[f"{number(share, 'share')} of the data" for share in mine["share"]])
        charts.append(head_maps(mine, title))
    return stacked(charts)


def _shapes(rows: pd.DataFrame) -> Iterator[tuple[bool, pd.DataFrame]]:
    """Sites with layers, then those without."""
    layered = column(rows, "layer").notna()
    for flag, mine in ((True, rows[layered]), (False, rows[~layered])):
        if len(mine):
            yield flag, mine


def _by_site(rows: pd.DataFrame) -> pd.DataFrame:
    """`panel` by model and site, whichever of them differ."""
    names = [
        column(rows, name).astype(str)
        for name in ("model", "site")
        if column(rows, name).nunique() > 1 and (name == "model" or column(rows, "layer").notna().any())
    ]
    panel = names[0] if names else pd.Series("", index=rows.index)
    for name in names[1:]:
        panel = panel + " · " + name
    rows = rows.assign(panel=panel)
    if "layer" in rows and rows["layer"].notna().any():
        rows["layer"] = rows["layer"].astype(int)
    return rows
