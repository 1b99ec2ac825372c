"""The picture of a probe result: curves over layers for whole sites, maps of layer × head for the others."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..result.records import clear, column, first_metric
from ..result.words import subset_words, title_of
from .readable import BASELINES, CHANCE

if TYPE_CHECKING:
    from altair import Chart

    from ..result.analysis import AnalysisResult
    from ..result.charts import Reference

BARE = "sites without layers"


def draw(result: "AnalysisResult", *, scored_on: str = "held-out groups") -> "Chart":
    """Each label's first metric at every place, with interval, null band, chance and baselines.

    A panel for each label, domain and site; a colour for each model. Sites without layers are points.

    Args:
        result: of `linear_probe` or its kin, of one model or several.
        scored_on: said in the title.
    """
    from ..result.charts import stacked

    rows = first_metric(result.table)
    rows = rows[rows["estimate"].notna()]
    methods = ", ".join(column(rows, "method").dropna().unique())
    targets = list(rows["target"].unique())
    shown = f"“{targets[0]}”" if len(targets) == 1 else f"{len(targets)} labels"
    title = f"{shown}: {methods} probe on {scored_on}"
    by_head = column(rows, "head").notna()
    charts: list[Any] = []
    if (~by_head).any():
        charts.append(curves(rows[~by_head], title))
    if by_head.any():
        charts.append(head_maps(rows[by_head], title if not charts else f"{title}, by head"))
    return stacked(charts)


def curves(rows: pd.DataFrame, title: str) -> Any:
    """Curves over layers, or one map of all of them where there are too many panels to compare."""
    from ..result.charts import layer_curves
    from ..result.theme import MANY_FACETS

    rows = with_panels(rows)
    metrics = list(rows["metric"].unique())
    if rows["panel"].nunique() > MANY_FACETS:
        return _map_of_panels(rows, title)
    return layer_curves(
        rows,
        y_title=title_of(metrics[0]) if len(metrics) == 1 else "score",
        facet="panel" if rows["panel"].nunique() > 1 else None,
        found="found" if tested(rows) else None,
        references=tuple(references(rows)),
        shared_y=len(metrics) == 1,
        title=title,
    )


def with_panels(rows: pd.DataFrame) -> pd.DataFrame:
    """Adds `panel`, named by what differs between panels, and `found`.

    Sites without layers join the panel of the residual stream or of the only site, or share one panel.
    """
    layered = column(rows, "layer").notna()
    sites = list(rows.loc[layered, "site"].unique())
    home = "resid_post" if "resid_post" in sites else sites[0] if len(sites) == 1 else BARE
    site = rows["site"].where(layered, home)
    parts = {
        "target": rows["target"].astype(str),
        "subset": column(rows, "subset").astype(object).map(lambda v: subset_words(str(v))),
        "metric": rows["metric"].map(title_of),
        "site": site,
    }
    several = [names for names in parts.values() if names.nunique() > 1]
    panel = several[0] if several else site
    for names in several[1:]:
        panel = panel + " · " + names
    return rows.assign(panel=panel, found=clear(rows))


def tested(rows: pd.DataFrame) -> bool:
    """Whether any row has a p-value."""
    return bool(column(rows, "p_familywise").notna().any())


def references(rows: pd.DataFrame) -> Iterator["Reference"]:
    """Chance, and what is known without activations: of every panel, and of every model where they differ."""
    from ..result.charts import Reference
    from ..result.theme import BASELINE
    from ..result.theme import CHANCE as GREY

    dashes = {"text": (6, 3), "length": (2, 2), "majority": (8, 3, 2, 3)}
    chance = rows["metric"].map(CHANCE).astype(float)
    if chance.notna().any():
        levels = pd.DataFrame({"panel": rows["panel"], "value": chance}).dropna().drop_duplicates("panel")
        yield Reference(levels, label="chance", colour=GREY)
    for name, title in BASELINES.items():
        known = rows.assign(value=column(rows, f"baseline_{name}").astype(float)).dropna(subset="value")
        if name == "majority":
            known = known[~known["metric"].isin(list(CHANCE))]
        if not len(known):
            continue
        each = known.assign(model=column(known, "model")).drop_duplicates(["panel", "model"])
        apart = each.groupby("panel")["value"].agg(lambda v: v.max() - v.min()).max() > 0.005
        for model, mine in each.groupby("model", sort=False, dropna=False) if apart else [("", each)]:
            levels = mine[["panel", "value"]].drop_duplicates("panel")
            label = f"{title}, {model}" if apart else title
            yield Reference(levels, label=label, colour=BASELINE, dash=dashes[name])


def _map_of_panels(rows: pd.DataFrame, title: str) -> Any:
    """A line for each panel, a column for each layer, a map for each model."""
    from ..result.charts import layer_map

    rows = rows.sort_values("layer", kind="stable") if "layer" in rows else rows
    metrics = list(rows["metric"].unique())
    places = [
        site if pd.isna(n) else str(n) for site, n in zip(rows["site"], column(rows, "layer"), strict=True)
    ]
    order = {name: i for i, name in enumerate(dict.fromkeys(rows["panel"].sort_index()))}
    rows = rows.assign(place=places, rank=rows["panel"].map(order)).sort_values("rank", kind="stable")
    return layer_map(
        rows,
        x="place",
        y="panel",
        x_title="layer",
        y_title="",
        value_title=title_of(metrics[0]) if len(metrics) == 1 else "score",
        facet="model" if column(rows, "model").nunique() > 1 else None,
        found="found" if tested(rows) else None,
        diverging=metrics[0] in CHANCE,
        centre=CHANCE.get(metrics[0], 0.0),
        title=title,
    )


def head_maps(rows: pd.DataFrame, title: str) -> Any:
    """Maps of layer × head: of each label, domain, site and model."""
    from ..result.charts import layer_map

    rows = with_panels(rows).assign(head=rows["head"].astype("Int64"))
    if column(rows, "model").nunique() > 1:
        rows["panel"] = rows["model"].astype(str) + " · " + rows["panel"]
    metric = str(rows["metric"].iloc[0])
    return layer_map(
        rows,
        x="head",
        y="layer",
        value_title=title_of(metric),
        facet="panel",
        found="found" if tested(rows) else None,
        diverging=metric in CHANCE,
        centre=CHANCE.get(metric, 0.0),
        title=title,
    )
