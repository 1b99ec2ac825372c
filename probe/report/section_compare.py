"""Models against each other: one small panel per measure, over layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ...analyses.lens.contrasts import is_contrast
from ...analyses.result.words import missing, subset_words
from .collect import ALL, Entry, joined, number, ordered, same_question, where_words, with_interval, words
from .parts import figure, section, table
from .plots import curve, level, panels, style_of

# (metric, space, what the panel is called, the value that means "no difference")
LEADING = (
    ("cka_debiased", "zscored", "debiased CKA", 1.0),
    ("procrustes_r2", None, "held-out Procrustes R²", 1.0),
    ("transfer_auroc", None, "probe transfer (AUROC)", None),
    ("direction_cosine_ratio", None, "direction cosine / ceiling", 1.0),
    ("class_difference_change", None, "class difference: change", 0.0),
    ("effective_rank_difference", None, "effective rank: difference", 0.0),
    ("lens_kl", None, "lens KL", 0.0),
    ("logit_difference", None, "answer − foil: difference", 0.0),
)


def compare_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per comparison."""
    return [_section(group, names) for group in same_question(entries).values()]


def _section(entries: list[Entry], names: Sequence[str]) -> dict[str, Any]:
    rows = differences(joined(entries))
    where = where_words(entries[0].options)
    references = ordered(rows["reference"])
    layered = rows[rows["layer"].notna()]
    drawn = panel_rows(layered)
    figures = [_figure(drawn, names, where)] if drawn else []
    whole = rows[rows["layer"].isna() | ~rows["metric"].isin({m for m, *_ in LEADING} | _curves(rows))]
    tables = [t for t in (_whole_table(whole), _layer_table(layered, names)) if t]
    return section(
        f"What differs from {' and '.join(references) or 'the reference'}?",
        lead="The same prompts through each model, layer by layer; differences are paired over prompts"
        + (f"; prompts with {where}" if where else "")
        + ".",
        sentences=[s for e in entries for s in e.sentences()],
        figures=figures,
        tables=tables,
    )


def differences(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows that set a model against a reference; `subset` says which prompts, as `x − y` for a difference."""
    rows = rows[rows["reference"].notna()] if "reference" in rows else rows.iloc[:0].assign(reference="")
    if not is_contrast(rows).any():
        return rows
    pairs = [pair_words(a, b) for a, b in zip(rows["subset"], rows["minus"], strict=True)]
    return rows.assign(subset=pairs)


def _curves(rows: pd.DataFrame) -> set[str]:
    counts = rows.groupby("metric")["layer"].nunique()
    return set(counts[counts > 1].index)


def panel_rows(rows: pd.DataFrame) -> list[tuple[str, float | None, pd.DataFrame]]:
    """(title, value that means no difference, rows) of each panel, in reading order."""
    found = []
    for metric, space, title, same in LEADING:
        here = rows[rows["metric"] == metric]
        if space is not None and "space" in here and (here["space"] == space).any():
            here = here[here["space"] == space]
        for subset in ordered(here["subset"]):
            mine = here[here["subset"] == subset].drop_duplicates(["model", "layer"])
            if mine["layer"].nunique() > 1 and mine["estimate"].notna().any():
                found.append((title if subset == ALL else f"{title}, {pair_words(subset)}", same, mine))
    return found


def pair_words(subset: str, minus: object = None) -> str:
    """A kind of prompts, or one minus another.

    >>> pair_words("sensitive=yes please", "sensitive=benign"), pair_words("sensitive=benign")
    ('yes please − benign', 'benign')
    """
    return subset_words(subset) + ("" if missing(minus) else f" − {subset_words(str(minus))}")


def _figure(
    drawn: list[tuple[str, float | None, pd.DataFrame]], names: Sequence[str], where: str
) -> dict[str, Any]:
    columns = min(3, len(drawn))
    fig = panels(-(-len(drawn) // columns), columns, titles=[t for t, _, _ in drawn], shared_y=False)
    shown: set[str] = set()
    readings = []
    for i, (title, same, rows) in enumerate(drawn):
        at = (i // columns + 1, i % columns + 1)
        if same is not None:
            level(fig, same, at=at)
        for model in [n for n in names if (rows["model"] == n).any()]:
            mine = rows[rows["model"] == model]
            label = f"{model} against {mine['reference'].iloc[0]}"
            curve(fig, mine, name=label, style=style_of(model, names), at=at, legend=label not in shown)
            shown.add(label)
            last = mine.sort_values("layer").iloc[-1]
            readings.append(f"{title}, {model}: {number(last['estimate'])} at layer {last['layer']}.")
    caption = "Each model against its reference by layer, with 95 % intervals; dotted: no difference."
    return figure(fig, name=f"comparison {where}", caption=caption, alt=" ".join(readings))


def _whole_table(rows: pd.DataFrame) -> dict[str, Any] | None:
    if not len(rows):
        return None
    body = [
        [f"{r['model']} − {r['reference']}", pair_words(r["subset"]), words(r["metric"]), with_interval(r, 2)]
        for r in rows.to_dict("records")
    ]
    columns = ["models", "prompts", "measure", "difference [95 % interval]"]
    return table(columns, body, caption="Differences over all layers", folded=len(body) > 12)


def _layer_table(rows: pd.DataFrame, names: Sequence[str]) -> dict[str, Any] | None:
    if not len(rows):
        return None
    rows = rows.assign(space=rows["space"].fillna("") if "space" in rows else "")
    models = [n for n in names if (rows["model"] == n).any()]
    body = []
    for (metric, space, subset, layer), here in rows.groupby(
        ["metric", "space", "subset", "layer"], sort=False
    ):
        cells = [str(layer), words(str(metric)), words(str(space)), pair_words(str(subset))]
        for model in models:
            mine = here[here["model"] == model].to_dict("records")
            cells.append(with_interval(mine[0]) if mine else "–")
        body.append(cells)
    columns = ["layer", "measure", "space", "prompts", *models]
    return table(columns, body, caption="Comparison by layer, estimate [95 % interval]", folded=True)
