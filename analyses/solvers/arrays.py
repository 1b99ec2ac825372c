"""Solvers compute on torch tensors: numpy in, numpy out; a tensor in, a tensor on its device out.

Rows may have leading axes, [..., rows, width]: layers of one shape that are solved together. Labels, folds
and row weights are those of the rows and shared by all layers; what is fitted has the same leading axes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = Any
"""numpy array or torch tensor."""


def to_tensor(
    array: Array, *, like: torch.Tensor | None = None, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """The array as a tensor, on the device of `like`."""
    device = None if like is None else like.device
    if isinstance(array, torch.Tensor):
        return array.to(device=device, dtype=dtype)
    values = np.ascontiguousarray(array)
    # a read-only memory map cannot be wrapped without a warning, and is copied by the conversion anyway
    return torch.from_numpy(values if values.flags.writeable else values.copy()).to(
        device=device, dtype=dtype
    )


def giver(array: Array) -> Callable[[torch.Tensor], Any]:
    """How results go back to whoever passed `array`: as a tensor where it was one, else as numpy."""
    if isinstance(array, torch.Tensor):
        return lambda tensor: tensor
    return to_numpy


def to_numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor as a numpy array."""
    return tensor.detach().cpu().numpy()


def on_host(array: Array) -> NDArray[Any]:
    """The array as a numpy array, wherever it was."""
    return to_numpy(array) if isinstance(array, torch.Tensor) else np.asarray(array)


def inner_products(z: torch.Tensor) -> torch.Tensor:
    """[..., rows, rows] z · zᵀ; of one layer on a CPU by numpy, which computes one triangle where torch does
    both."""
    if z.device.type != "cpu" or z.ndim > 2:
        return z @ z.mT
    values = z.numpy()
    return torch.from_numpy(values @ values.T)


def square_root(gram: torch.Tensor, cutoff: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Roots of the eigenvalues [..., rank], their inverses, and eigenvectors [..., n, rank].

    Args:
        gram: [..., n, n] positive semi-definite.
        cutoff: eigenvalues below this share of the largest count as none. Layers of lower rank than others
            are filled up with zeros, which no fit gives weight.
    """
    values, vectors = torch.linalg.eigh(gram)
    kept = values > values[..., -1:].clamp(min=1e-300) * cutoff
    rank = int(kept.sum(-1).max())
    values, vectors, kept = (part[..., part.shape[-1] - rank :] for part in (values, vectors, kept))
    root = torch.where(kept, values, 1.0).sqrt()
    return root * kept, kept / root, vectors * kept[..., None, :]
