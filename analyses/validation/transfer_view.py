"""Whether probes travel from one dataset to another, in words and as a picture."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.analysis import AnalysisResult
from ..result.panels import NAMES, column, place_name, same_place
from ..result.words import bounds, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIVERGING = {"auroc": (0.0, 0.5, 1.0), "balanced_accuracy": (0.0, None, 1.0)}
"""Least, chance and most, where a metric has them."""


def summarise(result: AnalysisResult) -> list[str]:
    """The best and worst transfer at the place that transfers best."""
    best = _travels_best(result.table)
    if best is None:
        return ["No probe could be scored on a dataset other than its own."]
    here = result.table[same_place(result.table, best)]
    metric = NAMES.get(here["metric"].iloc[0], here["metric"].iloc[0])
    at_home = here[here["train_on"] == here["test_on"]]["estimate"].mean()
    moved = here[here["train_on"] != here["test_on"]].dropna(subset="estimate")
    worst = moved.sort_values("estimate").iloc[0]
    return [
        f"At {place_name(best)}, where probes travel best, {metric} is {number(at_home)} on the dataset they "
        f"were fitted on and {number(moved['estimate'].mean())} on others; worst from {worst['train_on']!r} "
        f"to {worst['test_on']!r}: {number(worst['estimate'])}{bounds(worst)}."
    ]


def _travels_best(table: pd.DataFrame) -> pd.Series | None:
    """The site, layer and head whose mean score away from home is highest; none if nothing was scored."""
    away = table[(table["train_on"] != table["test_on"]) & table["estimate"].notna()]
    if not len(away):
        return None
    where = pd.DataFrame({"site": away["site"], "layer": column(away, "layer"), "head": column(away, "head")})
    mean = away["estimate"].groupby([where[name] for name in where], sort=False, dropna=False).mean()
    return mean.reset_index().sort_values("estimate", kind="stable").iloc[-1]


def draw(result: AnalysisResult) -> "Figure":
    """For every site the matrix at the place that transfers best, numbers in its cells."""
    from plotly.subplots import make_subplots

    table = result.table
    sites = list(table["site"].unique())
    metric = str(table["metric"].iloc[0])
    label = NAMES.get(metric, metric)
    places = {site: _travels_best(table[table["site"] == site]) for site in sites}
    told = [site if (place := places[site]) is None else place_name(place) for site in sites]
    figure = make_subplots(
        cols=len(sites), subplot_titles=told, shared_yaxes=True, horizontal_spacing=0.3 / max(4, len(sites))
    )
    for index, site in enumerate(sites, 1):
        mine = table[table["site"] == site]
        best = places[site]
        # where no probe was scored away from home, any place shows the empty matrix
        here = mine[same_place(mine, mine.iloc[0] if best is None else best)]
        order = list(dict.fromkeys([*here["train_on"], *here["test_on"]]))
        grid = here.pivot(index="train_on", columns="test_on", values="estimate").reindex(
            index=order, columns=order
        )
        figure.add_heatmap(
            z=grid.to_numpy(float),
            x=order,
            y=order,
            text=[["" if pd.isna(v) else number(v) for v in row] for row in grid.to_numpy(float)],
            texttemplate="%{text}",
            hovertemplate=f"fitted on %{{y}}, scored on %{{x}}: {label} %{{text}}<extra></extra>",
            coloraxis="coloraxis",
            row=1,
            col=index,
        )
        figure.update_xaxes(title_text="scored on", row=1, col=index)
    scale: dict[str, Any] = {"colorscale": "Viridis", "colorbar": {"title": {"text": label}}}
    if metric in DIVERGING:
        least, chance, most = DIVERGING[metric]
        scale |= {"cmin": least, "cmax": most}
        if chance is not None:
            scale |= {"colorscale": "RdBu", "reversescale": True}
    figure.update_yaxes(title_text="fitted on", row=1, col=1)
    figure.update_yaxes(autorange="reversed")
    return figure.update_layout(
        coloraxis=scale,
        title=f"{table['target'].iloc[0]}: {label} from one dataset to another",
        template="plotly_white",
        height=420,
    )
