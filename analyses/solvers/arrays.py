"""Solvers compute on torch tensors: numpy in, numpy out; a tensor in, a tensor on its device out."""

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


def inner_products(z: torch.Tensor) -> torch.Tensor:
    """[rows, rows] z · zᵀ; on a CPU by numpy, which computes one triangle only where torch computes both."""
    if z.device.type != "cpu":
        return z @ z.T
    values = z.numpy()
    return torch.from_numpy(values @ values.T)
