"""Probes for several labels at once (preference dimensions, score heads): one panel and one row per label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from .collect import Entry, joined, number, ordered, place, same_question, where_words, with_interval, words
from .parts import figure, section, table
from .plots import curve, panels, style_of
from .section_probes import above_chance, headline_metric, null_band, per_layer, reference_lines

MOST_PANELS = 12
TITLES = {
    "preferences": "Which preference dimensions can be read?",
    "score_heads": "Can the scores be read?",
}


def target_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per analysis of several labels."""
    return [_section(group, names) for group in same_question(entries).values()]


def _section(entries: list[Entry], names: Sequence[str]) -> dict[str, Any]:
    rows, asked = joined(entries), str(entries[0].options.get("kind", "linear_probe"))
    targets = ordered(rows["target"])
    models = [n for n in names if (rows["model"] == n).any()] or ordered(rows["model"])
    where = where_words(entries[0].options)
    shown = curves_of(rows)
    metrics = " and ".join(words(m) for m in ordered(shown["metric"]))
    lead = (
        f"Held-out {metrics} of one linear probe per label at every layer"
        + (f", on prompts with {where}" if where else "")
        + "; p is family-wise over all labels and layers, and each layer was chosen on data that does not "
        "score it. A probe shows what can be read off the activations, not whether the model uses it."
    )
    tables = [_best_table(entries, shown, targets), _layer_table(shown, models)]
    return section(
        TITLES.get(asked, f"Can linear probes read {', '.join(f'“{t}”' for t in targets[:4])}?"),
        lead=lead,
        sentences=[s for e in entries for s in e.sentences()],
        figures=[_figure(shown, targets, models, f"{asked} {' '.join(targets[:4])} {where}")],
        tables=[t for t in tables if t],
    )


def curves_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Each label's rows of the metric that was tested for it; a place without layers has none in `layer`."""
    parts = []
    for _, mine in rows.groupby("target", sort=False):
        metric = headline_metric(mine)
        layered = per_layer(mine, metric)
        parts.append(layered if len(layered) else mine[mine["metric"] == metric].drop_duplicates("model"))
    return pd.concat(parts, ignore_index=True)


