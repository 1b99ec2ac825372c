"""Ways to fit a linear probe: each fits many folds × strengths at once and gives raw-space weights.

A method is a function of rows, labels, fold masks and strengths. Everything it estimates, centre and scale
included, comes from the rows that the fold's mask lets it see.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..hooks.errors import LayerprobeError
from .linear_probe_lda import fit_lda, fit_shrunk_lda
from .linear_probe_problem import Fits, Floats, Problem, moments, spread
from .solvers.logistic import solve_logistic
from .solvers.ridge import solve_ridge
from .solvers.row_space import row_factor, row_space

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


def fit_logistic(problem: Problem, strengths: Floats) -> Fits:
    """Logistic regression, binary or softmax, scaled within the fold; strengths are scikit-learn's C."""
    n_folds, n_strengths = problem.masks.shape[1], len(strengths)
    mean, scale, varies = spread(problem)
    if problem.x.shape[1] > len(problem.x):
        return _logistic_in_row_space(problem, strengths, mean, scale)
    columns = n_folds * n_strengths
    fit = solve_logistic(
        problem.x,
        np.broadcast_to(problem.y[:, None], (len(problem.y), columns)),
        np.tile(1 / strengths, n_folds),
        row_weights=problem.masks,
        centre=mean,
        scale=scale,
        fold=np.repeat(np.arange(n_folds), n_strengths),
        n_classes=problem.n_classes,
        tol=problem.tol,
    )
    shape = (n_folds, n_strengths)
    weight = fit.weight.reshape(*shape, *fit.weight.shape[1:])
    # what a fold cannot have seen it gives no weight, not even one within the tolerance
    per_fold = (n_folds, *[1] * (weight.ndim - 2), -1)
    unseen = np.where(varies.reshape(per_fold), 0.0, weight)
    bias = fit.bias.reshape(*shape, *fit.bias.shape[1:]) + (unseen * mean.reshape(per_fold)).sum(axis=-1)
    return Fits(
        weight - unseen,
        bias,
        fit.converged.reshape(shape),
        fit.gradient.reshape(shape),
    )


def fit_logistic_unscaled(problem: Problem, strengths: Floats) -> Fits:
    """Logistic regression on centred, unscaled features: every fold and strength shares one Gram matrix."""
    n_folds, n_strengths = problem.masks.shape[1], len(strengths)
    space = row_space(problem.x)
    fit = solve_logistic(
        space.coordinates,
        torch.from_numpy(np.repeat(problem.y[:, None], n_folds * n_strengths, axis=1)),
        np.tile(1 / strengths, n_folds),
        row_weights=problem.masks,
        fold=np.repeat(np.arange(n_folds), n_strengths),
        n_classes=problem.n_classes,
        tol=problem.tol,
        diagonal=True,
    )
    weight, bias = space.lift(fit.weight, fit.bias)
    shape = (n_folds, n_strengths)
    parts = (weight, bias, fit.converged, fit.gradient)
    return Fits(*(part.numpy().reshape(*shape, *part.shape[1:]) for part in parts))


def _logistic_in_row_space(problem: Problem, strengths: Floats, mean: Floats, scale: Floats) -> Fits:
    """The same minimum through each fold's Gram matrix: an L2 solution is in the rows' span, w = Zᵀa."""
    parts = []
    for fold in range(problem.masks.shape[1]):
        seen = problem.masks[:, fold] > 0
        z = (problem.x[seen] - mean[fold]) / scale[fold]
        factor = row_factor(z)
        fit = solve_logistic(
            factor.coordinates,
            torch.from_numpy(np.repeat(problem.y[seen, None], len(strengths), axis=1)),
            1 / strengths,
            row_weights=problem.masks[seen, fold : fold + 1],
            n_classes=problem.n_classes,
            tol=problem.tol,
            basis_width=FEW_ROWS,
        )
        on_z, bias = factor.lift(fit.weight, fit.bias)
        weight = on_z.numpy() / scale[fold]
        parts.append(
            (weight, bias.numpy() - weight @ mean[fold], fit.converged.numpy(), fit.gradient.numpy())
        )
    return Fits(*(np.stack(part) for part in zip(*parts, strict=True)))


def fit_mass_mean(problem: Problem, strengths: Floats) -> Fits:
    """Difference of class means, threshold half-way (Marks & Tegmark 2310.06824)."""
    positive = problem.masks * (problem.y == 1)[:, None]
    negative = problem.masks * (problem.y == 0)[:, None]
    high = (positive / positive.sum(axis=0)).T @ problem.x
    low = (negative / negative.sum(axis=0)).T @ problem.x
    weight = high - low
    bias = -(weight * (high + low)).sum(axis=1) / 2
    done = np.ones((len(weight), 1), dtype=bool)
    return Fits(weight[:, None], bias[:, None], done, np.zeros(done.shape))


def fit_ridge(problem: Problem, strengths: Floats) -> Fits:
    """Ridge regression scaled within the fold; classes are regressed on as ±1; strengths are 1 / alpha."""
    if problem.n_classes > 2:
        targets = 2 * np.eye(problem.n_classes)[problem.y] - 1
    else:
        targets = (2 * problem.y - 1 if problem.n_classes else problem.y)[:, None].astype(np.float64)
    mean, scale = moments(problem)
    weights, biases = [], []
    for fold in range(problem.masks.shape[1]):
        seen = problem.masks[:, fold] > 0
        z = (problem.x[seen] - mean[fold]) / scale[fold]
        path = solve_ridge(z, targets[seen], 1 / strengths, row_weights=problem.masks[seen, fold])
        weight = path.weight / scale[fold]
        weights.append(weight)
        biases.append(path.bias - weight @ mean[fold])
    weight, bias = np.stack(weights), np.stack(biases)
    if problem.n_classes <= 2:
        weight, bias = weight[:, :, 0], bias[:, :, 0]
    shape = weight.shape[:2]
    return Fits(weight, bias, np.ones(shape, dtype=bool), np.zeros(shape))


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


def find_method(name: str, kind: str) -> Method:
    """The method of that name, if it can do this kind of task."""
    if name not in METHODS:
        raise LayerprobeError(f"method={name!r} is unknown; choose from {', '.join(METHODS)}")
    method = METHODS[name]
    if kind not in method.kinds:
        fitting = ", ".join(other for other, found in METHODS.items() if kind in found.kinds)
        raise LayerprobeError(
            f"method={name!r} cannot fit a {kind} label; for this one choose from {fitting}"
        )
    return method
