"""Which parts write the answer and which against it: direct logit attribution, with intervals."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ..lens.suppression import subsets_of
from ..result.analysis import AnalysisResult, tidy
from ..statistics.resampling import STORED, bootstrap_interval, cluster_bootstrap_weights
from ..statistics.rows import bounded
from .answer_task import AnswerTask, answer_task
from .components import Component, all_components
from .written_parts import attribute

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


METRIC = "direct_logit_attribution"


def attribution(
    store: Any,
    *,
    model: Any,
    target: str = "answer",
    foil: str = "foil",
    by: str | None = None,
    groups: Any = STORED,
    rows: NDArray[Any] | None = None,
    limit: int | None = 256,
    batch_size: int = 32,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> AnalysisResult:
    """Contribution of every head, MLP, attention layer and of the embedding to the logit difference.

    Args:
        store: one row per prompt, captured from `model`.
        model: the loaded model.
        target: lens column, label column or literal answer.
        foil: likewise.
        by: a label column; one set of contributions per value, and the difference where it has two.
        groups: rows that belong together.
        rows: mask or indices of the store's rows to use.
        limit: at most so many rows, drawn by whole groups; None for all.
        batch_size: prompts run at once.
        n_bootstrap: cluster-bootstrap draws.
        seed: of the draws.

    Returns:
        kind `attribution`; metric `direct_logit_attribution` in logits before any softcap, whose sum over
        `embed`, heads, `attention_bias`, MLPs and `constant` is the logit difference (checked). Frame
        `map`: layer × head and MLP.

    Raises:
        LayerprobeError: a model whose blocks are not additive, or whose sums do not check.
    """
    task = answer_task(
        store, model, target=target, foil=foil, groups=groups, rows=rows, limit=limit, seed=seed
    )
    names, values = contributions(model, task, batch_size)
    weights = cluster_bootstrap_weights(task.groups, n_bootstrap, seed).astype(np.float64)
    subsets = {name: mask[task.rows] for name, mask in subsets_of(store, by).items()}
    table: list[dict[str, Any]] = []
    draws = {}
    for subset, mask in subsets.items():
        if not mask.any():
            continue
        inside = np.concatenate([np.ones((1, len(task))), weights]) * mask
        draws[subset] = inside @ values / inside.sum(axis=1, keepdims=True)
        table += _rows(names, draws[subset], subset, mask, task)
    if len(draws) == 2:
        (first, one), (second, two) = draws.items()
        every = np.ones(len(task), bool)
        table += [{**row, "minus": second} for row in _rows(names, one - two, first, every, task)]
    result = tidy(
        {
            "model": store.model_name,
            "dataset": store.dataset_name,
            "target": f"{target} − {foil}",
            "metric": METRIC,
            "seed": seed,
            **row,
        }
        for row in table
    )
    parts = result["component"].astype(str)
    return AnalysisResult(
        kind="attribution",
        table=result,
        frames={"map": result[parts.str.startswith(("head", "mlp"))].reset_index(drop=True)},
        provenance={
            "target": target,
            "foil": foil,
            "by": by,
            "n": len(task),
            "seed": seed,
            "store": store.provenance,
        },
    )


def contributions(
    model: Any, task: AnswerTask, batch_size: int = 32
) -> tuple[list[Component | str], NDArray[np.float64]]:
    """Names, and contributions [rows, names] in logits."""
    names: list[Component | str] = [
        *all_components(model),
        *(f"attention_bias {layer}" for layer in range(model.n_layers)),
        *(f"attention {layer}" for layer in range(model.n_layers)),
        "embed",
        "constant",
        "total",
    ]
    values = np.full((len(task), len(names)), np.nan)
    for batch in task.batches(batch_size):
        parts = attribute(model, batch)
        blocks = torch.cat([parts.heads, parts.mlp[..., None]], dim=2).flatten(1)
        row = torch.cat(
            [
                blocks,
                parts.attention_bias,
                parts.attention,
                parts.embed[:, None],
                parts.constant[:, None],
                parts.difference[:, None],
            ],
            dim=1,
        )
        values[batch.rows] = row.cpu().numpy()
    return names, values


def _rows(
    names: list[Component | str],
    draws: NDArray[np.float64],
    subset: str,
    mask: NDArray[np.bool_],
    task: AnswerTask,
) -> list[dict[str, Any]]:
    size: dict[str, Any] = {
        "subset": subset,
        "n": int(mask.sum()),
        "n_groups": len(np.unique(task.groups[mask])),
        "ci_method": "cluster bootstrap, percentile",
    }
    several = size["n_groups"] > 1
    lo, hi = bootstrap_interval(draws[1:]) if several else (np.full(len(names), np.nan),) * 2
    rows = []
    for column, name in enumerate(names):
        if isinstance(name, Component):
            fields = name.fields()
        else:
            head, _, layer = name.partition(" ")
            fields = {
                "component": name,
                "layer": int(layer) if layer else None,
                "site": "attn_out" if head == "attention" else None,
            }
        row = {**size, **fields, **bounded(METRIC, draws[0, column], lo[column], hi[column])}
        rows.append(row if several else {**row, "note": "no interval: one group"})
    return rows


def summarise(result: AnalysisResult) -> list[str]:
    """Per subset: the total, and the parts that write most for and against the answer."""
    sentences = []
    for (model, subset), part in result.table.groupby(["model", "subset"], sort=False):
        total = part[part["component"] == "total"].iloc[0]
        single = part[part["component"].astype(str).str.startswith(("head", "mlp"))].sort_values("estimate")
        against, for_it = single.head(3), single.tail(3)[::-1]
        where = "" if subset == "all" else f" where {subset}"
        sentences.append(
            f"{model}{where} ({int(total['n'])} prompts): the answer leads by {total['estimate']:+.2f} "
            f"logits before any softcap; most against it write {_named(against)}, most for it "
            f"{_named(for_it)}."
        )
    return sentences


def _named(rows: pd.DataFrame) -> str:
    return ", ".join(f"{row['component']} ({row['estimate']:+.2f})" for _, row in rows.iterrows())


def draw(result: AnalysisResult) -> "Figure":
    """Layer × head (and MLP) map of the first subset, or of the difference where there are two."""
    subset = list(dict.fromkeys(result.frames["map"]["subset"]))[-1]
    part = result.frames["map"][result.frames["map"]["subset"] == subset]
    return component_map(part, f"Direct logit attribution, {subset}", "logits")


def component_map(part: pd.DataFrame, title: str, unit: str) -> "Figure":
    """A heat map of layers by heads and MLP."""
    import plotly.graph_objects as go

    column = (
        np.where(
            part["site"] == "head_out",
            "head " + part["head"].astype("Int64").astype(str),
            part["site"].astype(str).str.removesuffix("_out"),
        )
        if "head" in part
        else "mlp"
    )
    grid = part.assign(column=column).pivot_table(
        index="layer", columns="column", values="estimate", sort=False
    )
    reach = float(np.nanmax(np.abs(grid.to_numpy(dtype=float)))) or 1.0
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(dtype=float),
            x=list(grid.columns),
            y=[int(layer) for layer in grid.index],
            zmin=-reach,
            zmax=reach,
            colorscale="RdBu",
            colorbar={"title": unit},
        )
    )
    figure.update_layout(title=title, yaxis_title="layer", template="plotly_white")
    return figure
