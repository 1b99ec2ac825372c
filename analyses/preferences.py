"""Preference dimensions (MRMBench, 2511.12464): what reward models tell apart and what a reward rests on.

Probes on the last token of a frozen model, one per dimension (harmlessness, helpfulness, …), with majority
and balanced accuracy in every row; then *inference-time probing*: how far a reward prediction can be put
together from the dimensions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from ..hooks.errors import LayerprobeError
from .linear_probe_methods import Method, find_method
from .linear_probe_problem import Fits, Floats, Problem
from .linear_probe_run import probe_task
from .linear_probe_task import Task
from .resampling import STORED, cluster_bootstrap_weights, resolve_groups, split_half
from .result import AnalysisResult, tidy
from .reward_head import reward_head

__all__ = ["preference_dimensions", "reward_decomposition", "reward_head"]

CLASS_METRICS = ["balanced_accuracy", "accuracy"]
CI_METHOD = "cluster bootstrap over groups that the regression has not seen"
METRICS = {
    "binary": CLASS_METRICS,
    "multinomial": CLASS_METRICS,
    "regression": ["r2", "pearson", "spearman"],
}


def preference_dimensions(
    store: Any,
    *,
    dimensions: Sequence[str],
    recipe: str = "converged",
    groups: Any = STORED,
    seed: int = 0,
    **options: Any,
) -> AnalysisResult:
    """Probe every preference dimension at every site and layer.

    Args:
        store: last-token states of a reward model or any decoder.
        dimensions: label columns: any number of classes, or grades that are no whole numbers (ridge, scored
            by R², Pearson and Spearman).
        recipe: `converged` (logistic, strength chosen inside) or `published`: one linear layer, one epoch of
            AdamW at learning rate 5e-5 in batches of 16. The published recipe is far from its optimum
            (`converged` is False in its rows): a constant predictor beats several models scored with it.
        groups: as `linear_probe`.
        seed: as `linear_probe`, and of the published recipe's initialisation and batches.
        **options: as `linear_probe`.

    Returns:
        As `linear_probe`, corrected over all dimensions; balanced accuracy is the metric that is tested,
        accuracy beside it, each with its majority baseline.
    """
    if recipe not in ("converged", "published"):
        raise LayerprobeError(f"recipe={recipe!r}, expected 'converged' or 'published'")
    unknown = [name for name in dimensions if name not in store.label_names]
    if unknown:
        raise LayerprobeError(
            f"dimensions {unknown} are no label columns; have {', '.join(store.label_names)}"
        )

    def build(task: Task) -> tuple[Method, None]:
        if task.kind == "regression" and recipe == "published":
            raise LayerprobeError(
                f"the published recipe has no grades such as {task.name!r}; pass recipe='converged'"
            )
        if recipe == "converged":
            return find_method("ridge" if task.kind == "regression" else "logistic", task.kind), None

        def fit(problem: Problem, strengths: Floats) -> Fits:
            return one_epoch(problem, seed=seed)

        return Method(fit, np.ones(1), ("binary", "multinomial"), True, stacked=False), None

    chosen = {"metrics": METRICS, **options}
    name = "logistic" if recipe == "converged" else "mrmbench_published"
    return probe_task(store, list(dimensions), name, build, groups=groups, seed=seed, **chosen)


def one_epoch(problem: Problem, *, seed: int, rate: float = 5e-5, batch: int = 16) -> Fits:
    """A linear layer after one pass of AdamW over the rows, on raw features, as published."""
    classes = 1 if problem.n_classes == 2 else problem.n_classes
    rows, y, masks = problem.tensors()
    x = rows.float()
    weights, biases = [], []
    for fold in range(problem.n_folds):
        generator = torch.Generator().manual_seed(seed)  # the same start and order on every device
        bound = x.shape[1] ** -0.5
        w = (torch.rand(classes, x.shape[1], generator=generator) * 2 - 1) * bound
        b = (torch.rand(classes, generator=generator) * 2 - 1) * bound
        w, b = w.to(x.device).requires_grad_(), b.to(x.device).requires_grad_()
        optimiser = torch.optim.AdamW([w, b], lr=rate)
        seen = torch.nonzero(masks[:, fold] > 0)[:, 0]
        order = torch.randperm(len(seen), generator=generator).to(x.device)
        for mine in seen[order].split(batch):
            margin = x[mine] @ w.T + b
            if classes == 1:
                loss = torch.nn.functional.binary_cross_entropy_with_logits(margin[:, 0], y[mine].float())
            else:
                loss = torch.nn.functional.cross_entropy(margin, y[mine])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        weights.append(w.detach().double()[0] if classes == 1 else w.detach().double())
        biases.append(b.detach().double()[0] if classes == 1 else b.detach().double())
    unknown = rows.new_full((len(weights), 1), torch.nan)
    return Fits.solved(
        problem,
        torch.stack(weights)[:, None],
        torch.stack(biases)[:, None],
        unknown,
        torch.zeros_like(unknown, dtype=torch.bool),
    )


def reward_decomposition(
    store: Any,
    probes: AnalysisResult,
    *,
    reward: ArrayLike,
    site: str,
    layer: int | None = None,
    groups: Any = STORED,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> AnalysisResult:
    """Which dimensions a scalar reward rests on: its prediction from dimension scores, and what is left.

    Two views. *Geometric*: the reward direction as a least-squares combination of the dimension directions,
    with the share of its length they do not span. *On data*: reward predictions regressed on dimension scores
    on one half of the groups and judged on the other; a dimension's `unique` is the R² lost without it.
    Dimensions overlap, so shares need not add up.

    Args:
        store: the states that the head reads (for most reward models `final_norm`, or the last `resid_post`).
        probes: from `preference_dimensions` on the same site, binary dimensions.
        reward: [width] the head's direction.
        site: where.
        layer: where.
        groups: as `linear_probe`.
        n_bootstrap: cluster-bootstrap draws for the interval of R².
        seed: of the halves and draws.

    Returns:
        One row per dimension (`coefficient`, `unique`, `cosine`) and rows of metric `r2` and
        `unexplained_norm`; frame `cluster_distances`: for each row the distance to each dimension's class
        means, in standard deviations.
    """
    directions = probes.directions
    if directions is None:
        raise LayerprobeError("these probes keep no common directions; use dimensions with two classes each")
    weight = np.atleast_2d(np.asarray(directions[site, layer], dtype=np.float64))
    names = list(directions.names) or [str(probes.table["target"].iloc[0])]
    head = np.asarray(reward, dtype=np.float64).ravel()
    x = np.asarray(store.activations(site, layer), dtype=np.float64)
    if head.shape[0] != x.shape[1] or weight.shape[1] != x.shape[1]:
        raise LayerprobeError(
            f"the reward direction has width {head.shape[0]}, the probes {weight.shape[1]} and {site} "
            f"{x.shape[1]}; all three must be of one model and site"
        )
    unit = weight / np.linalg.norm(weight, axis=1, keepdims=True)
    coefficient = np.linalg.lstsq(unit.T, head, rcond=None)[0]
    unexplained = np.linalg.norm(head - unit.T @ coefficient) / np.linalg.norm(head)
    codes = resolve_groups(store, groups)
    fit = split_half(codes, seed)
    scores, predicted = x @ unit.T, x @ head
    weights = cluster_bootstrap_weights(codes[~fit], n_bootstrap, seed + 1)
    r2, draws = _explained(scores, predicted, fit, weights)
    common = {
        "model": store.model_name,
        "site": site,
        "layer": layer,
        "method": "least squares",
        "seed": seed,
        "n": int((~fit).sum()),
        "n_groups": len(np.unique(codes[~fit])),
    }
    rows = [
        {
            **common,
            "metric": "r2",
            "estimate": r2,
            "lo": float(np.quantile(draws, 0.025)),
            "hi": float(np.quantile(draws, 0.975)),
            "ci_method": CI_METHOD,
        },
        {
            **common,
            "metric": "unexplained_norm",
            "estimate": float(unexplained),
            "note": "geometry of the directions at hand: no sampling, no interval",
        },
    ]
    for index, name in enumerate(names):
        others = np.delete(scores, index, axis=1)
        without, other_draws = _explained(others, predicted, fit, weights)
        lo, hi = np.quantile(draws - other_draws, [0.025, 0.975])
        cosine = float(unit[index] @ head / np.linalg.norm(head))
        rows.append(
            {
                **common,
                "target": name,
                "metric": "unique_r2",
                "estimate": r2 - without,
                "lo": float(lo),
                "hi": float(hi),
                "ci_method": CI_METHOD,
                "coefficient": float(coefficient[index]),
                "cosine": cosine,
            }
        )
    return AnalysisResult(
        kind="preferences",
        table=tidy(rows),
        frames={"cluster_distances": cluster_distances(store, names, x, fit)},
        provenance={"dimensions": names},
    )


def _explained(scores: Floats, target: Floats, fit: NDArray[np.bool_], weights: Any) -> tuple[float, Floats]:
    from .metrics import r2

    design = np.concatenate([scores, np.ones((len(scores), 1))], axis=1)
    beta = np.linalg.lstsq(design[fit], target[fit], rcond=None)[0]
    predicted = design[~fit] @ beta
    return float(r2(target[~fit], predicted)[0]), r2(target[~fit], predicted, weights)


def cluster_distances(store: Any, names: Sequence[str], x: Floats, fit: NDArray[np.bool_]) -> pd.DataFrame:
    """[rows × dimensions × classes] distance to class means, in root-mean-square standard deviations.

    Means and spread come from the rows of `fit`; the nearest class and by how much it is nearer say which
    side of which dimension an example lies on.
    """
    scale = x[fit].std(axis=0)
    z = (x - x[fit].mean(axis=0)) / np.where(scale > 0, scale, 1)
    parts = []
    for name in names:
        labels = np.asarray(store.labels(name))
        for value in pd.unique(labels[fit]):
            centre = z[fit & (labels == value)].mean(axis=0)
            distance = np.sqrt(((z - centre) ** 2).mean(axis=1))
            parts.append(
                pd.DataFrame(
                    {
                        "id": store.ids,
                        "dimension": name,
                        "class": str(value),
                        "distance": distance,
                        "fitted": fit,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
