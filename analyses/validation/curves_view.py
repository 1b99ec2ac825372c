"""How much data a probe needs, in findings and as a picture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..probes.readable import CHANCE, baseline_numbers
from ..result.findings import Claim, Finding, Number
from ..result.records import column, extreme, rows_like
from ..result.words import number, title_of, unit_of
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
    best = extreme(rows, "estimate", least=True)
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
    """Held-out score against training rows: a panel per site (and model), a shade per layer.

    For sites read by heads a map of layer × head at each share of the data.
    """
    from ..result.charts import layer_curves, layer_map, stacked

    curve = result.table[result.table["metric"] != "codelength"]
    by_head, layered = column(curve, "head").notna(), column(curve, "layer").notna()
    metric = str(curve["metric"].iloc[0])
    title = f"“{curve['target'].iloc[0]}”: learning curve on held-out groups"
    charts: list[Any] = []
    for rows, colour in ((curve[~by_head & layered], "layer"), (curve[~by_head & ~layered], "site")):
        if not len(rows):
            continue
        rows, spread = _intervals(_panels(rows, by_site=colour == "layer"))
        charts.append(
            layer_curves(
                rows,
                x="n_train",
                x_title="training rows",
                y_title=title_of(metric),
                colour=colour,
                facet="panel" if rows["panel"].nunique() > 1 else None,
                bands=rows[colour].nunique() <= FEW,
                interval_text=spread,
                log_x=True,
                title=title if not charts else None,
            )
        )
    if by_head.any():
        maps = _panels(curve[by_head], by_site=True)
        maps["panel"] += ", " + maps["share"].map(lambda share: number(share, "share")) + " of the data"
        charts.append(
            layer_map(
                maps.assign(head=maps["head"].astype(int)),
                x="head",
                y="layer",
                value_title=title_of(metric),
                facet="panel",
                diverging=metric in CHANCE,
                centre=CHANCE.get(metric, 0.0),
                title=f"{title}, by head",
            )
        )
    return stacked(charts)


FEW = 4
"""As many curves in a panel are drawn with their intervals."""


def _panels(rows: pd.DataFrame, *, by_site: bool) -> pd.DataFrame:
    """Adds `panel`, named after what differs."""
    parts = [rows[name].astype(str) for name in ("model", "site") if name in rows]
    parts = [part for part in parts if part.nunique() > 1 and (by_site or part.name != "site")]
    panel = parts[0] if parts else rows["site"].astype(str) if by_site else pd.Series("", index=rows.index)
    for part in parts[1:]:
        panel = panel + " · " + part
    return rows.assign(panel=panel)


def _intervals(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Rows with `lo` and `hi`; where there is no interval, the spread over draws stands in and is named."""
    if ("lo" in rows and rows["lo"].notna().any()) or "sd" not in rows:
        return rows, "95 % interval"
    low, high = rows["estimate"] - rows["sd"], rows["estimate"] + rows["sd"]
    return rows.assign(lo=low, hi=high), "± standard deviation over draws of the training rows"
