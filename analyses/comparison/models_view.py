"""A comparison of models in sentences and in a figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..lens.suppression_view import (
    COLOURS,
    add_band,
    in_one_order,
    interval,
    on_prompts,
    records,
    verdict_sentence,
)
from ..result.words import bounds, p_value, place

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult

SIMILARITIES = {
    "cka_debiased": "debiased CKA",
    "procrustes_r2": "held-out Procrustes R²",
    "rsa_spearman": "RSA",
    "direction_cosine_ratio": "direction cosine over its ceiling",
}


def summarise(result: "AnalysisResult") -> list[str]:
    """Suppression of each model, differences from the reference, and where the activations part most."""
    sentences = []
    for _, row in result.frames.get("verdicts", pd.DataFrame()).iterrows():
        sentences.append(verdict_sentence(row, row["model"]))
    table = result.table
    if "reference" not in table:
        return sentences
    table = _with_layer(table)
    differences = table[table["reference"].notna()]
    index = differences[differences["metric"] == "suppression_index"]
    gaps = records(index)
    crossed = [gap for gap in gaps if " − " in gap["subset"]]
    for gap in [*(gap for gap in gaps if gap not in crossed), *in_one_order(crossed)]:
        sentences.append(
            f"{gap['model']} minus {gap['reference']}{on_prompts(gap['subset'])}: suppression index "
            f"{gap['estimate']:+.2f}{interval(gap)}; the interval "
            f"{'excludes' if gap['lo'] > 0 or gap['hi'] < 0 else 'covers'} zero."
        )
    for (model, metric), part in differences.groupby(["model", "metric"], sort=False):
        if metric == "transfer_auroc":
            sentences.append(_transfer(str(model), differences[differences["model"] == model]))
        elif metric in SIMILARITIES:
            sentences.append(_extreme(str(model), str(metric), part))
    changes = differences[differences["metric"] == "class_difference_change"]
    for model, part in changes.groupby("model", sort=False):
        sentences.append(_class_change(str(model), part))
    return sentences


def _with_layer(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column `layer`, which one of only sites without layers, such as final_norm, lacks."""
    if "layer" in table:
        return table
    return table.assign(layer=pd.Series(pd.NA, index=table.index, dtype="Int64"))


def _extreme(model: str, metric: str, part: pd.DataFrame) -> str:
    if "space" in part and (part["space"] == "zscored").any():
        part = part[part["space"] == "zscored"]
    known = part[part["estimate"].notna()]
    if known.empty:
        why = part["note"].dropna().iloc[0] if "note" in part and part["note"].notna().any() else "undefined"
        return f"{model}: {SIMILARITIES[metric]} could be estimated at 0 of {len(part)} layers ({why})."
    missing = ""
    if len(known) < len(part):
        why = part.loc[part["estimate"].isna(), "note"].dropna() if "note" in part else part["note"]
        missing = f"; it could be estimated at {len(known)} of {len(part)} layers" + (
            f" ({why.iloc[0]})" if len(why) else ""
        )
    part = known
    low = part.iloc[int(part["estimate"].to_numpy(dtype=float).argmin())]
    first = part.sort_values("layer").iloc[0]
    where, value = place(low), f"{low['estimate']:.3f}{bounds(low)}"
    if len(part) == 1:
        return f"{model} against {low['reference']}: {SIMILARITIES[metric]} is {value} at {where}{missing}."
    start = "" if place(first) == where else f" (at {_layer(first)} it is {first['estimate']:.3f})"
    return (
        f"{model} against {low['reference']}: {SIMILARITIES[metric]} is lowest at {where}, "
        f"{value}{start}{missing}."
    )


def _layer(row: Any) -> str:
    """ "layer 3", or the site where it has no layers."""
    return place(row) if pd.isna(row["layer"]) else f"layer {row['layer']}"


