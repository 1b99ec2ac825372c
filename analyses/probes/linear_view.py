"""A linear-probe result in words and as a picture."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from ..result.analysis import AnalysisResult
from ..result.canvas import Canvas, finite
from ..result.panels import NAMES, Panel, column, first_metric, panels_of, place_name, same_place
from ..result.words import bounds, number, p_value
from ..statistics.metrics import LOWER_IS_BETTER

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def summarise(result: AnalysisResult) -> list[str]:
    """One or two sentences per model and site, each with its numbers."""
    sentences = []
    for _, best in result.frames["best_layer"].iterrows():
        sentences.append(_best_sentence(result, best))
        sentences.extend(_baseline_sentences(result, best))
    if "converged" in result.table:
        table = result.table[result.table["metric"] == result.table["metric"].iloc[0]]
        failed = int((~table["converged"].astype(bool)).sum())
        if failed:
            sentences.append(
                f"{failed} of {_count(len(table), 'probe')} had not converged when their iterations ran out; "
                "read those rows (converged = False) as lower bounds on what a probe finds."
            )
    return sentences


def _interval(row: pd.Series) -> str:
    if pd.isna(row.get("lo")):
        why = str(row.get("note")).removeprefix("no interval: ")
        return f"{number(row['estimate'])} (no interval: {why})"
    return f"{number(row['estimate'])}{bounds(row)}"


def _best_sentence(result: AnalysisResult, best: pd.Series) -> str:
    """A finding if the chosen place is above chance, and else that none is, or which others are."""
    metric = NAMES.get(best["metric"], best["metric"])
    table = result.table[result.table["target"] == best["target"]]
    rows = table[(table["site"] == best["site"]) & (table["metric"] == best["metric"])]
    score = f"{metric} {_interval(best)} on {best['n']} rows of {best['n_groups']} held-out groups"
    model, target, place = best["model"], repr(best["target"]), place_name(best)
    if "p_familywise" not in rows or rows["p_familywise"].isna().all():
        return (
            f"{model}: at {place}, the place that did best on training groups, the probe of {target} has "
            f"{score}; not tested against chance."
        )
    clear = rows[rows["p_familywise"] <= 0.05]
    if not len(clear):
        least = rows["p_familywise"].min()
        return (
            f"{model}: no place in {best['site']} reads {target} above chance (smallest family-wise p "
            f"{p_value(least)} over {_count(len(rows), 'place')}); the one that did best on training groups, "
            f"{place}, has {score}."
        )
    found = (
        f"{len(clear)} of {_count(len(rows), 'place')} {'is' if len(clear) == 1 else 'are'} above chance "
        f"(family-wise p ≤ 0.05), the first at {place_name(clear.iloc[0])}"
    )
    if len(rows) == 1:
        found = f"above chance (p {p_value(clear.iloc[0]['p_familywise'])})"
    if same_place(clear, best).any():
        return (
            f"{model}: {target} is read at {place} (the place that did best on training groups) with "
            f"{score}; {found}."
        )
    return (
        f"{model}: {target} is not clearly read at {place}, the place that did best on training groups "
        f"({score}), though {found}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _above_chance(result: AnalysisResult, best: pd.Series, leads: pd.DataFrame) -> bool:
    """Whether the chosen place reads the label at all: by its family-wise p-value; untested, by its lead over
    the majority."""
    table = result.table
    rows = table[(table["target"] == best["target"]) & (table["metric"] == best["metric"])]
    p = column(rows[same_place(rows, best)], "p_familywise").dropna()
    if len(p):
        return bool(p.iloc[0] <= 0.05)
    majority = column(leads[leads["reference"] == "majority"], "lo").dropna()
    return bool(len(majority) and majority.iloc[0] > 0)


def _baseline_sentences(result: AnalysisResult, best: pd.Series) -> list[str]:
    """What words and length alone score, and whether a probe that reads something beats them."""
    leads = result.frames["against_baselines"]
    leads = leads[(leads["target"] == best["target"]) & (leads["site"] == best["site"])]
    reads = _above_chance(result, best, leads)
    metric = NAMES.get(best["metric"], best["metric"])
    sentences = []
    for _, lead in leads[leads["reference"] != "majority"].iterrows():
        if pd.isna(lead.get("lo")):
            continue
        name = NAMES[lead["reference"]]
        # leads are positive where the probe is better, also for metrics of which less is better
        known = best["estimate"] - (-1 if best["metric"] in LOWER_IS_BETTER else 1) * lead["estimate"]
        gap = f"difference {lead['estimate']:+.3f} [{lead['lo']:.3f}, {lead['hi']:.3f}]"
        if not reads:
            sentences.append(f"There {name} alone has {metric} {number(known)}: {gap}.")
            continue
        verdict = "beats" if lead["lo"] > 0 else "does not beat" if lead["hi"] >= 0 else "is below"
        sentence = f"There the probe {verdict} {name} alone ({metric} {number(known)}): {gap}."
        if verdict != "beats":
            sentence += f" What it reads may be no more than {name}."
        sentences.append(sentence)
    return sentences


def draw(result: AnalysisResult) -> "Figure":
    """Per label: layer curves with interval, null band and baselines; a map of layer × head for every site
    read by heads; markers for sites without layers."""
    rows = first_metric(result.table)
    targets = list(rows["target"].unique())
    grid = []
    for target in targets:
        panels = panels_of(rows[rows["target"] == target])
        if len(targets) > 1:
            panels = [replace(panel, title=f"{target}: {panel.title}") for panel in panels]
        grid.append(panels)
    shown = str(targets[0]) if len(targets) == 1 else f"{len(targets)} labels"
    if sum(len(row) for row in grid) == 1:
        shown += "" if grid[0][0].shape != "heads" else f", {grid[0][0].title}"
    canvas = Canvas(grid, f"{shown}: {rows['method'].iloc[0]} probe on held-out groups")
    for cell, panel in canvas.cells():
        _draw_panel(canvas, cell, panel)
    return canvas.finish()


def _draw_panel(canvas: Canvas, cell: tuple[int, int], panel: Panel) -> None:
    metric = str(panel.rows["metric"].iloc[0])
    label = NAMES.get(metric, metric)
    if panel.shape == "heads":
        canvas.heads(cell, panel.rows, metric, label=label)
        return
    for (model, site), curve in panel.rows.groupby(["model", "site"], sort=False):
        curve = curve.sort_values("layer") if "layer" in curve else curve
        name = f"{model} {site}"
        canvas.band(cell, curve, f"null (95 %) of {site}", colour=canvas.colour(name), group=name)
        canvas.series(cell, curve, name)
    dashes = {"baseline_majority": "dot", "baseline_text": "dash", "baseline_length": "dashdot"}
    for reference, dash in dashes.items():
        # the same for every place, since all are scored on the same held-out rows
        for level in finite(column(panel.rows, reference)):
            said = NAMES[reference.removeprefix("baseline_")]
            if metric == "auroc" and reference == "baseline_majority":
                said = "chance"
            canvas.level(cell, sorted(panel.x) if panel.shape == "layers" else panel.x, level, said, dash)
    canvas.axes(cell, "layer" if panel.shape == "layers" else None, label)
