"""Ways to fit a linear probe: each fits many folds × strengths at once and gives raw-space weights.

A method is a function of rows, labels, fold masks and strengths. Everything it estimates, centre and scale
included, comes from the rows that the fold's mask lets it see. Leading axes of the rows are layers, fitted
side by side; strengths are then [strengths] or [layers, strengths].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..solvers.arrays import to_tensor
from ..solvers.logistic import LogisticFit, solve_logistic
from ..solvers.ridge import solve_ridge
from ..solvers.row_space import row_factor, row_space
from .discriminant import fit_lda, fit_shrunk_lda
from .problem import Fits, Floats, Problem, moments, spread

MethodName = Literal[
    "logistic", "logistic_unscaled", "ridge", "mass_mean", "mass_mean_covariance", "shrunk_lda"
]
FEW_ROWS = 300
"""Up to so many rows eigenvectors cost less than the iterations they save."""


@dataclass(frozen=True)
class Method:
    """A way to fit a probe."""

    fit: Callable[[Problem, Floats], Fits]
    strengths: Floats
    """From strong to weak regularisation; one entry where nothing is to be chosen."""
    kinds: tuple[str, ...]
    """Tasks it can do."""
    probabilistic: bool
    """Whether its margins are log-odds; else Platt's sigmoid is fitted on out-of-fold training margins."""
    stacked: bool = True
    """Whether it fits layers side by side; else it is given one at a time."""


def fit_logistic(problem: Problem, strengths: Floats) -> Fits:
    """Logistic regression, binary or softmax, scaled within the fold; strengths are scikit-learn's C."""
    x, y, masks = problem.tensors()
    mean, scale, varies = spread(problem)
    if x.shape[-1] > x.shape[-2]:
        return _logistic_in_row_space(problem, strengths, mean, scale)
    fit = solve_logistic(
        x,
        y[:, None].expand(-1, problem.n_folds * strengths.shape[-1]),
        _penalties(x, strengths, problem.n_folds),
        row_weights=masks,
        centre=mean,
        scale=scale,
        fold=_fold_of_column(problem, strengths),
        n_classes=problem.n_classes,
        tol=problem.tol,
    )
    weight, bias, gradient, converged = _by_fold(problem, fit)
    # what a fold cannot have seen it gives no weight, not even one within the tolerance
    unseen = torch.where(_along(varies, weight), 0.0, weight)
    bias = bias + (unseen * _along(mean, weight)).sum(-1)
    return Fits.solved(problem, weight - unseen, bias, gradient, converged)


def fit_logistic_unscaled(problem: Problem, strengths: Floats) -> Fits:
    """Logistic regression on centred, unscaled features: every fold and strength shares one Gram matrix."""
    x, y, masks = problem.tensors()
    space = row_space(x)
    fit = solve_logistic(
        space.coordinates,
        y[:, None].expand(-1, problem.n_folds * strengths.shape[-1]),
        _penalties(x, strengths, problem.n_folds),
        row_weights=masks,
        fold=_fold_of_column(problem, strengths),
        n_classes=problem.n_classes,
        tol=problem.tol,
        diagonal=True,
    )
    weight, bias = space.lift(fit.weight, fit.bias)
    return Fits.solved(problem, *_by_fold(problem, replace(fit, weight=weight, bias=bias)))


def _logistic_in_row_space(
    problem: Problem, strengths: Floats, mean: torch.Tensor, scale: torch.Tensor
) -> Fits:
    """The same minimum through each fold's Gram matrix: an L2 solution is in the rows' span, w = Zᵀa."""
    x, y, masks = problem.tensors()
    layers = x.ndim - 2
    parts = []
    for fold in range(problem.n_folds):
        seen = masks[:, fold] > 0
        middle, width = mean[..., fold, :], scale[..., fold, :]
        factor = row_factor((x[..., seen, :] - middle[..., None, :]) / width[..., None, :])
        fit = solve_logistic(
            factor.coordinates,
            y[seen, None].expand(-1, strengths.shape[-1]),
            _penalties(x, strengths),
            row_weights=masks[seen, fold : fold + 1],
            n_classes=problem.n_classes,
            tol=problem.tol,
            basis_width=FEW_ROWS,
        )
        on_z, bias = factor.lift(fit.weight, fit.bias)
        shape = (*middle.shape[:layers], *[1] * (on_z.ndim - layers - 1), -1)
        weight = on_z / width.reshape(shape)
        shift = (weight * middle.reshape(shape)).sum(-1)
        parts.append((weight, bias - shift, fit.gradient, fit.converged))
    return Fits.solved(problem, *(torch.stack(part, dim=layers) for part in zip(*parts, strict=True)))


