"""The spaces in which separation is measured. None of them looks at the labels."""

import torch
from torch import Tensor

from ...hooks.errors import LayerprobeError
from .moments import row_blocks

SPACES = ("raw", "zscored", "whitened")


def to_space(x: Tensor, space: str) -> Tensor:
    """Rows in a space.

    Since labels play no part, the same map serves the data, every permutation and every bootstrap draw.

    Args:
        x: [rows, width], any floating dtype.
        space: `raw`; `zscored`: every dimension to mean 0 and sd 1 over the rows, so that none dominates
            (constant dimensions become 0); `whitened`: decorrelated by the Ledoit-Wolf covariance of all
            rows.

    Returns:
        [rows, width], or [rows, rank] coordinates with the same distances for `whitened`; float32 for more
        than 4,096 rows of reduced precision, else float64.
    """
    if space not in SPACES:
        raise LayerprobeError(f"space {space!r}, expected one of {', '.join(SPACES)}")
    if space == "raw":
        return x
    dtype = torch.float32 if len(x) > 4096 and x.dtype != torch.float64 else torch.float64
    return _zscored(x, dtype) if space == "zscored" else whitened(x).to(dtype)


def _zscored(x: Tensor, dtype: torch.dtype) -> Tensor:
    mean, sd = mean_and_sd(x)
    # a constant column leaves rounding noise of its own size; it carries nothing
    floor = 1e-12 * mean.abs().clamp(min=1e-300) if x.dtype == torch.float64 else 1e-6 * mean.abs()
    scale = torch.where(sd > floor, 1 / sd, torch.zeros_like(sd))
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    for rows in row_blocks(len(x), 4096):
        out[rows] = ((x[rows].to(torch.float64) - mean) * scale).to(dtype)
    return out


def mean_and_sd(x: Tensor) -> tuple[Tensor, Tensor]:
    """[width] mean and population sd in float64, streamed, two passes."""
    mean = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    variance = torch.zeros_like(mean)
    for rows in row_blocks(len(x), 4096):
        mean += (x[rows].to(torch.float64) - x[0].to(torch.float64)).sum(dim=0)
    mean = mean / len(x) + x[0].to(torch.float64)
    for rows in row_blocks(len(x), 4096):
        variance += (x[rows].to(torch.float64) - mean).square().sum(dim=0)
    return mean, (variance / len(x)).sqrt()


def whitened(x: Tensor) -> Tensor:
    """[rows, rank] coordinates whose distances are Mahalanobis under the shrunk covariance of all rows.

    Shrinkage towards a multiple of the identity by Ledoit & Wolf (2004), so that more dimensions than rows
    are allowed; only the part of the space that the rows span is returned.
    """
    centred = x.to(torch.float64) - mean_and_sd(x)[0]
    n, width = centred.shape
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    variance = singular.square() / n
    average = variance.sum() / width
    spread = (variance.square().sum() - width * average**2) / width
    noise = (centred.square().sum(dim=1).square().sum() / n - variance.square().sum()) / (n * width)
    # every covariance equal to the target leaves nothing to shrink
    share = float((torch.minimum(noise, spread) / spread).clamp(0, 1)) if float(spread) > 0 else 0.0
    shrunk = (1 - share) * variance + share * average
    keep = singular > singular.max() * 1e-12
    return left[:, keep] * (singular[keep] / shrunk[keep].sqrt())
