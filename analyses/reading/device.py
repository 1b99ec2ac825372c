"""Layers side by side on an accelerator, as many at a time as its memory holds."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ...hooks.devices import read_device
from ...hooks.errors import LayerprobeError
from ..solvers.arrays import Array
from .threads import PLANNED

Item = TypeVar("Item")
Out = TypeVar("Out")
Key = TypeVar("Key")


def find_device(device: str | torch.device | None) -> torch.device | None:
    """The device that fits run on; `None` for the CPU, where layers go to threads instead.

    Args:
        device: `None` or `cpu`; `cuda`, `cuda:1`, …; `auto`: a GPU where there is one.

    Raises:
        LayerprobeError: no such device here, or one without double precision.
    """
    if str(device).startswith("mps"):
        raise LayerprobeError("device='mps' has no double precision, which fits need; pass device='cpu'")
    found = read_device(device)
    return found if found.type == "cuda" else None


def on_device(rows: NDArray[Any], device: torch.device | None) -> Array:
    """Rows as they are for the CPU (`None`), else as a tensor on the device."""
    return rows if device is None else torch.from_numpy(np.ascontiguousarray(rows)).to(device)


def bytes_per_layer(rows: int, width: int, columns: int) -> int:
    """About how much a fit of one layer holds at its largest.

    Args:
        rows: of the layer.
        width: of the layer.
        columns: fits that run together: folds × strengths × classes.
    """
    small = min(rows, width)
    history = 24 * columns * (small + 1)  # L-BFGS keeps ten steps and ten changes
    margins = 8 * columns * rows
    return 8 * (4 * rows * width + 4 * small**2 + history + margins)


def how_many_fit(device: torch.device, per_layer: int) -> int:
    """How many layers fit into what is free on the device; at least one."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, int((free + held) * PLANNED / per_layer))


def over_batches(
    work: Callable[[Sequence[Item]], list[Out]],
    items: Sequence[Item],
    *,
    at_a_time: int,
    progress: bool = False,
    description: str = "",
) -> list[Out]:
    """Apply `work` to runs of items; where the device's memory does not suffice, to shorter ones.

    Args:
        work: takes items to be done together, gives one result for each.
        items: layers, or whatever stands for them.
        at_a_time: how many to try together first.
        progress: show a bar.
        description: named in the bar.
    """
    from tqdm.auto import tqdm

    results: list[Out] = []
    with tqdm(total=len(items), desc=description, leave=False, disable=not progress) as bar:
        while len(results) < len(items):
            batch = items[len(results) : len(results) + at_a_time]
            done = _unless_full(work, batch)
            if done is None:
                at_a_time = max(1, len(batch) // 2)
                torch.cuda.empty_cache()
                continue
            results += done
            bar.update(len(batch))
    return results


def _unless_full(work: Callable[[Sequence[Item]], list[Out]], batch: Sequence[Item]) -> list[Out] | None:
    try:
        return work(batch)
    except torch.OutOfMemoryError as error:
        if len(batch) > 1:
            return None
        raise LayerprobeError(
            f"one layer does not fit on the device ({str(error).splitlines()[0]}); free memory there, pass "
            "fewer strengths or folds, or device='cpu'"
        ) from error


def alike(items: Sequence[Item], keys: Sequence[Key]) -> dict[Key, list[Item]]:
    """Items by key, such as layers by width; both in order of first appearance."""
    groups: dict[Key, list[Item]] = {}
    for item, key in zip(items, keys, strict=True):
        groups.setdefault(key, []).append(item)
    return groups
