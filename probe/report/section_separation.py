"""Cluster separation: each index as its distance from the permutation null, the raw values in the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .collect import Entry, joined, number, ordered, place, same_question, where_words, with_interval, words
from .parts import figure, section, table
from .plots import curve, level, panels, style_of

SMALL_IS_SEPARATE = {"davies_bouldin", "xie_beni"}
ORDER = ("silhouette", "calinski_harabasz", "dunn", "davies_bouldin", "xie_beni")
LEADING_SPACE = "zscored"


def separation_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per label whose classes were measured."""
    return [_section(group, names) for group in same_question(entries).values()]


def _section(entries: list[Entry], names: Sequence[str]) -> dict[str, Any]:
    rows = with_z(joined(entries))
    label, where = entries[0].options.get("label", "label"), where_words(entries[0].options)
    spaces = ordered(rows["space"]) if "space" in rows else []
    space = LEADING_SPACE if LEADING_SPACE in spaces else (spaces or [""])[0]
    shown = rows[rows["space"] == space] if space else rows
    shown = shown[shown["metric"].isin(ORDER)]
    layered = shown[shown["layer"].notna()]
    models = [n for n in names if (shown["model"] == n).any()] or ordered(shown["model"])
    parts: dict[str, Any] = {
        "sentences": [s for e in entries for s in e.sentences()],
        "lead": f"How far apart the classes of “{label}” lie"
        + (f", on prompts with {where}" if where else "")
        + ", in standard deviations of the permutation null, so that layers and indices compare. "
        "Up is always more separated.",
    }
    if len(layered):
        parts["figures"] = [_figure(layered, models, label, where, str(space))]
    if len(shown):
        parts["tables"] = [_table(rows, models, label)]
    return section(f"Do the classes of “{label}” form clusters?", **parts)


def with_z(rows: pd.DataFrame) -> pd.DataFrame:
    """A column z: distance from the null in its standard deviations, up meaning more separated."""
    if "z" in rows:
        return rows
    distance = (rows["estimate"] - rows.get("null_mean", float("nan"))) / rows.get("null_sd", float("nan"))
    sign = rows["metric"].map(lambda m: -1.0 if m in SMALL_IS_SEPARATE else 1.0)
    return rows.assign(z=distance * sign)


def _figure(rows: pd.DataFrame, models: Sequence[str], label: str, where: str, space: str) -> dict[str, Any]:
    metrics = [m for m in ORDER if (rows["metric"] == m).any()]
    columns = min(3, len(metrics))
    fig = panels(
        -(-len(metrics) // columns),
        columns,
        titles=[words(m) for m in metrics],
        y_title="z against the null",
        shared_y=False,
    )
    sites = ordered(rows["site"])
    for i, metric in enumerate(metrics):
        at = (i // columns + 1, i % columns + 1)
        level(fig, 0.0, label="null", at=at, left=True)
        for model in models:
            for site in sites:
                mine = rows[(rows["metric"] == metric) & (rows["model"] == model) & (rows["site"] == site)]
                mine = mine.drop_duplicates("layer").sort_values("layer")
                if not len(mine):
                    continue
                flags = (mine["p_familywise"] < 0.05).tolist() if "p_familywise" in mine else None
                line = mine[["layer"]].assign(estimate=mine["z"])
                name = model if len(sites) == 1 else f"{model}, {site}"
                curve(
                    fig,
                    line,
                    name=name,
                    style=style_of(model, models),
                    at=at,
                    legend=i == 0,
                    digits=1,
                    filled=flags,
                )
    highest = rows.loc[rows.groupby("model")["z"].idxmax()] if rows["z"].notna().any() else rows.iloc[:0]
    alt = " ".join(
        f"{r['model']}: largest z {number(r['z'], 1)} ({words(r['metric'])}, layer {r['layer']})."
        for r in highest.to_dict("records")
    )
    caption = (
        f"Separation of “{label}” by layer in {words(space)} space, as z against the permutation null"
        + (" (filled markers: family-wise p < 0.05)" if "p_familywise" in rows else "")
        + ". Davies-Bouldin and Xie-Beni are turned over: in the table, smaller is more separated for them."
    )
    return figure(fig, name=f"separation {label} {where} {space}", caption=caption, alt=alt)


def _table(rows: pd.DataFrame, models: Sequence[str], label: str) -> dict[str, Any]:
    keys = [k for k in ("space", "metric", "site", "layer") if k in rows]
    body = []
    for key, here in rows.groupby(keys, sort=False, dropna=False):
        named = dict(zip(keys, key, strict=True))
        cells = [
            place(named),
            words(str(named["metric"])),
            words(str(named.get("space", ""))),
        ]
        for model in models:
            mine = here[here["model"] == model].to_dict("records")
            cells += [with_interval(mine[0]), number(mine[0]["z"], 1)] if mine else ["–", "–"]
        body.append(cells)
    columns = ["layer", "index", "space"] + [c for m in models for c in (f"{m} [95 % interval]", f"{m}: z")]
    return table(columns, body, caption=f"Separation of “{label}”: every index, space and layer", folded=True)