def _by_place(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    found = rows[rows["metric"] == metric]
    return found.set_index(pd.Index([place(row) for row in found.to_dict("records")]))


def _transfer(model: str, rows: pd.DataFrame) -> str:
    """Transfer at its worst among the layers where the reference's own probe reads the label at all."""
    moved, reference, own = (_by_place(rows, f"{name}_auroc") for name in ("transfer", "reference", "own"))
    known = reference["p"].astype(float) * len(reference) <= 0.05 if len(reference) else None  # Bonferroni
    readable = moved.index if known is None else reference.index[known]
    name = moved["reference"].iloc[0]
    if not len(readable):
        return (
            f"{model} against {name}: {name}'s own probe is at chance in every layer (held-out AUROC at most "
            f"{reference['estimate'].max():.3f}), so it has no direction whose transfer could be judged."
        )
    judged = moved.loc[readable]
    where = judged.index[int(judged["estimate"].to_numpy(dtype=float).argmin())]
    low = judged.loc[where]
    at_home = f"{reference.loc[where, 'estimate']:.3f}" if len(reference) else "an unknown AUROC"
    return (
        f"{model} against {name}: of the {len(readable)} of {len(moved)} layers where {name}'s own probe is "
        f"above chance, its transfer AUROC is lowest at {where}, "
        f"{low['estimate']:.3f}{bounds(low)} (there {name}'s probe has {at_home} in {name} itself, and "
        f"{model}'s own {own.loc[where, 'estimate']:.3f} in {model})."
    )


def _class_change(model: str, part: pd.DataFrame) -> str:
    if part["estimate"].isna().all():
        return f"{model}: the change of the class difference could be estimated at 0 of {len(part)} layers."
    top = part.iloc[int(np.nanargmax(part["estimate"].to_numpy(dtype=float)))]
    clear = part[part["p_familywise"] <= 0.05]
    found = (
        "at no layer is it beyond chance"
        if clear.empty
        else f"it is beyond chance from {_layer(clear.iloc[int(clear['layer'].fillna(-1).argmin())])} on "
        f"({len(clear)} of {len(part)} layers)"
    )
    return (
        f"{model} against {top['reference']}: the class difference of {top['target']!r} changes most at "
        f"{_layer(top)}, by {top['estimate']:.2f}{interval(top)} of its own length (family-wise p "
        f"{p_value(top['p_familywise'])}); {found}."
    )


def draw(result: "AnalysisResult") -> "Figure":
    """Left: LD of every model and subset. Right: similarity to the reference per layer."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("Lead of the answer (logits)", "Similarity to the reference")
    )
    table = _with_layer(result.table)
    blank = table["reference"].isna() if "reference" in table else pd.Series(True, index=table.index)
    if "subset" in table:
        own = table[
            blank
            & (table["metric"] == "logit_difference")
            & ~table["subset"].astype(str).str.contains(" − ", regex=False)
        ]
        for number, ((model, subset), part) in enumerate(own.groupby(["model", "subset"], sort=False)):
            add_band(Panel(figure, 1), part, f"{model}, {subset}", COLOURS[number % len(COLOURS)])
    similar = table[
        ~blank
        & table["metric"].isin(["cka_debiased", "procrustes_r2", "direction_cosine_ratio"])
        & table["layer"].notna()
    ]
    similar = similar[similar["space"] != "zscored"] if "space" in similar else similar
    for number, ((model, metric), part) in enumerate(similar.groupby(["model", "metric"], sort=False)):
        add_band(
            Panel(figure, 2),
            part,
            f"{model}: {SIMILARITIES[str(metric)]}",
            COLOURS[number % len(COLOURS)],
            dash="dot",
        )
    figure.update_layout(template="plotly_white")
    figure.update_xaxes(title="layer")
    return figure


class Panel:
    """One cell of a figure with subplots, where curves are added as to a plain figure."""

    def __init__(self, figure: Any, column: int) -> None:
        self.figure, self.column = figure, column

    def add_scatter(self, **options: Any) -> None:
        self.figure.add_scatter(row=1, col=self.column, **options)
