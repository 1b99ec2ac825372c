"""Which parts write the answer and which against it: direct logit attribution, with intervals."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.model import Model
from ..lens.suppression import subsets_of
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Column
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.resampling import STORED, bootstrap_interval, cluster_bootstrap_weights
from .answer_task import AnswerTask, answer_task
from .component_views import attribution_drawn, attribution_found
from .components import Component, all_components
from .written_parts import attribute

METRIC = "direct_logit_attribution"


@analysis(
    title="Which parts write the answer?",
    group="cause",
    guide="suppression",
    findings=attribution_found,
    picture=attribution_drawn,
)
def attribution(
    store: ActivationStore,
    *,
    model: Model,
    target: Answer = "answer",
    foil: Answer = "foil",
    by: Column | None = None,
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

    Source: Elhage et al. 2021, “A mathematical framework for transformer circuits”.

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["instruct"])
    >>> labels = ["sensitive", "answer", "foil", "role"]
    >>> columns = {"text": "prompt", "labels": labels, "group": "group", "pair": "pair"}
    >>> prompts = lp.read_prompts(demo.prompts_file(), **columns)[:16]
    >>> options = {"lens_tokens": ["answer", "foil"], "chat_template": True, "progress": False}
    >>> store = lp.capture(model, prompts, sites=["lens"], **options)
    >>> table = lp.attribution(store, model=model, n_bootstrap=20).table.set_index("component")
    >>> parts = table.drop(index=[name for name in table.index if name.startswith(("attention ", "total"))])
    >>> bool(abs(parts["estimate"].sum() - table.loc["total", "estimate"]) < 1e-3)
    True
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
    model: Model, task: AnswerTask, batch_size: int = 32
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
