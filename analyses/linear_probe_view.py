"""A linear-probe result in words and as a picture."""

from typing import TYPE_CHECKING

import pandas as pd

from .result import AnalysisResult

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NAMES = {
    "auroc": "AUROC",
    "balanced_accuracy": "balanced accuracy",
    "r2": "R²",
    "text": "bag of words",
    "length": "prompt length",
    "majority": "majority",
}


def summarise(result: AnalysisResult) -> list[str]:
    """One or two sentences per model and site, each with its numbers."""
    sentences = []
    for _, best in result.frames["best_layer"].iterrows():
        sentences.append(_best_sentence(result, best))
        sentences.extend(_baseline_sentences(result, best))
    if "converged" in result.table:
        table = result.table[result.table["metric"] == result.table["metric"].iloc[0]]
        failed = int((~table["converged"].astype(bool)).sum())
        if failed:
            sentences.append(
                f"{failed} of {_count(len(table), 'probe')} had not converged when their iterations ran out; "
                "read those rows (converged = False) as lower bounds on what a probe finds."
            )
    return sentences


def _place(row: pd.Series) -> str:
    place = row["site"] if pd.isna(row.get("layer")) else f"{row['site']}[{row['layer']}]"
    return place if pd.isna(row.get("head")) else f"{place} head {int(row['head'])}"


def _interval(row: pd.Series) -> str:
    if pd.isna(row.get("lo")):
        return f"{row['estimate']:.3f} (no interval: {row.get('note')})"
    return f"{row['estimate']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}]"


def _best_sentence(result: AnalysisResult, best: pd.Series) -> str:
    """A finding if the chosen place is above chance, and else that none is, or which others are."""
    metric = NAMES.get(best["metric"], best["metric"])
    table = result.table[result.table["target"] == best["target"]]
    rows = table[(table["site"] == best["site"]) & (table["metric"] == best["metric"])]
    score = f"{metric} {_interval(best)} on {best['n']} rows of {best['n_groups']} held-out groups"
    model, target, place = best["model"], repr(best["target"]), _place(best)
    if "p_familywise" not in rows or rows["p_familywise"].isna().all():
        return (
            f"{model}: at {place}, the place that did best on training groups, the probe of {target} has "
            f"{score}; not tested against chance."
        )
    clear = rows[rows["p_familywise"] <= 0.05]
    if not len(clear):
        least = rows["p_familywise"].min()
        return (
            f"{model}: no place in {best['site']} reads {target} above chance (smallest family-wise p = "
            f"{least:.3f} over {_count(len(rows), 'place')}); the one that did best on training groups, "
            f"{place}, has {score}."
        )
    found = (
        f"{len(clear)} of {_count(len(rows), 'place')} {'is' if len(clear) == 1 else 'are'} above chance "
        f"(family-wise p ≤ 0.05), the first at {_place(clear.iloc[0])}"
    )
    if len(rows) == 1:
        found = f"above chance (p = {clear.iloc[0]['p_familywise']:.3f})"
    if any(_place(row) == place for _, row in clear.iterrows()):
        return (
            f"{model}: {target} is read at {place} (the place that did best on training groups) with "
            f"{score}; {found}."
        )
    return (
        f"{model}: {target} is not clearly read at {place}, the place that did best on training groups "
        f"({score}), though {found}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _baseline_sentences(result: AnalysisResult, best: pd.Series) -> list[str]:
    leads = result.frames["against_baselines"]
    leads = leads[(leads["target"] == best["target"]) & (leads["site"] == best["site"])]
    leads = leads[leads["reference"] != "majority"]
    metric = NAMES.get(best["metric"], best["metric"])
    sentences = []
    for _, lead in leads.iterrows():
        name = NAMES[lead["reference"]]
        known = best["estimate"] - lead["estimate"]
        if pd.isna(lead.get("lo")):
            continue
        verdict = "beats" if lead["lo"] > 0 else "does not beat" if lead["hi"] >= 0 else "is below"
        sentence = (
            f"There the probe {verdict} {name} alone ({metric} {known:.3f}): "
            f"difference {lead['estimate']:+.3f} [{lead['lo']:.3f}, {lead['hi']:.3f}]."
        )
        if verdict != "beats" and best["estimate"] > 0.6:
            sentence += f" What it reads may be no more than {name}."
        sentences.append(sentence)
    return sentences


def draw(result: AnalysisResult) -> "Figure":
    """The layer curve with interval, chance, null band and baselines; by heads, a map of layer × head."""
    import plotly.graph_objects as go

    table = result.table
    metric = table["metric"].iloc[0]
    rows = table[table["metric"] == metric]
    if "head" in rows and rows["head"].notna().any():
        grid = rows.pivot_table(index="layer", columns="head", values="estimate")
        figure = go.Figure(
            go.Heatmap(
                z=grid.to_numpy(float),
                x=[int(head) for head in grid.columns],
                y=[int(layer) for layer in grid.index],
                colorbar={"title": NAMES.get(metric, metric)},
            )
        )
        figure.update_layout(
            xaxis_title="head", yaxis_title="layer", title=f"{rows['target'].iloc[0]} by head"
        )
        return figure
    figure = go.Figure()
    several = rows["target"].nunique() > 1
    for (model, site, target), curve in rows[rows["layer"].notna()].groupby(
        ["model", "site", "target"], sort=False
    ):
        _add_curve(figure, curve, f"{model} {site}: {target}" if several else f"{model} {site}")
    first = rows[rows["layer"].notna()].drop_duplicates("layer") if "layer" in rows else rows.head(0)
    if len(first):
        _add_references(figure, first, metric)
    shown = f"{rows['target'].nunique()} labels" if several else rows["target"].iloc[0]
    figure.update_layout(
        title=f"{shown}: {rows['method'].iloc[0]} probe on held-out groups",
        xaxis_title="layer",
        yaxis_title=NAMES.get(metric, metric),
        template="plotly_white",
    )
    return figure


def _add_curve(figure: "Figure", curve: pd.DataFrame, name: str) -> None:
    curve = curve.sort_values("layer")
    x, y = [int(layer) for layer in curve["layer"]], curve["estimate"]
    bars = None
    if "lo" in curve:
        bars = {"type": "data", "array": curve["hi"] - y, "arrayminus": y - curve["lo"], "thickness": 1}
    figure.add_scatter(x=x, y=y, error_y=bars, mode="lines+markers", name=name)


def _add_references(figure: "Figure", rows: pd.DataFrame, metric: str) -> None:
    rows = rows.sort_values("layer")
    x = [int(layer) for layer in rows["layer"]]
    if "null_mean" in rows and rows["null_mean"].notna().all():
        lo = rows["null_mean"] - 1.96 * rows["null_sd"]
        hi = rows["null_mean"] + 1.96 * rows["null_sd"]
        figure.add_scatter(
            x=[*x, *x[::-1]],
            y=[*hi, *lo[::-1]],
            fill="toself",
            mode="none",
            fillcolor="rgba(120,120,120,0.2)",
            name="null (95 %)",
        )
    dashes = {"baseline_majority": "dot", "baseline_text": "dash", "baseline_length": "dashdot"}
    for column, dash in dashes.items():
        if column in rows:
            figure.add_scatter(
                x=x,
                y=rows[column],
                mode="lines",
                line={"dash": dash, "color": "gray"},
                name="chance" if column == "baseline_majority" and metric == "auroc" else NAMES[column[9:]],
            )
