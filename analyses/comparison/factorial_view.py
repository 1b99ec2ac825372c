"""A two by two of weights and templates in sentences and in a figure."""

from typing import TYPE_CHECKING

import numpy as np

from ..lens.suppression_view import COLOURS, add_band, in_one_order, on_prompts, records

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..result.analysis import AnalysisResult


def summarise(result: "AnalysisResult") -> list[str]:
    """Tuning against template per layer, and the interaction."""
    table = result.table
    sentences = []
    shift = table[table["metric"] == "mean_shift"]
    for effect, part in shift[shift["estimate"].notna()].groupby("effect", sort=False):
        top = part.iloc[int(np.nanargmax(part["estimate"].to_numpy(dtype=float)))]
        sentences.append(
            f"{effect}: activations move most at {top['site']}[{top['layer']}], by {top['estimate']:.2f} "
            f"[{top['lo']:.2f}, {top['hi']:.2f}] of the reference's spread."
        )
    gaps = records(table[(table["metric"] == "suppression_index") & table["reference"].notna()])
    told = {}
    for row in in_one_order([{**gap, "model": gap["effect"]} for gap in gaps if " − " in gap["subset"]]):
        told[row["effect"], frozenset(row["subset"].split(" − "))] = row
    for gap in gaps:
        row = told.get((gap["effect"], frozenset(gap["subset"].split(" − "))), gap)
        sentences.append(
            f"{row['effect']}{on_prompts(row['subset'])}: suppression index {row['estimate']:+.2f} "
            f"[{row['lo']:.2f}, {row['hi']:.2f}]; the interval "
            f"{'excludes' if row['lo'] > 0 or row['hi'] < 0 else 'covers'} zero."
        )
    return sentences


def draw(result: "AnalysisResult") -> "Figure":
    """Mean shift per layer, one line per effect."""
    import plotly.graph_objects as go

    figure = go.Figure()
    shift = result.table[result.table["metric"] == "mean_shift"]
    for number, (effect, part) in enumerate(shift.groupby("effect", sort=False)):
        add_band(figure, part, str(effect), COLOURS[number % len(COLOURS)])
    figure.update_layout(
        template="plotly_white",
        xaxis_title="layer",
        yaxis_title="mean shift / spread of the reference",
        title="What tuning moves, and what the template moves",
    )
    return figure