def _figure(rows: pd.DataFrame, targets: Sequence[str], models: Sequence[str], name: str) -> dict[str, Any]:
    drawn = list(targets)[:MOST_PANELS]
    columns = min(3, len(drawn))
    fig = panels(-(-len(drawn) // columns), columns, titles=drawn, shared_y=False)
    for i, target in enumerate(drawn):
        at = (i // columns + 1, i % columns + 1)
        mine = rows[rows["target"] == target]
        if mine["layer"].notna().any():
            mine = mine[mine["layer"].notna()]
        mine = mine.assign(layer=mine["layer"].fillna(0))  # a site without layers is one point
        null_band(fig, mine, at, legend=i == 0)
        for (model, site), found in mine.groupby(["model", "site"], sort=False):
            here = found.drop_duplicates("layer").sort_values("layer")
            flags = (here["p_familywise"] < 0.05).tolist() if "p_familywise" in here else None
            name = str(model) if mine["site"].nunique() == 1 else f"{model}, {site}"
            curve(
                fig, here, name=name, style=style_of(str(model), models), at=at, legend=i == 0, filled=flags
            )
        reference_lines(fig, mine, str(mine["metric"].iloc[0]), at)
    left_out = f" The first {len(drawn)} of {len(targets)} labels." if len(drawn) < len(targets) else ""
    caption = (
        "One panel per label, with 95 % intervals; filled markers: family-wise p < 0.05. Grey band: central "
        f"95 % of the permutation null. Lines: chance and baselines without a model.{left_out}"
    )
    return figure(fig, name=name, caption=caption, alt=" ".join(_tested(rows, m) for m in models))


def _tested(rows: pd.DataFrame, model: str) -> str:
    mine = rows[rows["model"] == model]
    said = (f"{t} above chance in {above_chance(part)}" for t, part in mine.groupby("target", sort=False))
    return f"{model}: {'; '.join(said)}."


def _best(entries: Sequence[Entry]) -> pd.DataFrame:
    """The layers that the analyses chose, one per model and label."""
    frames = [
        e.result.frames["best_layer"].assign(model=e.models[0]) if len(e.models) == 1
        else e.result.frames["best_layer"]
        for e in entries
        if "best_layer" in e.result.frames
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _best_table(
    entries: Sequence[Entry], shown: pd.DataFrame, targets: Sequence[str]
) -> dict[str, Any] | None:
    best = [row for row in _best(entries).to_dict("records") if row["target"] in targets]
    body = []
    for row in sorted(best, key=lambda row: list(targets).index(row["target"])):
        same = shown[(shown["target"] == row["target"]) & (shown["model"] == row["model"])]
        here = same[same["site"] == row["site"]]
        base = here.iloc[0].to_dict() if len(here) else {}
        body.append(
            [
                str(row["target"]),
                str(row["model"]),
                words(str(row["metric"])),
                f"{with_interval(row)} at {place(row)}",
                number(row.get("p")),
                number(base.get("baseline_majority")),
                number(base.get("baseline_text")),
            ]
        )
    columns = ["label", "model", "metric", "held out [95 % interval]", "p", "majority class", "bag of words"]
    caption = "Every label at the layer chosen on training groups; p is of that choice"
    return table(columns, body, caption=caption) if body else None


def _layer_table(rows: pd.DataFrame, models: Sequence[str]) -> dict[str, Any]:
    body = []
    for (target, site, layer), here in rows.groupby(["target", "site", "layer"], sort=False, dropna=False):
        cells = [str(target), place({"site": site, "layer": layer}), words(str(here["metric"].iloc[0]))]
        for model in models:
            mine = here[here["model"] == model].to_dict("records")
            cells += [with_interval(mine[0]), number(mine[0].get("p_familywise"))] if mine else ["–", "–"]
        body.append(cells)
    columns = ["label", "layer", "metric"]
    columns += [c for m in models for c in (f"{m} [95 % interval]", f"{m}: family-wise p")]
    return table(columns, body, caption="Every label and layer", folded=True)


def targets_sentence(group: Sequence[Entry]) -> str:
    """All models and labels in one sentence: what cannot be read is said first."""
    shown = curves_of(joined(group))
    best = _best(group)
    told = []
    for model in ordered(shown["model"]):
        mine = shown[shown["model"] == model]
        if "p_familywise" not in mine or mine["p_familywise"].isna().all():
            told.append(f"{model} {mine['target'].nunique()} labels, not tested")
            continue
        lowest = mine.groupby("target", sort=False)["p_familywise"].min()
        unread = list(lowest[~(lowest < 0.05)].index)
        unsure = [t for t in lowest.index if t not in unread and _chosen_p(best, model, t) > 0.05]
        found = [_chosen(best, model, t) for t in lowest.index if t not in (*unread, *unsure)]
        none = f"{len(unread)} of {len(lowest)} not above chance at any layer ({_listed(unread)})"
        some = f"above chance somewhere, not at the layer chosen: {_listed(unsure)}"
        parts = [none if unread else "", some if unsure else "", ", ".join(found)]
        told.append(f"{model} " + "; ".join(filter(None, parts)))
    kind = str(group[0].options.get("kind", ""))
    title = {"preferences": "Preference dimensions", "score_heads": "Score heads"}.get(kind, "Linear probes")
    return f"{title}, layer chosen on training groups: " + " | ".join(told) + "."


def _chosen_p(best: pd.DataFrame, model: str, target: str) -> float:
    """p of the place that was chosen on training groups; 0 where the analysis gives none."""
    rows = best[(best["model"] == model) & (best["target"] == target)] if len(best) else best
    known = rows["p"].dropna() if "p" in rows else pd.Series(dtype=float)
    return float(known.min()) if len(known) else 0.0  # one place per site


def _listed(names: Iterable[Any]) -> str:
    said = list(map(str, names))
    shown = ", ".join(said[:6])
    return shown + (" …" if len(said) > 6 else "")


def _chosen(best: pd.DataFrame, model: str, target: str) -> str:
    rows = best[(best["model"] == model) & (best["target"] == target)].to_dict("records") if len(best) else []
    if not rows:
        return f"{target} above chance"
    row = min(rows, key=lambda r: r["p"] if r.get("p") == r.get("p") and r.get("p") is not None else 1.0)
    return f"{target} {words(str(row['metric']))} {with_interval(row)} at {place(row)}"
