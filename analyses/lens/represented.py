"""Whether an answer is represented where it leads: more than a lead, its rank beats random answers'.

The logit difference of two tokens is above zero at some middle layer for half of all prompts of a model with
random weights. Represented is an answer that stands higher among all tokens than random tokens would.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..result.findings import ALPHA
from .trajectories import Trajectory

FEWEST_TOKENS = 50
"""Known tokens below which ranks say too little."""


@dataclass(frozen=True)
class Represented:
    """The answer's standing among all tokens at one layer."""

    found: bool | None
    """`None` where it cannot be judged."""
    rank_share: float
    """Mean over rows of the share of random answers (as many variants) that rank as high or higher."""
    p: float
    """That random answers stand as high, corrected for having looked at every middle layer."""


def represented(trajectory: Trajectory, rows: NDArray[np.bool_], layer: int, n_looked: int) -> Represented:
    """Compare the answers' ranks at a layer with those of random answers.

    A random answer of k variants has its best one at rank r or above with probability 1 − (1 − (r + 1)/V)ᵏ,
    V tokens in all. Rows that ask for the same token are one answer: a token that stands high by itself, as
    some do in any model, is one accident and not as many as there are prompts.

    Args:
        trajectory: with `answers`, `n_variants` and `vocabulary`.
        rows: [rows] mask.
        layer: where the lead is largest.
        n_looked: layers among which that one was chosen.
    """
    size, codes, variants = trajectory.vocabulary, trajectory.answers, trajectory.n_variants
    if size is None or codes is None or variants is None or size < FEWEST_TOKENS:
        return Represented(None, np.nan, np.nan)
    rank = trajectory.answer_rank[trajectory.layers.index(layer)][rows]
    share = 1 - (1 - np.minimum((rank + 1) / size, 1)) ** variants[rows]
    _, answer = np.unique(codes[rows], return_inverse=True)
    of_answer = np.bincount(answer, share) / np.bincount(answer)
    p = min(1.0, n_looked * mean_of_uniforms(of_answer))
    return Represented(bool(p <= ALPHA), float(share.mean()), p)


def mean_of_uniforms(values: ArrayLike) -> float:
    """Probability that as many independent uniform numbers have a mean as small (Irwin 1927, Hall 1927).

    >>> mean_of_uniforms([0.2]), round(mean_of_uniforms([0.1, 0.1]), 4)
    (0.2, 0.02)
    """
    from math import comb, factorial

    from scipy.special import ndtr

    numbers = np.asarray(values, dtype=np.float64)
    n, total = len(numbers), float(numbers.sum())
    if n > 15:  # the sum alternates and cancels; the normal is as exact by then
        return float(ndtr((total - n / 2) / np.sqrt(n / 12)))
    terms = [(-1) ** k * comb(n, k) * (total - k) ** n for k in range(int(np.floor(total)) + 1)]
    return float(min(1.0, max(0.0, sum(terms) / factorial(n))))
