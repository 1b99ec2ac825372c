"""L2-penalised logistic regression for many folds, penalties, targets and relabellings at once.

For each column the objective is scikit-learn's, divided by C:

    Σᵢ uᵢ · loss(yᵢ, zᵢ·w + b) + ½ · l2 · ‖w‖²,    z = (x − centre) / scale,    l2 = 1 / C

with the intercept unpenalised. Columns may differ in row weights u (a fold is a column whose held-out rows
weigh nothing), labels, penalty, centre and scale, and still share every product with x. Leading axes are
layers, minimised side by side.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from .arrays import Array, giver, to_tensor
from .lbfgs import History, direction, per_column
from .precondition import Curvature, curvature


@dataclass(frozen=True)
class LogisticFit:
    """One fit per column, in the space of the rows that were passed in."""

    weight: Array
    """[..., columns, width], or [..., columns, classes, width] when multinomial; centre and scale are folded
    in."""
    bias: Array
    """[..., columns] or [..., columns, classes]."""
    gradient: Array
    """[..., columns] largest absolute entry of the objective's gradient over the sum of row weights."""
    converged: Array
    """[..., columns] whether that fell below `tol`."""
    iterations: int
    """How many were made until the last column converged."""


@dataclass
class _Problem:
    x: torch.Tensor  # [..., rows, width]
    y: torch.Tensor  # [rows, columns] 0/1, or [rows, columns, classes] one-hot
    u: torch.Tensor  # [rows, columns]
    l2: torch.Tensor  # [..., columns]
    centre: torch.Tensor  # [..., width, columns or 1]
    scale: torch.Tensor  # [..., width, columns or 1]
    fold: torch.Tensor  # [columns] index into basis
    curvature: Curvature

    def margins(self, p: torch.Tensor) -> torch.Tensor:
        v = p[..., :-1, :, :] / self.scale[..., None]
        shift = p[..., -1, :, :] - (self.centre[..., None] * v).sum(-3)
        return (self.x @ v.flatten(-2)).unflatten(-1, p.shape[-2:]) + shift[..., None, :, :]

    def losses(self, m: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        if m.shape[-1] == 1:
            rows = torch.nn.functional.softplus(m[..., 0]) - self.y * m[..., 0]
        else:
            rows = torch.logsumexp(m, dim=-1) - (self.y * m).sum(-1)
        w = p[..., :-1, :, :]
        return (self.u * rows).sum(-2) + 0.5 * self.l2 * per_column(w, w)

    def gradient(self, m: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        if m.shape[-1] == 1:
            residual = (self.u * (torch.sigmoid(m[..., 0]) - self.y))[..., None]
        else:
            residual = self.u[..., None] * (torch.softmax(m, dim=-1) - self.y)
        total = residual.sum(-3)[..., None, :, :]
        g = (self.x.mT @ residual.flatten(-2)).unflatten(-1, p.shape[-2:])
        g = (g - self.centre[..., None] * total) / self.scale[..., None]
        g = g + self.l2[..., None, :, None] * p[..., :-1, :, :]
        return torch.cat([g, total], dim=-3)

    def mean_curvature(self, m: torch.Tensor) -> torch.Tensor:
        """[..., columns] Σ u · p(1 − p): how much the loss still bends once margins are large."""
        if m.shape[-1] == 1:
            chance = torch.sigmoid(m[..., 0])
            return (self.u * chance * (1 - chance)).sum(-2).clamp(min=1e-10)
        chance = torch.softmax(m, dim=-1)
        return (self.u * (chance * (1 - chance)).mean(-1)).sum(-2).clamp(min=1e-10)

    def gradient_size(self, g: torch.Tensor) -> torch.Tensor:
        """[..., columns] largest absolute entry per unit of row weight."""
        return g.abs().amax(dim=(-3, -1)) / self.u.sum(0).clamp(min=1e-12)

    def precondition(self, g: torch.Tensor, bend: torch.Tensor) -> torch.Tensor:
        """Inverse of bend · ZᵀUZ/ΣU + l2·I, the Hessian were every row equally certain."""
        first = self.curvature.solve(g[..., :-1, :, :], bend, self.l2, self.fold)
        return torch.cat([first, g[..., -1:, :, :] / bend[..., None, :, None]], dim=-3)

    def columns(self, keep: torch.Tensor) -> "_Problem":
        return replace(
            self,
            y=self.y[:, keep],
            u=self.u[:, keep],
            l2=self.l2[..., keep],
            centre=self.centre[..., keep] if self.centre.shape[-1] > 1 else self.centre,
            scale=self.scale[..., keep] if self.scale.shape[-1] > 1 else self.scale,
            fold=self.fold[keep],
        )


def solve_logistic(
    rows: Array,
    labels: Array,
    l2: Array,
    *,
    row_weights: Array | None = None,
    centre: Array | None = None,
    scale: Array | None = None,
    fold: Array | None = None,
    n_classes: int = 2,
    start: Array | None = None,
    tol: float = 1e-7,
    max_iterations: int = 500,
    basis_width: int = 1024,
    diagonal: bool = False,
) -> LogisticFit:
    """Fit every column to its minimum.

    Args:
        rows: [..., rows, width], numpy or torch (then everything runs on its device).
        labels: [rows, columns], classes 0 … n_classes − 1.
        l2: [..., columns] penalties, 1 / C.
        row_weights: [rows, folds]; 0 leaves a row out. Default: all ones.
        centre: [..., folds, width] subtracted before fitting, which moves only the intercept. Default:
            weighted mean.
        scale: [..., folds, width] divided by before fitting. Default 1.
        fold: [columns] which fold's weights, centre and scale a column uses. Default: all the first.
        n_classes: above 2 the softmax loss is used, one weight vector per class.
        start: [..., columns (, classes), width] raw-space weights to start from.
        tol: on the largest gradient entry over the sum of row weights.
        max_iterations: at most.
        basis_width: up to this width the Hessian's bound is diagonalised, above it only its leading part.
        diagonal: the columns of `rows` are already orthogonal (an eigenbasis), so that nothing need be
            diagonalised.

    Returns:
        Raw-space weights with their convergence.

    >>> import numpy as np
    >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> fit = solve_logistic(x, np.array([[0], [1], [0], [1]]), np.array([1.0]))
    >>> bool(fit.converged[0]), fit.weight.shape
    (True, (1, 1))
    """
    x = to_tensor(rows)
    problem = _problem(x, labels, l2, row_weights, centre, scale, fold, n_classes, basis_width, diagonal)
    classes = 1 if n_classes == 2 else n_classes
    n_columns = problem.u.shape[1]
    layers, width = x.shape[:-2], x.shape[-1]
    p = x.new_zeros(*layers, width + 1, n_columns, classes)
    if start is not None:
        raw = to_tensor(start, like=x).reshape(*layers, n_columns, classes, width).movedim(-1, -3)
        p[..., :-1, :, :] = raw * problem.scale[..., None]
    solution, gradient, iterations = _minimise(problem, p, tol, max_iterations)
    weight = solution[..., :-1, :, :] / problem.scale[..., None]
    bias = solution[..., -1, :, :] - (problem.centre[..., None] * weight).sum(-3)
    weight = weight.movedim(-3, -1)
    give = giver(rows)
    if classes == 1:
        weight, bias = weight[..., 0, :], bias[..., 0]
    return LogisticFit(give(weight), give(bias), give(gradient), give(gradient <= tol), iterations)


def _problem(  # type: ignore[no-untyped-def]
    x, labels, l2, row_weights, centre, scale, fold, n_classes, basis_width, diagonal
) -> _Problem:
    penalties = torch.atleast_1d(to_tensor(l2, like=x))
    n_columns = penalties.shape[-1]
    which = (
        torch.zeros(n_columns, dtype=torch.long, device=x.device)
        if fold is None
        else to_tensor(fold, like=x, dtype=torch.long)
    )
    weights = x.new_ones(x.shape[-2], 1) if row_weights is None else to_tensor(row_weights, like=x)
    # with a free intercept any centre gives the same minimum; the weighted mean gives the best conditioning
    middle = (weights / weights.sum(0)).T @ x if centre is None else to_tensor(centre, like=x)
    spread = x.new_ones(1, x.shape[-1]) if scale is None else to_tensor(scale, like=x)
    if n_classes == 2:
        y = to_tensor(labels, like=x)
    else:
        y = torch.nn.functional.one_hot(to_tensor(labels, like=x, dtype=torch.long), n_classes).to(x.dtype)
    return _Problem(
        x=x,
        y=y,
        u=weights[:, which] if weights.shape[1] > 1 else weights.expand(-1, n_columns),
        l2=penalties,
        centre=(middle if middle.shape[-2] == 1 else middle[..., which, :]).mT,
        scale=(spread if spread.shape[-2] == 1 else spread[..., which, :]).mT,
        fold=which if weights.shape[1] > 1 else torch.zeros_like(which),
        curvature=curvature(x, weights, middle, spread, basis_width=basis_width, diagonal=diagonal),
    )


def _minimise(
    problem: _Problem, p: torch.Tensor, tol: float, max_iterations: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Parameters, scaled largest gradient entry of every column, and the number of iterations."""
    n_columns = p.shape[-2]
    solution, final = p.clone(), p.new_full((*p.shape[:-3], n_columns), torch.inf)
    active = torch.arange(n_columns, device=p.device)
    history = History([], [])
    m = problem.margins(p)
    loss, g = problem.losses(m, p), problem.gradient(m, p)
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        size = problem.gradient_size(g)
        solution[..., active, :], final[..., active] = p, size
        # a column goes on for all layers until it has converged in each
        going = torch.nonzero((size > tol).reshape(-1, len(active)).any(0))[:, 0]
        if not len(going):
            break
        if len(going) <= 0.8 * len(active):
            active, loss = active[going], loss[..., going]
            p, m, g = (part[..., going, :] for part in (p, m, g))
            problem = problem.columns(going)
            history.keep(going)
        bend = problem.mean_curvature(m)
        step = direction(g, history, partial(problem.precondition, bend=bend))
        slope = per_column(step, g)
        uphill = slope >= 0
        if uphill.any():
            step = torch.where(uphill[..., None, :, None], -problem.precondition(g, bend), step)
            slope = per_column(step, g)
        t, m, loss = _line_search(problem, p, m, step, slope, loss)
        moved = t[..., None, :, None] * step
        p = p + moved
        fresh = problem.gradient(m, p)
        history.push(moved, fresh - g)
        g = fresh
        if not (t > 0).any():
            break
    solution[..., active, :], final[..., active] = p, problem.gradient_size(g)
    return solution, final, iterations


def _line_search(
    problem: "_Problem",
    p: torch.Tensor,
    m: torch.Tensor,
    step: torch.Tensor,
    slope: torch.Tensor,
    loss: torch.Tensor,
) -> Any:
    """Halve each column's step until the loss falls enough (Armijo); linear margins need no new products."""
    along = problem.margins(step)
    t = torch.ones_like(loss)
    for _ in range(30):
        trial_m = m + t[..., None, :, None] * along
        trial = problem.losses(trial_m, p + t[..., None, :, None] * step)
        # near the minimum the loss changes by less than its rounding error: allow for that
        slack = 1e-14 * loss.abs().clamp(min=1.0) * problem.x.shape[-2] ** 0.5
        bad = trial > loss + 1e-4 * t * slope + slack
        if not bad.any():
            return t, trial_m, trial
        t = torch.where(bad, t * 0.5, t)
    t = torch.where(bad, torch.zeros_like(t), t)
    trial_m = m + t[..., None, :, None] * along
    return t, trial_m, problem.losses(trial_m, p + t[..., None, :, None] * step)
