"""Linear probes: the curve over layers with interval, chance, null band and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from .collect import (
    Entry,
    joined,
    layer_ranges,
    number,
    ordered,
    place,
    same_question,
    where_words,
    with_interval,
    words,
)
from .parts import figure, frame_table, section, table
from .plots import curve, grey_band, level, panels, restyled, style_of

HEADLINE = ("auroc", "balanced_accuracy", "accuracy", "r2", "pearson")
CHANCE = {"auroc": 0.5, "r2": 0.0, "pearson": 0.0}
BASELINES = {
    "baseline_text": ("bag of words", "dash"),
    "baseline_length": ("prompt length", "dashdot"),
    "baseline_majority": ("majority class", "longdash"),
}


def probe_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per label that was probed."""
    return [_section(group, names) for group in same_question(entries).values()]


def _section(entries: list[Entry], names: Sequence[str]) -> dict[str, Any]:
    rows = joined(entries)
    options = entries[0].options
    label, method = _label(entries), str(rows["method"].iloc[0]) if "method" in rows else "logistic"
    metric = headline_metric(rows)
    curves = per_layer(rows, metric)
    models = [n for n in names if (curves["model"] == n).any()] or ordered(curves["model"])
    where = where_words(options)
    title = PROBES.get(str(options.get("kind")), "Can a linear probe read {}?").format(f"“{label}”")
    parts: dict[str, Any] = {
        "sentences": [s for e in entries for s in e.sentences()],
    }
    layered = curves[curves["layer"].notna()]
    if len(layered):
        parts["figures"] = [_figure(layered, models, metric, label, method, where)]
    if len(curves):
        parts["tables"] = [_layer_table(curves, models, metric, label)]
    else:  # heads alone: the analysis has its own picture of them
        parts["figures"] = [_own_figure(e) for e in entries]
        parts["tables"] = [frame_table(e.result.table, caption=f"{e.name}: every row") for e in entries]
    nested = entries[0].kind == "nested_cv"
    parts["lead"] = (
        f"{'Cross-validated' if nested else 'Held-out'} {words(metric)} of a {words(method)} probe for "
        f"“{label}” at every layer"
        + (f", on prompts with {where}" if where else "")
        + (NESTED if nested else ".")
        + " A probe shows what can be read off the activations, not whether the model uses it."
    )
    return section(title, **parts)


def _own_figure(entry: Entry) -> dict[str, Any]:
    caption = f"{', '.join(entry.models)}: every head"
    return figure(restyled(entry.result.plot()), name=entry.name, caption=caption, alt=caption)


NESTED = (
    "; every group is scored, by fits that have not seen it, and the intervals hold what another sample of "
    "groups would change. No layer is chosen here and nothing is tested."
)
# where the analysis is not the plain probe
PROBES = {
    "nested_cv": "How well would a probe of {} do?",
    "contrast_probe": "Can {} be read from pairs of statements, without its labels?",
    "token_probe": "Can a probe over all tokens read {}?",
}


def _label(entries: Sequence[Entry]) -> str:
    """The one label that was probed, as the study names it."""
    label = entries[0].options.get("label", "label")
    return label if isinstance(label, str) else ", ".join(label)


def headline_metric(rows: pd.DataFrame) -> str:
    """The metric that the analysis tested; where none was, the first that is customary."""
    tested = rows[rows["p_familywise"].notna()] if "p_familywise" in rows else rows.iloc[:0]
    if len(tested):
        return str(tested["metric"].iloc[0])
    return str(next((m for m in HEADLINE if (rows["metric"] == m).any()), rows["metric"].iloc[0]))


