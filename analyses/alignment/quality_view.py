"""An AQI result in findings and in a picture."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..result.findings import ALPHA, Claim, Finding, Number, decide_interval
from ..result.words import listed, number

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult

APART = Claim(
    "apart",
    found="apart beyond chance on held-out groups",
    not_found="no more apart than chance",
    not_tested="without null or interval",
)
DIFFERS = Claim("differs", found="the two differ", not_found="no evidence that they differ")
RELEASED = (
    "Released code: out of 100, scaled between the categories of this model, and 50 where it has one "
    "category, whatever the model."
)


def found(result: "AnalysisResult") -> list[Finding]:
    """Per model and part: the index against its null; where the weights lie; then differences of models."""
    table = result.table[result.table["metric"] == "aqi"]
    out = []
    for row in table.to_dict("records"):
        if isinstance(row.get("reference"), str):
            out.append(Finding.of(row, DIFFERS, decide_interval(row.get("lo"), row.get("hi")), test=None))
            continue
        whole = row["subset"] == "overall"
        tested = not pd.isna(row.get("z", np.nan))
        caveats: tuple[str, ...] = () if tested else (RELEASED,)
        if whole and tested:
            chance = row["p_familywise"] > ALPHA
            caveats = tuple(_weights(result.frames.get("weights"), row["model"], chance))
        spread = row.get("seed_sd", np.nan)  # a single pooling has none
        numbers = () if pd.isna(spread) else (Number(name="sd over pooling seeds", value=spread),)
        subset = None if whole else row["subset"]
        out.append(Finding.of(row, APART, numbers=numbers, caveats=caveats, subset=subset, lead=whole))
    return out


def _weights(frame: pd.DataFrame | None, model: str, chance: bool) -> Iterator[str]:
    """Where the weights lie; not for a model at chance, whose weights were learned from noise."""
    part = frame[frame["model"] == model] if frame is not None else pd.DataFrame()
    if not len(part):
        return
    mean = part.groupby("layer")["weight"].mean()
    share = mean[mean > 0]
    spread = float(np.exp(-(share * np.log(share)).sum()))
    effective = f"effective number of layers {number(spread)} of {len(mean)}"
    equal = int((part.drop_duplicates("pooling_seed")["steps"] == 0).sum())
    seeds = part["pooling_seed"].nunique()
    if equal > seeds / 2:
        yield (
            f"No layer stands out; {equal} of {seeds} poolings found nothing better than equal weights "
            f"({effective})."
        )
    elif chance:
        yield "Its layer weights say nothing, the index being at chance."
    else:
        top = mean.sort_values(ascending=False).head(3)
        named = listed(f"layer {layer} ({number(value)})" for layer, value in top.items())
        yield f"The learned weights lie on {named}; {effective}."


def draw(result: "AnalysisResult") -> Any:
    """Index per part with interval and null; learned weights per layer beside it."""
    from ..result.charts import forest, layer_curves

    table = result.table[result.table["metric"] == "aqi"]
    if "reference" in table:
        table = table[table["reference"].isna()]
    names = list(dict.fromkeys(table["model"]))
    index = forest(
        table,
        y="subset",
        y_title="",
        x_title="Alignment Quality Index",
        colour="model",
        names=names,
        reference=None,
    )
    weights = result.frames.get("weights")
    if weights is None or not len(weights):
        return index
    mean = weights.groupby(["model", "layer"], sort=False)["weight"].agg(["mean", "min", "max"]).reset_index()
    curves = layer_curves(
        mean.rename(columns={"mean": "estimate", "min": "lo", "max": "hi"}),
        y_title="weight",
        names=names,
        zero=True,
        interval_text="range over pooling seeds",
        title="Weights learned for the layers",
    )
    return index | curves
