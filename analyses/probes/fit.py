"""One probe at one place: strength chosen inside the training groups, refitted, scored on all others."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..reading.task import Task
from ..solvers.arrays import Array, on_host
from ..solvers.logistic import solve_logistic
from ..statistics.metrics import DEFAULT_METRICS, LOWER_IS_BETTER, Predicted, row_log_loss, score
from .methods import Method
from .problem import Fits, Floats, Problem


@dataclass(frozen=True)
class LayerFit:
    """What was fitted at one site and layer."""

    weight: Floats
    """[width] or [classes, width], raw space, from all training rows."""
    bias: Floats
    """Scalar or [classes]."""
    predicted: Predicted
    """Every row by a fit that has not seen it: held-out rows by the final one, others by their fold's."""
    strength: float
    """What was chosen."""
    converged: bool
    gradient: float
    inner: float
    """The first metric asked for, averaged over inner folds; what the layer is chosen by (larger is better).
    NaN where no fold has it."""
    inner_by_fold: Floats
    """[folds]."""
    fold_cosine: float
    """Mean cosine between the directions of different folds."""

    def without_last(self) -> "LayerFit":
        """The same with the last feature, which is not the model's, taken off the weight."""
        return replace(self, weight=self.weight[..., :-1])


def fit_layer(
    x: Array,
    task: Task,
    method: Method,
    *,
    strengths: Floats,
    class_weight: str | None = None,
    metric: str | None = None,
) -> LayerFit:
    """Fit and score a probe on the rows of one layer.

    Args:
        x: [rows, width] activations of the task's rows; numpy, or torch on the device that computes.
        task: labels and splits.
        method: how to fit.
        strengths: to choose from, strong regularisation first.
        class_weight: `None`, or `balanced`: every class weighs the same in the fit, in the choice of strength
            and in decisions.
        metric: what is averaged over inner folds; default: the task's first.
    """
    inner = method.fit(_problem(x, task, _inner_masks(task), class_weight), strengths)
    out_of_fold = _out_of_fold(inner, x, task)
    chosen = choose_strength(out_of_fold, task, method, class_weight)
    final = method.fit(_final_problem(x, task, class_weight), strengths[[chosen]])
    asked = _Asked(method, strengths, class_weight, metric or DEFAULT_METRICS[task.kind][0])
    return _scored(task, asked, chosen, inner, out_of_fold, final, final.margins(x, 0))


def fit_layers(
    x: torch.Tensor,
    task: Task,
    method: Method,
    *,
    strengths: Floats,
    class_weight: str | None = None,
    metric: str | None = None,
) -> list[LayerFit]:
    """The same for several layers of one width, side by side: what a GPU is kept busy by.

    Args:
        x: [layers, rows, width] on the device that computes.
        task: as `fit_layer`.
        method: as `fit_layer`.
        strengths: as `fit_layer`.
        class_weight: as `fit_layer`.
        metric: as `fit_layer`.
    """
    asked = _Asked(method, strengths, class_weight, metric or DEFAULT_METRICS[task.kind][0])
    if not method.stacked:
        return [
            fit_layer(layer, task, method, strengths=strengths, class_weight=class_weight, metric=metric)
            for layer in x
        ]
    inner = method.fit(_problem(x, task, _inner_masks(task), class_weight), strengths)
    out_of_fold = _out_of_fold(inner, x, task)
    chosen = [choose_strength(margins, task, method, class_weight) for margins in out_of_fold]
    final = method.fit(_final_problem(x, task, class_weight), strengths[chosen][:, None])
    held_out = final.margins(x, 0)
    return [
        _scored(
            task,
            asked,
            chosen[layer],
            inner.of_layer(layer),
            out_of_fold[layer],
            final.of_layer(layer),
            held_out[layer],
        )
        for layer in range(len(x))
    ]


def _inner_masks(task: Task) -> Floats:
    folds = np.arange(int(task.fold.max()) + 1)
    return (task.train[:, None] & (task.fold[:, None] != folds)).astype(np.float64)


def _final_problem(x: Array, task: Task, class_weight: str | None) -> Problem:
    return _problem(x, task, task.train[:, None].astype(np.float64), class_weight)


@dataclass(frozen=True)
class _Asked:
    method: Method
    strengths: Floats
    class_weight: str | None
    metric: str


def _scored(
    task: Task,
    asked: _Asked,
    chosen: int,
    inner: Fits,
    out_of_fold: Floats,
    final: Fits,
    held_out: Floats,
) -> LayerFit:
    """One layer's result from the fits that left a fold out and the one on all training rows."""
    margin = np.where(_like(task.test, out_of_fold[chosen]), held_out[0], out_of_fold[chosen])
    predicted = predict(margin, task, asked.method, asked.class_weight)
    primary = asked.metric
    by_fold = np.array(
        [
            float(score(primary, task.y[task.fold == fold], predicted.rows(task.fold == fold))[0])
            for fold in range(int(task.fold.max()) + 1)
        ]
    )
    sign = -1 if primary in LOWER_IS_BETTER else 1
    return LayerFit(
        weight=on_host(final.weight[0, 0]),
        bias=on_host(final.bias[0, 0]),
        predicted=predicted,
        strength=float(asked.strengths[chosen]),
        converged=bool(final.converged.all() and inner.converged[:, chosen].all()),
        gradient=float(max(final.gradient.max(), inner.gradient[:, chosen].max())),
        inner=sign * _mean_of_known(by_fold),
        inner_by_fold=sign * by_fold,
        fold_cosine=_fold_cosine(on_host(inner.weight[:, chosen])),
    )


