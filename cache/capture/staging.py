"""Rows on their way from the device to the host: pinned buffers, a side stream, and events."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Rows = dict[str, dict[int, np.ndarray]]
"""Array key -> layer index -> [rows of the batch, *shape] in the stored type."""
DeviceRows = dict[str, dict[int, Tensor]]


class Staging:
    """Copies the rows of one batch while the next one computes.

    On a GPU the copies go to a ring of pinned buffers on a stream of their own; the event of each slot says
    when its rows have arrived. On a CPU rows are handed on as they are.
    """

    def __init__(self, device: torch.device, slots: int = 2) -> None:
        self._cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self._cuda else None
        self._pinned: list[dict[tuple[str, int], Tensor]] = [{} for _ in range(slots)]
        self._turn = 0

    def send(self, rows: DeviceRows) -> Callable[[], Rows]:
        """Begin to copy; the function that comes back waits and gives the rows on the host.

        It must be called before as many further batches are sent as there are slots.
        """
        if self._stream is None:
            host = {
                key: {layer: as_numpy(value.cpu()) for layer, value in held.items()}
                for key, held in rows.items()
            }
            return lambda: host
        slot = self._pinned[self._turn]
        self._turn = (self._turn + 1) % len(self._pinned)
        self._stream.wait_stream(torch.cuda.current_stream())
        copied: DeviceRows = {}
        with torch.cuda.stream(self._stream):
            for key, held in rows.items():
                copied[key] = {}
                for layer, value in held.items():
                    value.record_stream(self._stream)  # its memory is not given away before the copy has run
                    target = _room(slot, (key, layer), value)
                    copied[key][layer] = target.copy_(value, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record(self._stream)

        def wait() -> Rows:
            arrived.synchronize()
            return {key: {layer: as_numpy(v) for layer, v in held.items()} for key, held in copied.items()}

        return wait


def _room(slot: dict[tuple[str, int], Tensor], name: tuple[str, int], value: Tensor) -> Tensor:
    """A piece of the slot's pinned buffer in the value's shape; the buffer grows where it must."""
    held = slot.get(name)
    if held is None or held.numel() < value.numel() or held.dtype != value.dtype:
        held = slot[name] = torch.empty(
            value.numel(), dtype=value.dtype, pin_memory=torch.cuda.is_available()
        )
    return held[: value.numel()].view(value.shape)


def as_numpy(value: Tensor) -> np.ndarray:
    """A host tensor as an array over the same memory; bfloat16 as its uint16 bits."""
    if value.dtype == torch.bfloat16:
        return value.view(torch.int16).numpy().view(np.uint16)
    return value.numpy()
