"""Preference dimensions (MRMBench, 2511.12464): what reward models tell apart and what a reward rests on.

Probes on the last token of a frozen model, one per dimension (harmlessness, helpfulness, …), with majority
and balanced accuracy in every row; then *inference-time probing*: how far a reward prediction can be put
together from the dimensions.
"""

from typing import Any, Literal

import numpy as np
import torch

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.linear import linear_probe
from ..probes.loop import probe_task
from ..probes.methods import Method, find_method
from ..probes.option_checks import ProbePlan
from ..probes.picture import draw
from ..probes.problem import Fits, Floats, Problem
from ..probes.readable import found
from ..reading.task import Task
from ..result.analysis import AnalysisResult
from ..result.options import Classes
from ..result.registry import analysis
from ..statistics.resampling import STORED

CLASS_METRICS = ["balanced_accuracy", "accuracy"]
METRICS = {
    "binary": CLASS_METRICS,
    "multinomial": CLASS_METRICS,
    "regression": ["r2", "pearson", "spearman"],
}


@analysis(
    command="preferences",
    title="Which preference dimensions can be read off?",
    group="read",
    guide="probes",
    passes_on=linear_probe,
    findings=found,
    picture=draw,
    without=("method", "positive"),
)
def preference_dimensions(
    store: ActivationStore,
    *,
    dimensions: Classes,
    recipe: Literal["converged", "published"] = "converged",
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

    Raises:
        LayerprobeError: no dimension, an unknown recipe; and as `linear_probe`.

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> helpful, harmless = rng.integers(2, size=(2, 160))
    >>> x = rng.normal(size=(1, 160, 8)); x[0, :, 0] += 4 * helpful
    >>> store = from_arrays({"resid_post": x}, labels={"helpful": helpful, "harmless": harmless})
    >>> few = {"n_permutations": 50, "n_bootstrap": 20}
    >>> names = ["helpful", "harmless"]
    >>> result = preference_dimensions(store, dimensions=names, groups=None, **few)
    >>> {finding.target: finding.verdict for finding in result.findings if finding.lead}
    {'helpful': 'found', 'harmless': 'not_found'}
    """
    if isinstance(dimensions, str):
        dimensions = [dimensions]
    if not dimensions:
        raise LayerprobeError(
            f"dimensions={dimensions!r} names nothing; pass label columns: {', '.join(store.label_names)}"
        )
    if recipe not in ("converged", "published"):
        raise LayerprobeError(f"recipe={recipe!r}, expected 'converged' or 'published'")
    unknown = [name for name in dimensions if name not in store.label_names]
    if unknown:
        raise LayerprobeError(
            f"dimensions {unknown} are not label columns; have {', '.join(store.label_names)}"
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

    chosen: dict[str, Any] = {"metrics": METRICS, **options}
    name = "logistic" if recipe == "converged" else "mrmbench_published"
    plan = ProbePlan(groups=groups, seed=seed, **chosen)
    return probe_task(store, list(dimensions), name, build, plan)


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
