"""A comparison of models in sentences and in a figure."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .suppression_view import COLOURS, add_band, interval, on_prompts, verdict_sentence

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from .result import AnalysisResult

SIMILARITIES = {
    "cka_debiased": "debiased CKA",
    "procrustes_r2": "held-out Procrustes R²",
    "rsa_spearman": "RSA",
    "direction_cosine_ratio": "direction cosine over its ceiling",
    "transfer_auroc": "probe transfer AUROC",
}


def summarise(result: "AnalysisResult") -> list[str]:
    """Suppression of each model, differences from the reference, and where the activations part most."""
    sentences = []
    for _, row in result.frames.get("verdicts", pd.DataFrame()).iterrows():
        sentences.append(verdict_sentence(row, row["model"]))
    table = result.table
    if "reference" not in table:
        return sentences
    differences = table[table["reference"].notna()]
    for _, row in differences[differences["metric"] == "suppression_index"].iterrows():
        where = on_prompts(row["subset"])
        off = row["lo"] > 0 or row["hi"] < 0
        sentences.append(
            f"{row['model']} minus {row['reference']}{where}: suppression index {row['estimate']:+.2f}"
            f"{interval(row)}" + (", an interval off zero." if off else "; the interval covers zero.")
        )
    for (model, metric), part in differences.groupby(["model", "metric"], sort=False):
        if metric in SIMILARITIES and part["layer"].notna().any():
            sentences.append(_extreme(str(model), str(metric), part))
    changes = differences[differences["metric"] == "class_difference_change"]
    for model, part in changes.groupby("model", sort=False):
        sentences.append(_class_change(str(model), part))
    return sentences


def _extreme(model: str, metric: str, part: pd.DataFrame) -> str:
    if "space" in part and (part["space"] == "zscored").any():
        part = part[part["space"] == "zscored"]
    known = part[part["estimate"].notna()]
    if known.empty:
        why = part["note"].dropna().iloc[0] if "note" in part and part["note"].notna().any() else "undefined"
        return f"{model}: {SIMILARITIES[metric]} could be estimated at 0 of {len(part)} layers ({why})."
    part = known
    low = part.iloc[int(part["estimate"].to_numpy(dtype=float).argmin())]
    first = part.sort_values("layer").iloc[0]
    return (
        f"{model} against {low['reference']}: {SIMILARITIES[metric]} is lowest at "
        f"{low['site']}[{low['layer']}], "
        f"{low['estimate']:.3f}{interval(low)} (at layer {first['layer']} it is {first['estimate']:.3f})."
    )


def _class_change(model: str, part: pd.DataFrame) -> str:
    if part["estimate"].isna().all():
        return f"{model}: the change of the class difference could be estimated at 0 of {len(part)} layers."
    top = part.iloc[int(np.nanargmax(part["estimate"].to_numpy(dtype=float)))]
    clear = part[part["p_familywise"] <= 0.05]
    found = (
        "at no layer is it beyond chance"
        if clear.empty
        else f"it is beyond chance from layer {int(clear['layer'].min())} on "
        f"({len(clear)} of {len(part)} layers)"
    )
    return (
        f"{model} against {top['reference']}: the class difference of {top['target']!r} changes most at "
        f"layer {top['layer']}, by {top['estimate']:.2f}{interval(top)} of its own length (family-wise p = "
        f"{top['p_familywise']:.3g}); {found}."
    )


def draw(result: "AnalysisResult") -> "Figure":
    """Left: LD of every model and subset. Right: similarity to the reference per layer."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("Lead of the answer (logits)", "Similarity to the reference")
    )
    table = result.table
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
        ~blank & table["metric"].isin(["cka_debiased", "procrustes_r2", "direction_cosine_ratio"])
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
