"""What a probe method is given and what it gives back: many folds × strengths of one layer at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fits:
    """Raw-space fits: fold-major, strengths within folds."""

    weight: Floats
    """[folds, strengths, width] or [folds, strengths, classes, width]."""
    bias: Floats
    """[folds, strengths] or [folds, strengths, classes]."""
    converged: NDArray[np.bool_]
    """[folds, strengths]."""
    gradient: Floats
    """[folds, strengths] what was left of the gradient per row; 0 for closed forms."""

    def margins(self, x: Floats, fold: int) -> Floats:
        """Scores of rows by one fold's fits: [strengths, rows] or [strengths, rows, classes]."""
        weight, bias = self.weight[fold], self.bias[fold]
        if weight.ndim == 2:
            return (x @ weight.T + bias).T
        return np.einsum("nd,skd->snk", x, weight, optimize=True) + bias[:, None]


@dataclass(frozen=True)
class Problem:
    """Rows and labels of one layer, with the folds to be fitted."""

    x: Floats
    """[rows, width]."""
    y: NDArray[Any]
    """[rows] class codes or values."""
    n_classes: int
    """0 for regression."""
    masks: Floats
    """[rows, folds] 1 for rows that the fold's fit sees, or their weight."""
    tol: float = 1e-7
    """Of iterative fits: largest gradient entry per row at which they stop."""


def moments(problem: Problem) -> tuple[Floats, Floats]:
    """[folds, width] twice: weighted mean and standard deviation of each fold's rows; 1 for constants."""
    mean, scale, _ = spread(problem)
    return mean, scale


def spread(problem: Problem) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """The same, and [folds, width] which features vary among a fold's rows.

    A word that a fold's rows lack is constant there and nowhere else: its variance is what is left of two
    equal squares, so anything at their rounding error counts as none.
    """
    share = (problem.masks / problem.masks.sum(axis=0)).T
    mean = share @ problem.x
    # about the overall mean first: squares of large offsets would swallow small deviations
    middle = problem.x.mean(axis=0)
    about_middle = share @ (problem.x - middle) ** 2
    square = about_middle - (mean - middle) ** 2
    scale = np.sqrt(np.maximum(square, 0))
    varies = (square > 1e-12 * about_middle) & (scale > 1e-8 * (1e-30 + np.abs(mean)))
    return mean, np.where(varies, scale, 1.0), varies