def per_layer(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of one metric that belong to one place each: whole layers, not heads, not nested choices."""
    found = rows[rows["metric"] == metric]
    if "head" in found:
        found = found[found["head"].isna()]
    if "split" in found and found["split"].nunique() > 1:
        usual = found["split"].value_counts().index[0]
        found = found[found["split"] == usual]
    return found.drop_duplicates(["model", "subset", "site", "layer"])


def _figure(
    rows: pd.DataFrame, models: Sequence[str], metric: str, label: str, method: str, where: str
) -> dict[str, Any]:
    sites = ordered(rows["site"])
    fig = panels(1, len(sites), titles=sites if len(sites) > 1 else (), y_title=words(metric))
    for column, site in enumerate(sites, start=1):
        here = rows[rows["site"] == site]
        null_band(fig, here, (1, column), legend=column == 1)
        for model in models:
            mine = here[here["model"] == model]
            if len(mine):
                flags = (
                    (mine.sort_values("layer")["p_familywise"] < 0.05).tolist()
                    if "p_familywise" in mine
                    else None
                )
                curve(
                    fig,
                    mine,
                    name=model,
                    style=style_of(model, models),
                    at=(1, column),
                    legend=column == 1,
                    filled=flags,
                )
        reference_lines(fig, here, metric, (1, column))
    best = [_reading(rows[rows["model"] == m], m, metric) for m in models]
    caption = (
        f"{words(metric)} by layer, with 95 % intervals"
        + (". Filled markers: family-wise p < 0.05" if "p_familywise" in rows else "")
        + (". Grey band: central 95 % of the permutation null" if "null_sd" in rows else "")
        + ". Lines: chance and baselines without a model."
    )
    return figure(fig, name=f"probe {label} {method} {metric} {where}", caption=caption, alt=" ".join(best))


def null_band(fig: Any, rows: pd.DataFrame, at: tuple[int, int], *, legend: bool) -> None:
    """Where the permutation null of these rows lies."""
    if not {"null_mean", "null_sd"} <= set(rows):
        return
    band = rows.assign(
        lo=rows["null_mean"] - 1.96 * rows["null_sd"], hi=rows["null_mean"] + 1.96 * rows["null_sd"]
    )
    band = band.groupby("layer", as_index=False).agg({"lo": "min", "hi": "max"}).dropna()
    if len(band):
        grey_band(fig, band, name="permutation null", at=at, legend=legend)


def reference_lines(fig: Any, rows: pd.DataFrame, metric: str, at: tuple[int, int]) -> None:
    """Chance, and what a bag of words, the length and the majority class reach."""
    if metric in CHANCE:
        level(fig, CHANCE[metric], label="chance", at=at, left=True)
    drawn: list[tuple[float, str, str]] = []
    for column, (label, dash) in BASELINES.items():
        values = sorted(float(v) for v in rows[column].dropna().unique()) if column in rows else []
        for value in values[:1]:
            if metric in CHANCE and abs(value - CHANCE[metric]) < 1e-9:
                continue  # the line of chance already says it
            alike = [i for i, (other, _, _) in enumerate(drawn) if abs(other - value) < 0.005]
            if alike:  # two labels on one line cannot be read
                other, said, dashes = drawn[alike[0]]
                drawn[alike[0]] = (other, f"{said}, {label}", dashes)
            else:
                drawn.append((value, label, dash))
    for value, label, dash in drawn:
        level(fig, value, label=f"{label} {value:.2f}", dash=dash, at=at)


def _reading(rows: pd.DataFrame, model: str, metric: str) -> str:
    rows = rows.sort_values("layer")
    first, last = rows.iloc[0], rows.iloc[-1]
    return (
        f"{model}: {words(metric)} from {number(first['estimate'])} at layer {first['layer']} "
        f"to {number(last['estimate'])} at layer {last['layer']}."
    )


def _layer_table(rows: pd.DataFrame, models: Sequence[str], metric: str, label: str) -> dict[str, Any]:
    body = []
    with_p = tested(rows)
    for (site, layer), here in rows.groupby(["site", "layer"], sort=True, dropna=False):
        cells = [place({"site": site, "layer": layer})]
        for model in models:
            mine = here[here["model"] == model].to_dict("records")
            cells.append(with_interval(mine[0]) if mine else "–")
            if with_p:
                cells.append(number(mine[0].get("p_familywise") if mine else None))
        body.append(cells)
    of_model = (f": {words(metric)} [95 % interval]", *((": family-wise p",) if with_p else ()))
    columns = ["layer"] + [m + c for m in models for c in of_model]
    base = [
        f"{name} {number(rows[column].dropna().iloc[0])}"
        for column, (name, _) in BASELINES.items()
        if column in rows and rows[column].notna().any()
    ]
    caption = f"“{label}” by layer" + (f"; baselines: {', '.join(base)}" if base else "")
    return table(columns, body, caption=caption, folded=len(body) > 12)


def tested(rows: pd.DataFrame) -> bool:
    """Whether there is a p-value anywhere."""
    return "p_familywise" in rows and bool(rows["p_familywise"].notna().any())


def above_chance(rows: pd.DataFrame) -> str:
    """Layers whose family-wise p is below 0.05, in words that follow "above chance in"."""
    if not tested(rows):
        return "no layer, for none was tested"
    sites = ordered(rows["site"]) if "site" in rows else []
    found = []
    for site in sites:
        clear = rows[(rows["site"] == site) & (rows["p_familywise"] < 0.05)]["layer"]
        layers = clear.dropna().astype(int)
        if len(layers):
            said = f"layer{'s' if layers.nunique() > 1 else ''} {layer_ranges(layers)}"
            found.append(said if len(sites) == 1 else f"{said} of {site}")
        elif len(clear):
            found.append(site)
    return ", ".join(found) or ("no layer" if rows["layer"].notna().any() else "no site")
