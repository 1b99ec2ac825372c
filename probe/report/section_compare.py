"""Models against each other: one small panel per measure, over layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..plots import curve, panels, style_of
from .collect import Entry, joined, number, ordered, same_question, where_words, with_interval, words
from .parts import figure, section, table


def compare_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per comparison."""
    return [_section(group, names) for group in same_question(entries).values()]


def _section(entries: list[Entry], names: Sequence[str]) -> dict[str, Any]:
    rows = joined(entries)
    where = where_words(entries[0].options)
    if "reference" not in rows:
        rows["reference"] = names[0] if names else "reference"
    reference = ordered(rows["reference"])[0] if len(ordered(rows["reference"])) else "the reference"
    rows["pair"] = [
        f"{m} − {r}" if isinstance(r, str) and r == r else str(m)
        for m, r in zip(rows["model"], rows["reference"], strict=True)
    ]
    if rows["subset"].nunique() > 1:
        rows["pair"] = rows["pair"] + ", " + rows["subset"].astype(str)
    layered = rows[rows["layer"].notna()]
    metrics = [
        m for m in ordered(layered["metric"]) if layered[layered["metric"] == m]["layer"].nunique() > 1
    ]
    figures = [_figure(layered, metrics[i : i + 6], names, where, i // 6) for i in range(0, len(metrics), 6)]
    whole = rows[~rows["metric"].isin(metrics)]
    tables = [t for t in (_whole_table(whole), _layer_table(layered, metrics)) if t]
    return section(
        f"What differs from {reference}?",
        lead="The same prompts through each model, layer by layer; differences are paired over prompts"
        + (f"; prompts with {where}" if where else "")
        + ".",
        sentences=[s for e in entries for s in e.sentences()],
        figures=figures,
        tables=tables,
    )


def _figure(
    rows: pd.DataFrame, metrics: Sequence[str], names: Sequence[str], where: str, part: int
) -> dict[str, Any]:
    columns = min(3, len(metrics))
    fig = panels(-(-len(metrics) // columns), columns, titles=[words(m) for m in metrics], shared_y=False)
    pairs = ordered(rows["pair"])
    shown: set[str] = set()
    for i, metric in enumerate(metrics):
        for pair in pairs:
            mine = rows[(rows["metric"] == metric) & (rows["pair"] == pair)].drop_duplicates("layer")
            if len(mine):
                at = (i // columns + 1, i % columns + 1)
                curve(fig, mine, name=pair, style=style_of(pair, pairs), at=at, legend=pair not in shown)
                shown.add(pair)
    last = rows[(rows["layer"] == rows["layer"].max()) & rows["metric"].isin(metrics)]
    alt = "At the last layer: " + "; ".join(
        f"{r['pair']} {words(r['metric'])} {number(r['estimate'])}" for r in last.to_dict("records")[:12]
    )
    caption = "Comparison by layer with 95 % intervals where they can be estimated."
    return figure(fig, name=f"compare {where} {part} {'-'.join(metrics[:2])}", caption=caption, alt=alt + ".")


def _whole_table(rows: pd.DataFrame) -> dict[str, Any] | None:
    if not len(rows):
        return None
    body = [[r["pair"], words(r["metric"]), with_interval(r)] for r in rows.to_dict("records")]
    return table(
        ["models", "measure", "estimate [95 % interval]"],
        body,
        caption="Over all layers",
        folded=len(body) > 12,
    )


def _layer_table(rows: pd.DataFrame, metrics: Sequence[str]) -> dict[str, Any] | None:
    if not metrics:
        return None
    pairs = ordered(rows["pair"])
    body = []
    for (layer, metric), here in rows[rows["metric"].isin(metrics)].groupby(["layer", "metric"], sort=False):
        cells = [str(layer), words(str(metric))]
        for pair in pairs:
            mine = here[here["pair"] == pair].to_dict("records")
            cells.append(with_interval(mine[0]) if mine else "–")
        body.append(cells)
    return table(
        ["layer", "measure", *pairs], body, caption="Comparison by layer [95 % interval]", folded=True
    )