def _mean_of_known(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def class_weights(task: Task, class_weight: str | None) -> Floats | None:
    """[classes] what a training row of each class weighs; `None` where all weigh 1."""
    if class_weight != "balanced" or not task.n_classes:
        return None
    seen = np.bincount(task.y[task.train], minlength=task.n_classes)
    return seen.sum() / (task.n_classes * np.maximum(seen, 1))


def _problem(x: Array, task: Task, masks: Floats, class_weight: str | None) -> Problem:
    if class_weight == "balanced" and task.n_classes:
        given = masks
        masks = masks.copy()
        for code in range(task.n_classes):
            mine = task.y == code
            masks[mine] *= given.sum(axis=0) / (task.n_classes * given[mine].sum(axis=0))
    return Problem(x, task.y, task.n_classes, masks)


def _like(rows: NDArray[np.bool_], values: Floats) -> NDArray[np.bool_]:
    return rows if values.ndim == 1 else rows[:, None]


def _out_of_fold(fits: Fits, x: Array, task: Task) -> Floats:
    """[..., strengths, rows (, classes)] margins of training rows by their fold's fit; 0 for held-out
    rows."""
    out: Floats | None = None
    rows = x.ndim - 1  # the axis of margins after layers and strengths
    for fold in range(int(task.fold.max()) + 1):
        mine = np.flatnonzero(task.fold == fold)
        margins = fits.margins(x[..., mine, :], fold)
        if out is None:
            out = np.zeros((*margins.shape[:rows], len(task.fold), *margins.shape[rows + 1 :]))
        np.moveaxis(out, rows, 0)[mine] = np.moveaxis(margins, rows, 0)
    assert out is not None
    return out


def choose_strength(out_of_fold: Floats, task: Task, method: Method, class_weight: str | None = None) -> int:
    """The strongest regularisation whose held-out loss is within one standard error of the best.

    Args:
        out_of_fold: [strengths, rows (, classes)] margins of training rows.
        task: labels and folds.
        method: whose margins they are.
        class_weight: as `fit_layer`; losses are weighted as the fits were.
    """
    if len(out_of_fold) == 1:
        return 0
    rows = task.train
    losses = np.stack([row_losses(task.y[rows], margins[rows], task, method) for margins in out_of_fold])
    weights = class_weights(task, class_weight)
    if weights is not None:
        losses = losses * weights[task.y[rows]]
    fold = task.fold[rows]
    by_fold = np.stack([losses[:, fold == f].mean(axis=1) for f in range(int(fold.max()) + 1)], axis=1)
    return one_standard_error(by_fold)


def one_standard_error(by_fold: Floats) -> int:
    """Index of the first (strongest) whose mean loss is within one standard error of the least.

    Args:
        by_fold: [strengths, folds] losses, strong regularisation first.
    """
    mean = by_fold.mean(axis=1)
    best = int(np.argmin(mean))
    error = by_fold[best].std(ddof=1) / np.sqrt(by_fold.shape[1])
    return int(np.flatnonzero(mean <= mean[best] + error)[0])


def row_losses(y: NDArray[Any], margin: Floats, task: Task, method: Method) -> Floats:
    """[rows] what strengths are chosen by: log-loss, or squared distance to ±1 or to the value."""
    if task.kind == "regression":
        return (y - margin) ** 2
    if not method.probabilistic:
        target = 2 * y - 1 if margin.ndim == 1 else 2 * np.eye(margin.shape[1])[y] - 1
        gap = (target - margin) ** 2
        return gap if gap.ndim == 1 else gap.sum(axis=1)
    return row_log_loss(y, probabilities(margin))


def probabilities(margin: Floats) -> Floats:
    """Sigmoid of log-odds [rows], or softmax of [rows, classes]."""
    if margin.ndim == 1:
        return np.exp(-np.logaddexp(0, -margin))
    shifted = np.exp(margin - margin.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def predict(margin: Floats, task: Task, method: Method, class_weight: str | None = None) -> Predicted:
    """Margins with probabilities and decisions.

    Probabilities are of the frequencies that classes have in training, whatever they weighed in the fit: a
    method without its own gets Platt's sigmoid from out-of-fold margins, and log-odds of a weighted logistic
    fit lose the logarithm of the weights (King & Zeng 2001). The class decided on has the largest product of
    probability and weight; without weights it is the likeliest.

    Args:
        margin: [rows] or [rows, classes].
        task: labels and splits.
        method: whose margins they are.
        class_weight: as `fit_layer`.
    """
    if task.kind == "regression":
        return Predicted(margin)
    weights = class_weights(task, class_weight)
    shift: Any = 0.0
    if weights is not None:
        shift = np.log(weights) if margin.ndim == 2 else np.log(weights[1] / weights[0])
    if method.probabilistic:
        return Predicted(margin, probabilities(margin - shift), margin)
    odds = _platt(margin, task)
    return Predicted(margin, probabilities(odds), odds + shift)


def _platt(margin: Floats, task: Task) -> Floats:
    """Log-odds, or [rows, classes], from a logistic fit on the margins of training rows."""
    columns = margin[:, None] if margin.ndim == 1 else margin
    rows = columns[task.train]
    centre, scale = rows.mean(), rows.std() or 1.0
    fit = solve_logistic(
        (rows - centre) / scale, task.y[task.train, None], np.array([1e-3]), n_classes=max(2, task.n_classes)
    )
    return ((columns - centre) / scale) @ fit.weight[0].T + fit.bias[0]


def _fold_cosine(weights: Floats) -> float:
    """Mean cosine between folds' weights [folds, …]; 1 if the direction is the same whoever is left out."""
    flat = weights.reshape(len(weights), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = flat / np.where(norms > 0, norms, 1)
    cosines = unit @ unit.T
    return float(cosines[np.triu_indices(len(flat), 1)].mean())
