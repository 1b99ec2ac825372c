"""L-BFGS over many independent columns at once, preconditioned by a bound on the curvature.

Each column is one problem (a fold, a penalty, a target, a permutation). Products with the data are shared by
all columns, so that they run as one matrix product; steps, histories and convergence belong to each column
alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

HISTORY = 10


@dataclass
class History:
    """The last steps and gradient changes of every column, newest last."""

    steps: list[torch.Tensor]
    changes: list[torch.Tensor]

    def push(self, step: torch.Tensor, change: torch.Tensor) -> None:
        """Remember one step; forget the oldest."""
        self.steps.append(step)
        self.changes.append(change)
        if len(self.steps) > HISTORY:
            self.steps.pop(0)
            self.changes.pop(0)

    def keep(self, columns: torch.Tensor) -> None:
        """Forget all columns but these."""
        self.steps = [step[..., columns, :] for step in self.steps]
        self.changes = [change[..., columns, :] for change in self.changes]


def per_column(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product of each column's parameters: [..., p, columns, classes] twice → [..., columns]."""
    return torch.linalg.vecdot(a, b, dim=-3).sum(-1)


def direction(
    gradient: torch.Tensor, history: History, precondition: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The quasi-Newton descent direction of every column (Nocedal 1980, two loops).

    Args:
        gradient: [..., p, columns, classes].
        history: of steps and gradient changes.
        precondition: applies an approximate inverse Hessian to [..., p, columns, classes].
    """
    q = gradient.clone()
    used = []
    for step, change in zip(reversed(history.steps), reversed(history.changes), strict=True):
        curvature = per_column(step, change)
        # a column that did not move has nothing to say: rho = 0 leaves it out
        rho = torch.where(curvature > 1e-300, 1 / curvature.clamp(min=1e-300), torch.zeros_like(curvature))
        alpha = rho * per_column(step, q)
        q.addcmul_(alpha[..., None, :, None], change, value=-1)
        used.append((step, change, rho, alpha))
    q = precondition(q)
    for step, change, rho, alpha in reversed(used):
        beta = rho * per_column(change, q)
        q.addcmul_((alpha - beta)[..., None, :, None], step)
    return -q
