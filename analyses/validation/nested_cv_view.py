"""Nested cross-validation in words and as a picture."""

from typing import TYPE_CHECKING, Any

from ..result.panels import column
from ..result.words import title_of

if TYPE_CHECKING:
    from ..result.analysis import AnalysisResult


def summarise(result: "AnalysisResult") -> list[str]:
    """The range over layers, and by how much naive errors would be too small."""
    table = result.table
    low, high = table["estimate"].min(), table["estimate"].max()
    wider = (table["standard_error"] / table["naive_error"].where(table["naive_error"] > 0)).mean()
    row = table.iloc[0]
    return [
        f"{row['target']!r}: cross-validated {row['metric']} from {low:.3f} to {high:.3f} over {len(table)} "
        f"places ({row['n']} rows of {row['n_groups']} groups, all scored).",
        f"Nested standard errors are on average {wider:.2f} times those of pooled cross-validation.",
    ]


def draw(result: "AnalysisResult") -> Any:
    """Curves over layers with their intervals, a colour per model; for sites read by heads, maps."""
    from ..result.charts import Reference, layer_curves, layer_map, stacked

    table = result.table
    metric = str(table["metric"].iloc[0])
    title = f"“{table['target'].iloc[0]}”: nested cross-validation"
    by_head, layered = column(table, "head").notna(), column(table, "layer").notna()
    charts = []
    if (~by_head).any():
        charts.append(
            layer_curves(
                table[~by_head],
                y_title=title_of(metric),
                facet="site" if table.loc[~by_head & layered, "site"].nunique() > 1 else None,
                references=[Reference(0.5, "chance")] if metric == "auroc" else [],
                title=title,
            )
        )
    if by_head.any():
        maps = table[by_head].assign(panel=table["site"], head=table["head"].astype("Int64"))
        if column(maps, "model").nunique() > 1:
            maps["panel"] = maps["model"] + " · " + maps["site"]
        charts.append(
            layer_map(
                maps,
                x="head",
                y="layer",
                value_title=title_of(metric),
                facet="panel" if maps["panel"].nunique() > 1 else None,
                diverging=metric == "auroc",
                centre=0.5,
                title=f"{title}, by head",
            )
        )
    return stacked(charts)