def _penalties(x: torch.Tensor, strengths: Floats, n_folds: int = 1) -> torch.Tensor:
    """[..., folds · strengths] 1 / C, fold-major; strengths are [..., strengths]."""
    return 1 / to_tensor(strengths, like=x).repeat(*[1] * (strengths.ndim - 1), n_folds)


def _fold_of_column(problem: Problem, strengths: Floats) -> NDArray[np.int64]:
    return np.repeat(np.arange(problem.n_folds), strengths.shape[-1])


def _by_fold(problem: Problem, fit: LogisticFit) -> tuple[torch.Tensor, ...]:
    """Weight, bias, gradient and convergence with columns as folds × strengths."""
    layers, folds = problem.x.ndim - 2, (problem.n_folds, -1)
    return tuple(
        part.unflatten(layers, folds) for part in (fit.weight, fit.bias, fit.gradient, fit.converged)
    )


def _along(per_fold: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[..., folds, width] with axes of length 1 where a weight has strengths and classes."""
    *lead, width = per_fold.shape
    return per_fold.reshape(*lead, *[1] * (weight.ndim - per_fold.ndim), width)


def fit_mass_mean(problem: Problem, strengths: Floats) -> Fits:
    """Difference of class means, threshold half-way (Marks & Tegmark 2310.06824)."""
    x, y, masks = problem.tensors()
    positive, negative = (masks * (y == code)[:, None] for code in (1, 0))
    high = (positive / positive.sum(0)).T @ x
    low = (negative / negative.sum(0)).T @ x
    weight = high - low
    return Fits.closed_form(problem, weight, -(weight * (high + low)).sum(-1) / 2)


def fit_ridge(problem: Problem, strengths: Floats) -> Fits:
    """Ridge regression scaled within the fold; classes are regressed on as ±1; strengths are 1 / alpha."""
    x, y, masks = problem.tensors()
    if problem.n_classes > 2:
        targets = 2 * torch.nn.functional.one_hot(y, problem.n_classes).double() - 1
    else:
        targets = (2 * y - 1 if problem.n_classes else y)[:, None].double()
    mean, scale = moments(problem)
    layers = x.ndim - 2
    weights, biases = [], []
    for fold in range(problem.n_folds):
        seen = masks[:, fold] > 0
        middle, width = (part[..., fold, :][..., None, :] for part in (mean, scale))
        z = (x[..., seen, :] - middle) / width
        path = solve_ridge(z, targets[seen], _penalties(x, strengths), row_weights=masks[seen, fold])
        weight = path.weight / width[..., None, :]
        weights.append(weight)
        biases.append(path.bias - (weight * middle[..., None, :]).sum(-1))
    weight, bias = torch.stack(weights, dim=layers), torch.stack(biases, dim=layers)
    if problem.n_classes <= 2:
        weight, bias = weight[..., 0, :], bias[..., 0]
    return Fits.solved(problem, weight, bias)


METHODS: dict[str, Method] = {
    "logistic": Method(fit_logistic, np.logspace(-5, 2, 10), ("binary", "multinomial"), True),
    "logistic_unscaled": Method(
        fit_logistic_unscaled, np.logspace(-5, 2, 10), ("binary", "multinomial"), True
    ),
    "ridge": Method(fit_ridge, 1 / np.logspace(6, -1, 15), ("binary", "multinomial", "regression"), False),
    "mass_mean": Method(fit_mass_mean, np.ones(1), ("binary",), False),
    "mass_mean_covariance": Method(fit_lda, np.ones(1), ("binary", "multinomial"), False),
    "shrunk_lda": Method(fit_shrunk_lda, np.ones(1), ("binary", "multinomial"), False),
}


def fitted_method(name: str, kind: str) -> str:
    """The method that fits a task: values are regressed, and what logistic is for classes ridge is for them.

    >>> fitted_method("logistic", "regression"), fitted_method("mass_mean", "binary")
    ('ridge', 'mass_mean')
    """
    return "ridge" if (name, kind) == ("logistic", "regression") else name


def find_method(name: str, kind: str) -> Method:
    """The method of that name, if it can do this kind of task; `logistic` of values is `ridge`."""
    name = fitted_method(name, kind)
    if name not in METHODS:
        raise LayerprobeError(f"method={name!r} is unknown; choose from {', '.join(METHODS)}")
    method = METHODS[name]
    if kind not in method.kinds:
        fitting = ", ".join(other for other, found in METHODS.items() if kind in found.kinds)
        raise LayerprobeError(
            f"method={name!r} cannot fit a {kind} label; for this one choose from {fitting}"
        )
    return method
