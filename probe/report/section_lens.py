"""Lens trajectories of answer and foil for all models side by side, and the suppression index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...analyses.lens.contrasts import is_contrast
from ...analyses.result.words import subset_words
from .collect import ALL, Entry, number, ordered, same_question, where_words, with_interval, words
from .parts import figure, section, table
from .plots import NEUTRAL, PALETTE, curve, level, panels, style_of

ANSWER = {"colour": PALETTE[0], "dash": "solid", "marker": "circle"}
FOIL = {"colour": PALETTE[4], "dash": "dash", "marker": "diamond"}
PAIRS = (("answer_log_probability", "foil_log_probability"), ("answer_logit", "foil_logit"))
INDICES = (
    "suppression_index",
    "peak_logit_difference",
    "final_logit_difference",
    "handoff_rate",
    "lost_share",
    "onset_layer",
    "crossing_layer",
    "divergence_layer",
)
# what a reader needs first; the rest is behind a fold
FIRST = (
    "suppression_index",
    "peak_logit_difference",
    "final_logit_difference",
    "handoff_rate",
    "onset_layer",
)


def lens_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per answer/foil question."""
    return [_section(group, names) for group in same_question(entries).values()]


def _section(entries: list[Entry], names: Sequence[str]) -> dict[str, Any]:
    rows, options = only_where_lost(entries), entries[0].options
    rows = rows[~is_contrast(rows)]  # differences: in the sentences
    answer, foil = options.get("target", "answer"), options.get("foil", "foil")
    where = where_words(options)
    models = [n for n in names if (rows["model"] == n).any()] or ordered(rows["model"])
    curves = rows[rows["layer"].notna() & ~rows["metric"].isin(INDICES)]
    subsets = ordered(curves["subset"]) or ordered(rows["subset"])
    figures = []
    trust = {m: e.result.frames["trust"] for e in entries for m in e.models if "trust" in e.result.frames}
    for pair in PAIRS:
        if set(pair) <= set(curves["metric"]):
            figures.append(_trajectories(curves, pair, models, subsets, (answer, foil, where), trust))
            break
    if (curves["metric"] == "logit_difference").any():
        figures.append(_differences(curves, models, subsets, answer, foil, where))
    lead = (
        f"What the logit lens reads at every layer: the answer (“{answer}”) against the foil (“{foil}”)"
        + (f", on prompts with {where}" if where else "")
        + ". A model that holds the answer in its middle layers and loses it late has the answer suppressed."
    )
    rest = tuple(metric for metric in INDICES if metric not in FIRST)
    caption = (
        "Suppression by model and kind of prompt, estimate [95 % interval]; a plain index also holds the "
        "lead that any model loses late; kinds of prompts and models are compared by differences"
    )
    made = [
        _index_table(rows, models, subsets, FIRST, caption=caption),
        _index_table(rows, models, subsets, rest, caption="Further measures of the loss", folded=True),
        _curve_table(curves, models, subsets),
    ]
    return section(
        "Is the answer represented, and then suppressed?",
        lead=lead,
        sentences=[s for e in entries for s in e.sentences()],
        figures=figures,
        tables=[t for t in made if t],
    )


def only_where_lost(entries: Sequence[Entry]) -> pd.DataFrame:
    """The rows of all models; the layer of a loss only where a loss was found, for else it means nothing."""
    tables = []
    for entry in entries:
        rows, verdicts = entry.table, entry.result.frames.get("verdicts")
        if verdicts is not None and "verdict" in verdicts:
            kept = set(verdicts[verdicts["verdict"] == "none"]["subset"].replace("all", ALL))
            rows = rows[~(rows["metric"].isin(("onset_layer", "crossing_layer")) & rows["subset"].isin(kept))]
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def _reading_cell(row: dict[Any, Any], metric: str) -> str:
    if row["estimate"] != row["estimate"]:
        return "–"
    return with_interval(row, 0 if metric.endswith("_layer") else 2)


def _trajectories(
    curves: pd.DataFrame,
    pair: tuple[str, str],
    models: Sequence[str],
    subsets: Sequence[str],
    asked: tuple[str, str, str],
    trust: dict[str, pd.DataFrame],
) -> dict[str, Any]:
    answer, foil, where = asked
    titles = [f"{m}: {subset_words(s)}" if len(subsets) > 1 else m for s in subsets for m in models]
    y_title = "log-probability (nats)" if pair[0].endswith("log_probability") else "logit"
    fig = panels(len(subsets), len(models), titles=titles, y_title=y_title, shared_y=True)
    readings = []
    for r, subset in enumerate(subsets, start=1):
        for c, model in enumerate(models, start=1):
            here = curves[(curves["model"] == model) & (curves["subset"] == subset)]
            for metric, style, name in zip(pair, (ANSWER, FOIL), ("answer", "foil"), strict=True):
                mine = here[here["metric"] == metric].drop_duplicates("layer")
                if len(mine):
                    curve(fig, mine, name=name, style=style, at=(r, c), legend=(r, c) == (1, 1), digits=2)
            untrusted(fig, trust.get(model), (r, c))
            readings.append(_reading(here, pair, model, subset))
    caption = f"Lens reading of answer ({answer}) and foil ({foil}) by layer: means and 95 % intervals."
    if any(not frame["trusted"].all() for frame in trust.values()):
        caption += " Grey: layers where the lens is far from the final distribution and not to be trusted."
    name = f"lens {answer} {foil} {where}"
    return figure(fig, name=name, caption=caption, alt=" ".join(x for x in readings if x))


