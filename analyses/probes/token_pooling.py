"""Pooling rules of token-level probes: from a score per token to one per prompt, trained end to end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..solvers.arrays import Array, giver, to_numpy, to_tensor
from .problem import Floats, Problem

LOW = -1e30
RESTART = 20
"""Steps between fresh starts of the search where the loss has kinks."""


@dataclass(frozen=True)
class Pool:
    """How token scores become a prompt score."""

    heads: int
    """Score vectors per token."""
    pool: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    """Scores [prompts, tokens, heads] and mask [prompts, tokens], a setting → [prompts]."""
    setting: float = 0.0
    """Window of `rolling`, rate of `exponential`."""
    smooth: bool = True
    """Whether its gradient vanishes at a minimum; where a maximum is taken it need not."""


def _mean(s: torch.Tensor, mask: torch.Tensor, _: float) -> torch.Tensor:
    return (s[:, :, 0] * mask).sum(1) / mask.sum(1)


def _last(s: torch.Tensor, mask: torch.Tensor, _: float) -> torch.Tensor:
    return s[torch.arange(len(s), device=s.device), mask.sum(1).long() - 1, 0]


def _attention(s: torch.Tensor, mask: torch.Tensor, _: float) -> torch.Tensor:
    weights = torch.softmax(torch.where(mask > 0, s[:, :, 1], LOW), dim=1)
    return (weights * s[:, :, 0]).sum(1)


def _multimax(s: torch.Tensor, mask: torch.Tensor, _: float) -> torch.Tensor:
    return torch.where(mask[:, :, None] > 0, s, LOW).amax(1).sum(1)


def _rolling(s: torch.Tensor, mask: torch.Tensor, window: float) -> torch.Tensor:
    """Largest mean over any run of `window` tokens; prompts shorter than that have one run, all of them."""
    size = min(int(window), s.shape[1])
    total = torch.cumsum(torch.nn.functional.pad(s[:, :, 0] * mask, (1, 0)), dim=1)
    sums = total[:, size:] - total[:, :-size]
    ends = torch.arange(size, s.shape[1] + 1, device=s.device)
    lengths = mask.sum(1)
    whole = ends[None] <= lengths[:, None]
    best = torch.where(whole, sums / size, LOW).amax(1)
    return torch.where(lengths >= size, best, total[:, -1] / lengths)


def _exponential(s: torch.Tensor, mask: torch.Tensor, rate: float) -> torch.Tensor:
    """Largest value of the exponential moving average that starts at the first token's score."""
    average = s[:, 0, 0]
    best = average
    for t in range(1, s.shape[1]):
        average = torch.where(mask[:, t] > 0, rate * s[:, t, 0] + (1 - rate) * average, average)
        best = torch.maximum(best, average)
    return best


POOLS = {
    "mean": Pool(1, _mean),
    "last": Pool(1, _last),
    "attention": Pool(2, _attention),
    "multimax": Pool(4, _multimax, smooth=False),
    "rolling": Pool(1, _rolling, 5, smooth=False),
    "exponential": Pool(1, _exponential, 0.3, smooth=False),
}
"""`attention`: the second score vector is the query; `multimax`: four vectors, the sum of their maxima."""


@dataclass(frozen=True)
class TokenFits:
    """Fits of a pooled probe, scoring like `linear_probe_problem.Fits`; rows are padded prompts."""

    weight: Array
    """[folds, strengths, heads, width] in raw space; [folds, strengths, width] with one head."""
    bias: Array
    """[folds, strengths]: added after pooling."""
    converged: NDArray[np.bool_]
    gradient: Floats
    pool: Pool
    width: int

    def margins(self, x: Array, fold: int) -> Floats:
        """[strengths, prompts] scores of padded prompts [prompts, tokens · (width + 1)]."""
        rows, mask = unpack(x, self.width)
        out = []
        for weight, bias in zip(self.weight[fold], self.bias[fold], strict=True):
            vectors = torch.atleast_2d(to_tensor(weight, like=rows))
            out.append(self.pool.pool(rows @ vectors.T, mask, self.pool.setting) + float(bias))
        return to_numpy(torch.stack(out))


