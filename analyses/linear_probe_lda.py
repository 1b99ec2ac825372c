"""Mass-mean probes that know the covariance: linear discriminant analysis, plain and shrunk.

The difference of class means, turned by the inverse of the covariance within classes, is the Bayes direction
for Gaussian classes of one shape (Marks & Tegmark 2310.06824 use it so).
"""

import numpy as np
import torch

from .linear_probe_problem import Fits, Floats, Problem
from .solvers.ridge import decompose


def fit_lda(problem: Problem, strengths: Floats) -> Fits:
    """LDA with the covariance as it is (its smallest directions lifted by a millionth of the mean one)."""
    return _fit(problem, lambda residuals: 1e-6)


def fit_shrunk_lda(problem: Problem, strengths: Floats) -> Fits:
    """LDA with the covariance shrunk towards the mean variance by Ledoit & Wolf's (2004) estimate."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    return _fit(problem, lambda residuals: float(ledoit_wolf_shrinkage(residuals, assume_centered=True)))


def _fit(problem: Problem, shrinkage) -> Fits:  # type: ignore[no-untyped-def]
    weights, biases = [], []
    for fold in range(problem.masks.shape[1]):
        seen = problem.masks[:, fold] > 0
        x, y, u = problem.x[seen], problem.y[seen], problem.masks[seen, fold]
        member = np.eye(problem.n_classes)[y] * u[:, None]
        mean = (member / member.sum(axis=0)).T @ x
        residuals = (x - mean[y]) * np.sqrt(u / u.mean())[:, None]
        turned = solve_shrunk(residuals, mean.T, shrinkage(residuals)).T
        share = member.sum(axis=0) / member.sum()
        bias = -0.5 * (turned * mean).sum(axis=1) + np.log(share)
        if problem.n_classes == 2:
            turned, bias = turned[1] - turned[0], bias[1] - bias[0]
        weights.append(turned)
        biases.append(bias)
    done = np.ones((len(weights), 1), dtype=bool)
    return Fits(np.stack(weights)[:, None], np.stack(biases)[:, None], done, np.zeros(done.shape))


def solve_shrunk(residuals: Floats, vectors: Floats, shrinkage: float) -> Floats:
    """Σ⁻¹ vectors for Σ = (1 − shrinkage) · RᵀR / n + shrinkage · mean variance · I.

    Args:
        residuals: R [rows, width], centred.
        vectors: [width, count].
        shrinkage: above 0 and at most 1.

    Returns:
        [width, count]. Decomposes the smaller side of R.
    """
    n, width = residuals.shape
    floor = max(shrinkage * float((residuals**2).sum()) / (n * width), 1e-300)
    parts = decompose(torch.from_numpy(residuals))
    v, s = parts.to_weight.numpy(), parts.s.numpy()
    along = v.T @ vectors
    return vectors / floor + v @ (along * (1 / ((1 - shrinkage) * s**2 / n + floor) - 1 / floor)[:, None])