def untrusted(fig: Any, frame: pd.DataFrame | None, at: tuple[int, int]) -> None:
    """Grey out the layers where the lens is too far from the final distribution to be trusted."""
    if frame is None:
        return
    for layer in frame[~frame["trusted"].astype(bool)]["layer"].astype(int).unique():
        fig.add_vrect(
            x0=layer - 0.5,
            x1=layer + 0.5,
            fillcolor=NEUTRAL,
            opacity=0.14,
            line_width=0,
            row=at[0],
            col=at[1],
        )


def _reading(rows: pd.DataFrame, pair: tuple[str, str], model: str, subset: str) -> str:
    ends = [rows[rows["metric"] == m].sort_values("layer")["estimate"].tolist() for m in pair]
    if not all(ends):
        return ""
    return (
        f"{model}, {subset_words(subset)}: at the last layer answer {number(ends[0][-1], 2)}, "
        f"foil {number(ends[1][-1], 2)}."
    )


def _differences(
    curves: pd.DataFrame, models: Sequence[str], subsets: Sequence[str], answer: str, foil: str, where: str
) -> dict[str, Any]:
    rows = curves[curves["metric"] == "logit_difference"]
    titles = [subset_words(s) for s in subsets] if len(subsets) > 1 else ()
    fig = panels(1, len(subsets), titles=titles, y_title="logit answer − foil", shared_y=True)
    deepest = int(rows["layer"].max()) + 1
    for c, subset in enumerate(subsets, start=1):
        level(fig, 0.0, label="answer = foil", at=(1, c), left=True)
        fig.add_vrect(
            x0=deepest / 4 - 0.5, x1=deepest - 1.5, fillcolor=NEUTRAL, opacity=0.08, line_width=0,
            exclude_empty_subplots=False, row=1, col=c,
            annotation={"text": "middle layers", "font": {"size": 11, "color": NEUTRAL}},
            annotation_position="bottom left",
        )  # fmt: skip
        for model in models:
            mine = rows[(rows["model"] == model) & (rows["subset"] == subset)].drop_duplicates("layer")
            if len(mine):
                curve(
                    fig, mine, name=model, style=style_of(model, models), at=(1, c), legend=c == 1, digits=2
                )
    last = rows[rows["layer"] == deepest - 1]
    alt = " ".join(
        f"{r['model']}, {subset_words(r['subset'])}: {number(r['estimate'], 2)} at the last layer."
        for r in last.to_dict("records")
    )
    caption = (
        "Logit of the answer minus logit of the foil, all models on one axis, with 95 % intervals; "
        "above zero the lens reads the answer. Shaded: the middle layers, among which the peak is chosen."
    )
    return figure(fig, name=f"logit difference {answer} {foil} {where}", caption=caption, alt=alt)


def _index_table(
    rows: pd.DataFrame,
    models: Sequence[str],
    subsets: Sequence[str],
    among: Sequence[str],
    *,
    caption: str,
    folded: bool = False,
) -> dict[str, Any] | None:
    metrics = [m for m in among if (rows["metric"] == m).any()]
    if not metrics:
        return None
    body = []
    for model in models:
        for subset in subsets:
            here = rows[(rows["model"] == model) & (rows["subset"] == subset)]
            cells = [model, subset_words(subset)]
            for metric in metrics:
                mine = here[here["metric"] == metric].to_dict("records")
                cells.append(_reading_cell(mine[0], metric) if mine else "–")
            ns = here.get("n", pd.Series(dtype=float)).dropna()
            body.append([*cells, number(ns.max(), 0) if len(ns) else "–"])
    columns = ["model", "prompts", *(words(m) for m in metrics), "n"]
    return table(columns, body, caption=caption, folded=folded)


def _curve_table(
    curves: pd.DataFrame, models: Sequence[str], subsets: Sequence[str]
) -> dict[str, Any] | None:
    rows = curves[curves["metric"] == "logit_difference"]
    if not len(rows):
        return None
    body = []
    for layer in sorted(rows["layer"].astype(int).unique()):
        cells = [str(layer)]
        for model in models:
            for subset in subsets:
                mine = rows[(rows["layer"] == layer) & (rows["model"] == model) & (rows["subset"] == subset)]
                found = mine.to_dict("records")
                cells.append(with_interval(found[0], 2) if found else "–")
        body.append(cells)
    columns = ["layer", *(f"{m}, {subset_words(s)}" for m in models for s in subsets)]
    return table(columns, body, caption="Logit of answer minus foil by layer [95 % interval]", folded=True)
