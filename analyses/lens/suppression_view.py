"""A suppression result in sentences and in a figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..result.words import p_value

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult

SMALL = 0.1
"""Share of a lead whose loss is nothing to speak of: models without an override lose a few hundredths."""
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


def interval(row: Any) -> str:
    """ "[lo, hi]" of a row; empty where there is none."""
    return "" if pd.isna(row["lo"]) else f" [{row['lo']:.2f}, {row['hi']:.2f}]"


def subset_words(subset: str) -> str:
    """`sensitive=sensitive` reads better as `sensitive`.

    >>> subset_words("sensitive=benign"), subset_words("all prompts"), subset_words("evidence=True")
    ('benign', 'all prompts', 'evidence = True')
    """
    column, equals, value = subset.partition("=")
    if not equals:
        return subset
    bare = not value or value.lower() in ("true", "false", "yes", "no") or value.replace(".", "").isdigit()
    return f"{column} = {value}" if bare else value


def on_prompts(subset: str) -> str:
    """Where a number holds, as the tail of a phrase.

    >>> on_prompts("kind=benign"), on_prompts("kind=a − kind=b"), on_prompts("all")
    (' on benign prompts', ' on a minus b prompts', '')
    """
    if subset == "all":
        return ""
    return f" on {' minus '.join(subset_words(part) for part in subset.split(' − '))} prompts"


def lost_in_part(row: Any) -> float:
    """The share of the lead lost, where it is too small for a verdict and too large for none; else 0."""
    lost = row["index"] / row["peak"] if row["peak"] > 0 else 0.0
    counts = row["verdict"] == "none" and row["index_lo"] > 0 and lost >= SMALL
    return float(lost) if counts else 0.0


def verdict_sentence(row: Any, model: str) -> str:
    """One verdict in words, with its numbers."""
    where = on_prompts(row["subset"])
    index = f"suppression index {row['index']:.2f} [{row['index_lo']:.2f}, {row['index_hi']:.2f}]"
    leads = (
        f"the answer's lead is {row['peak']:.2f} logits at layer {row['peak_layer']} "
        f"and {row['final']:.2f} at the end"
    )
    if row["verdict"] == "none":
        said = "no evidence of suppression"
        if lost := lost_in_part(row):
            said = f"below the threshold for a verdict ({lost:.0%} of the lead is lost; less than half)"
        return f"{model}{where}: {said}; {leads} ({index}, handoff in {row['handoff_rate']:.0%} of prompts)."
    span = "" if pd.isna(row["onset_lo"]) else f" [{row['onset_lo']:.0f}, {row['onset_hi']:.0f}]"
    timing = "late" if row["late"] else "early, not late"
    done = "overridden" if row["verdict"] == "override" else "weakened by half or more"
    return (
        f"{model}{where}: the answer is represented and then {done}; {leads} ({index}, family-wise "
        f"p {p_value(row['p_familywise'])}, handoff in {row['handoff_rate']:.0%} of prompts). "
        f"The lead is lost at layer {row['onset_layer']:.0f}{span}: {timing}."
    )


def summarise(result: "AnalysisResult") -> list[str]:
    """One sentence per subset, and one per difference between subsets."""
    sentences = [verdict_sentence(row, row["model"]) for _, row in result.frames["verdicts"].iterrows()]
    table = result.table
    gaps = table[(table["metric"] == "suppression_index") & table["subset"].str.contains(" − ", regex=False)]
    for row in in_one_order(records(gaps)):
        where = on_prompts(row["subset"])
        sentences.append(
            f"{row['model']}{where}: the index differs by {row['estimate']:+.2f}{interval(row)}; "
            f"the interval {'excludes' if row['lo'] > 0 or row['hi'] < 0 else 'covers'} zero."
        )
    if "method" in table and (table["method"] == "tuned_lens").any():
        sentences.append(TUNED)
    return sentences


TUNED = (
    "Read through a tuned lens, which is fitted to its model's own output: trained where an override acts, "
    "it learns the override into earlier layers, and a small index says little. Compare the logit "
    "lens, or a lens trained on text where the override does not act."
)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def in_one_order(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Differences of two subsets, each pair of subsets in one order for all models, once per model.

    The order is that in which the largest difference is positive.

    >>> rows = [{"model": m, "subset": s, "estimate": e, "lo": e - 1, "hi": e + 1}
    ...         for m, s, e in (("base", "a − b", 0.5), ("it", "a − b", -9.0), ("it", "b − a", 9.0))]
    >>> [(row["model"], row["subset"], row["estimate"]) for row in in_one_order(rows)]
    [('base', 'b − a', -0.5), ('it', 'b − a', 9.0)]
    """
    order: dict[frozenset[str], tuple[float, str]] = {}
    for row in rows:
        pair = frozenset(row["subset"].split(" − "))
        told = row["subset"] if row["estimate"] >= 0 else _turned(row)["subset"]
        order[pair] = max(order.get(pair, (-1.0, "")), (abs(row["estimate"]), told))
    seen, out = set(), []
    for row in rows:
        pair = frozenset(row["subset"].split(" − "))
        if (row["model"], pair) not in seen:
            seen.add((row["model"], pair))
            out.append(dict(row) if row["subset"] == order[pair][1] else _turned(row))
    return out


def _turned(row: Mapping[str, Any]) -> dict[str, Any]:
    one, two = row["subset"].split(" − ")
    turned = {"subset": f"{two} − {one}", "estimate": -row["estimate"], "lo": -row["hi"], "hi": -row["lo"]}
    return {**row, **turned}


def draw(result: "AnalysisResult") -> "Figure":
    """LD per layer with its interval, one line per subset (and model)."""
    import plotly.graph_objects as go

    figure = go.Figure()
    curves = result.table[
        (result.table["metric"] == "logit_difference")
        & ~result.table["subset"].str.contains(" − ", regex=False)
    ]
    if "reference" in curves:
        curves = curves[curves["reference"].isna()]
    for number, ((model, subset), part) in enumerate(curves.groupby(["model", "subset"], sort=False)):
        add_band(figure, part, f"{model}, {subset}", COLOURS[number % len(COLOURS)])
    grey_untrusted(figure, result)
    figure.add_hline(y=0, line={"color": "black", "width": 1})
    figure.update_layout(
        title="Lead of the answer over the foil, read through the lens",
        template="plotly_white",
        xaxis_title="layer",
        yaxis_title="logit difference (answer − foil)",
    )
    return figure


def grey_untrusted(figure: Any, result: "AnalysisResult") -> None:
    """Shade the layers whose lens is not to be trusted."""
    trust = result.frames.get("trust")
    if trust is None:
        return
    for layer in trust.loc[~trust["trusted"].astype(bool), "layer"]:
        figure.add_vrect(
            x0=float(layer) - 0.5, x1=float(layer) + 0.5, fillcolor="grey", opacity=0.15, line_width=0
        )


def add_band(figure: Any, part: pd.DataFrame, name: str, colour: str, *, dash: str = "solid") -> None:
    """A line with its interval as a shaded band."""
    part = part.sort_values("layer")
    x, lo, hi = (np.asarray(part[column], dtype=float) for column in ("layer", "lo", "hi"))
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([hi, lo[::-1]]),
        fill="toself",
        fillcolor=colour,
        opacity=0.18,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=x, y=part["estimate"], mode="lines+markers", name=name, line={"color": colour, "dash": dash}
    )
