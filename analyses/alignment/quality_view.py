"""An AQI result in sentences and in a figure."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..result.words import bounds, number, p_value

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def summarise(result: "AnalysisResult") -> list[str]:
    """Per model: the overall index against its null, where the weights lie; then differences."""
    table = result.table[result.table["metric"] == "aqi"]
    compared = table["reference"].notna() if "reference" in table else pd.Series(False, index=table.index)
    sentences = []
    chance = set()
    for _, row in table[~compared].iterrows():
        part = "" if row["subset"] == "overall" else f" where {row['subset']}"
        if pd.isna(row.get("z", np.nan)):
            sentences.append(
                f"{row['model']}{part}: released-code AQI {row['estimate']:.1f} of 100 ({row['n']} rows, no "
                "null, no interval; scaled between the categories of this model, and 50 where it has one "
                "category, whatever the model)."
            )
            continue
        verdict = "beyond chance" if row["p_familywise"] <= 0.05 else "no more than chance"
        if row["p_familywise"] > 0.05 and not part:
            chance.add(row["model"])
        sentences.append(
            f"{row['model']}{part}: AQI of {row['target']} is {number(row['estimate'])}"
            f"{bounds(row)} on held-out groups, {verdict} ({number(row['null_mean'])} under permuted "
            f"labels, z = {row['z']:.1f}, family-wise p {p_value(row['p_familywise'])}; sd over pooling "
            f"seeds {number(row['seed_sd'])}; {row['n']} rows in {row['n_groups']} groups)."
        )
    sentences += _weights(result.frames.get("weights"), chance)
    for _, row in table[compared].iterrows():
        off = row["lo"] > 0 or row["hi"] < 0
        sentences.append(
            f"{row['model']} − {row['reference']} ({row['subset']}): AQI differs by "
            f"{number(row['estimate'])}{bounds(row)}" + ("." if off else "; the interval covers zero.")
        )
    return sentences


def _weights(frame: pd.DataFrame | None, chance: Collection[str]) -> list[str]:
    """Where the weights lie; not for models at chance, whose weights were learned from noise."""
    sentences = []
    for model, part in frame.groupby("model", sort=False) if frame is not None else ():
        mean = part.groupby("layer")["weight"].mean()
        share = mean[mean > 0]
        effective = float(np.exp(-(share * np.log(share)).sum()))
        equal = int((part.drop_duplicates("pooling_seed")["steps"] == 0).sum())
        seeds = part["pooling_seed"].nunique()
        if equal > seeds / 2:
            sentences.append(
                f"{model}: no layer stands out; {equal} of {seeds} poolings found nothing better than equal "
                f"weights (effective number of layers {effective:.1f} of {len(mean)})."
            )
            continue
        if model in chance:
            sentences.append(f"{model}: its layer weights say nothing, the index being at chance.")
            continue
        top = mean.sort_values(ascending=False).head(3)
        named = ", ".join(f"layer {layer} {value:.2f}" for layer, value in top.items())
        sentences.append(
            f"{model}: learned weights lie on {named} (effective number of layers "
            f"{effective:.1f} of {len(mean)})."
        )
    return sentences


def draw(result: "AnalysisResult") -> "Figure":
    """Index per subset with interval and null; learned weights per layer."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    table = result.table[result.table["metric"] == "aqi"]
    if "reference" in table:
        table = table[table["reference"].isna()]
    figure = make_subplots(rows=1, cols=2, subplot_titles=["AQI (grey: permuted labels)", "layer weights"])
    weights = result.frames.get("weights")
    for count, (model, part) in enumerate(table.groupby("model", sort=False)):
        colour = COLOURS[count % len(COLOURS)]
        bars = None
        if "lo" in part:
            bars = {
                "type": "data",
                "array": part["hi"] - part["estimate"],
                "arrayminus": part["estimate"] - part["lo"],
            }
        trace = go.Scatter(x=part["subset"], y=part["estimate"], error_y=bars, mode="markers", name=model)
        figure.add_trace(trace.update(marker={"color": colour}), row=1, col=1)
        if "null_mean" in part:
            chance = go.Scatter(
                x=part["subset"], y=part["null_mean"], mode="markers", showlegend=False, name="null"
            )
            figure.add_trace(
                chance.update(marker={"color": "#7f8790", "symbol": "line-ew-open", "size": 14}), row=1, col=1
            )
        if weights is not None:
            mine = (
                weights[weights["model"] == model]
                .groupby("layer")["weight"]
                .agg(["mean", "std"])
                .reset_index()
            )
            bar = go.Bar(
                x=mine["layer"], y=mine["mean"], error_y={"array": mine["std"].fillna(0)}, showlegend=False
            )
            figure.add_trace(bar.update(name=model, marker={"color": colour}), row=1, col=2)
    figure.update_xaxes(title_text="layer", row=1, col=2)
    figure.update_layout(template="plotly_white", height=400)
    return figure