def unpack(x: Array, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded prompts as tokens [prompts, tokens, width] and mask [prompts, tokens]."""
    packed = to_tensor(x).reshape(len(x), -1, width + 1)
    return packed[:, :, :-1], packed[:, :, -1]


def fit_pooled(
    problem: Problem, strengths: Floats, pool: Pool, width: int, *, steps: int, seed: int
) -> TokenFits:
    """Minimise pooled logistic loss + ‖w‖² / (2 C n) by L-BFGS, one fit per fold × strength.

    Converged means that the gradient has vanished (below 1e-3) or, where the pool takes a maximum and there
    need be no such place, that starting the search anew lowers the loss by less than a part in 10⁵.
    """
    rows, mask = unpack(problem.x, width)
    y = to_tensor(problem.y, like=rows)
    masks = to_tensor(problem.masks, like=rows)
    weights, biases, gradients, done = [], [], [], []
    for fold in range(problem.n_folds):
        u = masks[:, fold]
        real = (mask * (u > 0)[:, None])[:, :, None]
        count = real.sum()
        centre = (rows * real).sum((0, 1)) / count
        scale = ((rows - centre) ** 2 * real).sum((0, 1)).div(count).sqrt()
        scale = torch.where(scale > 1e-8, scale, torch.ones_like(scale))
        seen = u > 0
        z = (rows[seen] - centre) / scale
        for strength in strengths:
            w, b, gradient, settled = _descend(
                z, mask[seen], y[seen], u[seen], pool, float(strength), steps, seed
            )
            raw = w / scale
            # centring shifts every token's score alike; where the pool passes a shift on, it goes to the bias
            heads = raw[:1] if pool.pool is _attention else raw
            weights.append(raw)
            biases.append(b - float((heads @ centre).sum()))
            gradients.append(gradient)
            done.append(settled)
    shape = (problem.n_folds, len(strengths))
    give = giver(problem.x)
    weight = give(torch.stack(weights).reshape(*shape, pool.heads, width))
    left = np.array(gradients).reshape(shape)
    bias = give(rows.new_tensor(biases).reshape(shape))
    return TokenFits(
        weight[:, :, 0] if pool.heads == 1 else weight, bias, np.array(done).reshape(shape), left, pool, width
    )


def _descend(
    z: torch.Tensor,
    mask: torch.Tensor,
    y: torch.Tensor,
    u: torch.Tensor,
    pool: Pool,
    strength: float,
    steps: int,
    seed: int,
) -> Any:
    generator = torch.Generator().manual_seed(seed)
    w = 0.01 * torch.randn(pool.heads, z.shape[2], generator=generator, dtype=z.dtype)
    w = w.to(z.device).requires_grad_()
    b = z.new_zeros(1, requires_grad=True)

    def loss_now() -> torch.Tensor:
        m = pool.pool(z @ w.T, mask, pool.setting) + b
        loss = (u * (torch.nn.functional.softplus(m) - y * m)).sum() / u.sum()
        return loss + (w**2).sum() / (2 * strength * u.sum())

    settled = False
    # where maxima change hands the curvature that was learnt misleads: start anew until nothing is gained
    for _ in range(1 if pool.smooth else max(1, steps // RESTART)):
        optimiser = torch.optim.LBFGS(
            [w, b], max_iter=steps if pool.smooth else RESTART, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure(optimiser: torch.optim.LBFGS = optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            loss = loss_now()
            loss.backward()
            return loss

        before = float(closure().detach())
        optimiser.step(closure)
        after = float(closure().detach())
        settled = before - after <= 1e-5 * abs(before)
        if settled:
            break
    gradient = max(float(part.grad.abs().max()) for part in (w, b) if part.grad is not None)
    return w.detach(), float(b.detach()), gradient, gradient < 1e-3 or (settled and not pool.smooth)
