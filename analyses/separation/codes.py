"""What a user hands to the separation indices, turned into rows and cluster codes, or refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...hooks.errors import LayerprobeError


def as_rows(x: Any, device: str | torch.device | None = None) -> Tensor:
    """[rows, width] floating tensor; trailing axes such as heads are laid side by side."""
    tensor = x if isinstance(x, Tensor) else torch.from_numpy(_writable(np.asarray(x)))
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    if tensor.ndim == 1:
        tensor = tensor[:, None]
    return tensor.reshape(len(tensor), -1).to(device or tensor.device)


def _writable(array: np.ndarray) -> np.ndarray:
    # torch warns about read-only memory maps, which we never write to; a view does not copy them
    return array if array.flags.writeable else np.array(array) if array.nbytes < 2**30 else array


def encode_labels(labels: Any, classes: Sequence[Any] | None = None) -> tuple[np.ndarray, list[Any]]:
    """Codes 0 … K − 1 and the classes they stand for, all present.

    Raises:
        LayerprobeError: a missing label, fewer than two clusters, or a named class without rows.
    """
    values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels).reshape(-1)
    gaps = np.asarray(pd.isna(values))
    if gaps.any():
        raise LayerprobeError(f"{int(gaps.sum())} labels are missing; leave those rows out")
    if values.dtype == object:
        values = np.array([str(value) for value in values])
    found, codes = np.unique(values, return_inverse=True)
    known = found.tolist()
    if classes is not None:
        wanted = [str(name) if values.dtype.kind == "U" else name for name in classes]
        empty = [name for name in wanted if name not in known]
        extra = [name for name in known if name not in wanted]
        if empty or extra:
            what = f"no rows for {empty}" if empty else f"labels outside classes: {extra}"
            raise LayerprobeError(f"{what}; the rows hold {known}: an empty cluster has no separation")
        position = {name: i for i, name in enumerate(wanted)}
        codes = np.array([position[name] for name in known])[codes]
        known = wanted
    if len(known) < 2:
        raise LayerprobeError(
            f"separation needs two clusters or more and the labels hold {len(known)} ({known}); "
            "check the label column"
        )
    return codes.reshape(-1).astype(np.int64), known
