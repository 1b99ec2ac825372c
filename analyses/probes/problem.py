"""What a probe method is given and what it gives back: many folds × strengths at once, of one layer or of
several side by side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..solvers.arrays import Array, giver, on_host, to_numpy, to_tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Rows and labels, with the folds to be fitted."""

    x: Array
    """[..., rows, width] float64: numpy, or torch on the device that computes; leading axes are layers."""
    y: NDArray[Any]
    """[rows] class codes or values."""
    n_classes: int
    """0 for regression."""
    masks: Floats
    """[rows, folds] 1 for rows that the fold's fit sees, or their weight."""
    tol: float = 1e-7
    """Of iterative fits: largest gradient entry per row at which they stop."""

    @property
    def n_folds(self) -> int:
        """How many fits there are per strength."""
        return int(self.masks.shape[1])

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x, y and masks on the device of x."""
        x = to_tensor(self.x)
        y = torch.from_numpy(np.ascontiguousarray(self.y)).to(x.device)
        return x, y, to_tensor(self.masks, like=x)


@dataclass(frozen=True)
class Fits:
    """Raw-space fits: fold-major, strengths within folds. Leading axes are those of the problem's x."""

    weight: Array
    """[..., folds, strengths, width] or [..., folds, strengths, classes, width]; numpy, or torch where x
    was."""
    bias: Array
    """[..., folds, strengths] or [..., folds, strengths, classes]."""
    converged: NDArray[np.bool_]
    """[..., folds, strengths]."""
    gradient: Floats
    """[..., folds, strengths] what was left of the gradient per row; 0 for closed forms."""

    @classmethod
    def closed_form(cls, problem: Problem, weight: torch.Tensor, bias: torch.Tensor) -> "Fits":
        """Fits by formula, of one strength: [..., folds (, classes), width] and [..., folds (, classes)]."""
        axis = weight.ndim - 1 - (problem.n_classes > 2)
        return cls.solved(problem, weight.unsqueeze(axis), bias.unsqueeze(axis))

    @classmethod
    def solved(
        cls,
        problem: Problem,
        weight: torch.Tensor,
        bias: torch.Tensor,
        gradient: torch.Tensor | None = None,
        converged: torch.Tensor | None = None,
    ) -> "Fits":
        """Fits from tensors, given back as the problem came."""
        give = giver(problem.x)
        layers = weight.shape[: problem.x.ndim - 2]
        shape = (*layers, *weight.shape[len(layers) : len(layers) + 2])
        return cls(
            give(weight),
            give(bias),
            np.ones(shape, dtype=bool) if converged is None else to_numpy(converged),
            np.zeros(shape) if gradient is None else to_numpy(gradient),
        )

    def margins(self, x: Array, fold: int) -> Floats:
        """Scores of rows by one fold's fits: [..., strengths, rows] or [..., strengths, rows, classes]."""
        layers = x.ndim - 2
        here = (*[slice(None)] * layers, fold)
        weight, bias = self.weight[here], self.bias[here]
        if weight.ndim == layers + 2:
            scores = (x @ weight.swapaxes(-1, -2) + bias[..., None, :]).swapaxes(-1, -2)
        else:
            n_strengths, n_classes = weight.shape[-3:-1]
            flat = x @ weight.reshape(*weight.shape[:-3], n_strengths * n_classes, -1).swapaxes(-1, -2)
            by_row = flat.reshape(*flat.shape[:-1], n_strengths, n_classes)
            scores = by_row.swapaxes(-3, -2) + bias[..., None, :]
        return on_host(scores)

    def of_layer(self, layer: int) -> "Fits":
        """The fits of one of several layers."""
        return Fits(self.weight[layer], self.bias[layer], self.converged[layer], self.gradient[layer])


def moments(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """[..., folds, width] twice: weighted mean and standard deviation of each fold's rows; 1 for
    constants."""
    mean, scale, _ = spread(problem)
    return mean, scale


def spread(problem: Problem) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same, and [..., folds, width] which features vary among a fold's rows.

    A word that a fold's rows lack is constant there and nowhere else: its variance is what is left of two
    equal squares, so anything at their rounding error counts as none.
    """
    x, _, masks = problem.tensors()
    share = (masks / masks.sum(0)).T
    mean = share @ x
    # about the overall mean first: squares of large offsets would swallow small deviations
    middle = x.mean(-2, keepdim=True)
    about_middle = share @ (x - middle) ** 2
    square = about_middle - (mean - middle) ** 2
    scale = square.clamp(min=0).sqrt()
    varies = (square > 1e-12 * about_middle) & (scale > 1e-8 * (1e-30 + mean.abs()))
    return mean, torch.where(varies, scale, 1.0), varies
