"""At a glance: one row per model, one column per question, every cell with its number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...analyses.lens.contrasts import in_one_order, is_contrast, records
from ...analyses.result.words import on_prompts, sentence
from .collect import (
    ALL,
    Entry,
    joined,
    missing,
    number,
    ordered,
    place,
    same_question,
    where_words,
    with_interval,
    words,
)
from .parts import table
from .section_probes import above_chance, headline_metric, per_layer, tested
from .section_separation import LEADING_SPACE, SMALL_IS_SEPARATE, with_z


def at_a_glance(entries: Sequence[Entry], names: Sequence[str]) -> dict[str, Any] | None:
    """The table at the top of the report; None where there is nothing of one model to put into it."""
    columns: list[tuple[str, dict[str, str]]] = []
    for kind, make in GLANCED.items():
        for group in same_question(e for e in entries if e.kind == kind).values():
            columns += make(group)
    columns = columns[:8]
    models = [n for n in names if any(n in cells for _, cells in columns)]
    if not models:
        return None
    body = [[m, *(cells.get(m, "–") for _, cells in columns)] for m in models]
    filters = {where_words(e.options) for e in entries if e.kind in GLANCED}
    caption = "Estimates with 95 % intervals; chance is family-wise over all layers"
    caption += f"; prompts with {filters.pop()}" if len(filters) == 1 and all(filters) else ""
    return table(["model", *(title for title, _ in columns)], body, caption=caption)


def _suppression(group: list[Entry]) -> list[tuple[str, dict[str, str]]]:
    rows = joined(group)
    index = rows[rows["metric"] == "suppression_index"]
    columns = []
    for subset, here in [*differenced(index), *_plain(index)]:
        title = "suppression index" + ("" if subset == ALL else subset.replace(" on ", ", ", 1))
        columns.append((title, {r["model"]: with_interval(r, 2) for r in here}))
    return columns


def _plain(index: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each kind of prompts with its rows."""
    own = index[~is_contrast(index)].drop_duplicates(["model", "subset"])
    return [
        (ALL if subset == ALL else on_prompts(str(subset)), records(here))
        for subset, here in own.groupby("subset", sort=False)
    ]


def differenced(index: pd.DataFrame) -> list[tuple[str, list[dict[str, Any]]]]:
    """The one difference between two kinds of prompts, turned so that the largest is positive."""
    gaps = in_one_order(records(index[is_contrast(index)]))
    if len({(gap["subset"], gap["minus"]) for gap in gaps}) != 1:
        return []
    return [(on_prompts(gaps[0]["subset"], gaps[0]["minus"]), gaps)]


def difference_sentence(entries: Sequence[Entry]) -> list[str]:
    """The index of one kind of prompts minus the other's, all models in one sentence."""
    sentences = []
    for group in same_question(e for e in entries if e.kind == "suppression").values():
        rows = joined(group)
        for subset, here in differenced(rows[rows["metric"] == "suppression_index"]):
            each = "; ".join(f"{r['model']} {with_interval(r, 2)}" for r in here)
            sentences.append(f"Suppression index{subset}: {each}.")
    return sentences


def _probe(group: list[Entry]) -> list[tuple[str, dict[str, str]]]:
    rows, options = joined(group), group[0].options
    metric = headline_metric(rows)
    cells = {}
    for model in ordered(rows["model"]):
        mine = rows[rows["model"] == model]
        curve = per_layer(mine, metric)
        found = f"above chance in {above_chance(curve)}" if tested(curve) else "not tested against chance"
        best = [r for e in group for r in _best_layer(e) if r["model"] == model and r["metric"] == metric]
        chosen = ", ".join(f"{with_interval(b)} at {place(b)}" for b in best[:3])  # one per site
        cells[model] = f"{chosen}, {found}" if best else found
    how = f", {words(str(options['method']))}" if options.get("method") else ""  # where not the default
    return [(f"probe for “{options.get('label', 'label')}” ({words(metric)}{how})", cells)]


def probe_sentence(group: list[Entry]) -> str:
    """What one label's probes found, all models in one sentence."""
    ((title, cells),) = _probe(group)
    base = joined(group)
    words_alone = base["baseline_text"].dropna() if "baseline_text" in base else pd.Series(dtype=float)
    beside = f"; bag of words alone {number(words_alone.iloc[0])}" if len(words_alone) else ""
    fitted = {"contrast_probe": "Contrast", "token_probe": "Token"}.get(str(group[0].options.get("kind")))
    return (
        f"{fitted or 'Linear'} {title}: "
        + "; ".join(f"{m} {cell}" for m, cell in cells.items())
        + beside
        + "."
    )


def nested_sentence(group: list[Entry]) -> str:
    """What nested cross-validation gives, all models in one sentence; the range, for no layer is chosen."""
    rows = joined(group)
    metric = headline_metric(rows)
    told = []
    for model in ordered(rows["model"]):
        mine = per_layer(rows[rows["model"] == model], metric).sort_values("estimate")
        ends = [f"{with_interval(r)} at {place(r)}" for r in mine.to_dict("records")]
        if len(ends) > 1:
            told.append(f"{model} from {ends[0]} to {ends[-1]}")
        elif ends:
            told.append(f"{model} {ends[0]}")
    label = group[0].options.get("label", "label")
    return f"Cross-validated {words(metric)} of a probe for “{label}”: " + "; ".join(told) + "."


def separation_sentence(group: list[Entry]) -> str:
    """How far apart one label's classes lie, all models in one sentence."""
    ((title, cells),) = _separation(group)
    return f"{title[0].upper()}{title[1:]}: " + "; ".join(f"{m} {cell}" for m, cell in cells.items()) + "."


def _best_layer(entry: Entry) -> list[dict[str, Any]]:
    """The layer that the analysis chose on data that does not score it."""
    frame = entry.result.frames.get("best_layer")
    return [] if frame is None else [{str(k): v for k, v in r.items()} for r in frame.to_dict("records")]


def _separation(group: list[Entry]) -> list[tuple[str, dict[str, str]]]:
    rows = with_z(joined(group))
    if "space" in rows and (rows["space"] == LEADING_SPACE).any():
        rows = rows[rows["space"] == LEADING_SPACE]
    rows = rows[rows["layer"].notna()] if rows["layer"].notna().any() else rows
    metric = "silhouette" if (rows["metric"] == "silhouette").any() else ordered(rows["metric"])[0]
    rows = rows[rows["metric"] == metric]
    cells = {}
    for model in ordered(rows["model"]):
        mine = rows[rows["model"] == model].sort_values("layer")
        last = mine.iloc[-1].to_dict()
        where = place(last) if missing(last["layer"]) else f"layer {last['layer']}"
        cells[model] = (
            f"{with_interval(last)} at {where} (z {number(last['z'], 1)} against chance), "
            f"beyond chance in {above_chance(mine)}"
        )
    turned = ", smaller is more separated" if metric in SMALL_IS_SEPARATE else ""
    label = group[0].options.get("label", "label")
    return [(f"separation of “{label}” ({words(metric)}{turned})", cells)]


def headline(entries: Sequence[Entry]) -> list[str]:
    """What the suppression analyses concluded of each kind of prompts."""
    told = [finding for e in entries if e.kind == "suppression" for finding in e.result.findings]
    return [sentence(finding) for finding in told if finding.minus is None]


GLANCED = {"suppression": _suppression, "linear_probe": _probe, "separation": _separation}
