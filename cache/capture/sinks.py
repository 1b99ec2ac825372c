"""Where blocks of rows go: a file, through its writer, or arrays in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ..file.batch_plan import Plan
from ..file.layout import ArraySpec
from ..file.writer import Buffers


class Sink(Protocol):
    """Takes blocks in order."""

    @property
    def path(self) -> Path | None:
        """The file, None in memory."""
        ...

    def committed(self, block: int) -> bool:
        """Whether a block is there already."""
        ...

    def replay(self, block: int) -> None:
        """Pass over a block that is there already."""
        ...

    def write(self, block: int, buffers: Buffers) -> None:
        """Take a block's rows, in ascending order."""
        ...

    def close(self) -> None:
        """No more blocks."""
        ...


class MemorySink:
    """Rows in plain arrays."""

    path: Path | None = None

    def __init__(self, plan: Plan, arrays: tuple[ArraySpec, ...], n_rows: int) -> None:
        self._plan = plan
        self.arrays = {
            spec.key: np.empty((spec.n_layers, n_rows, *spec.shape), dtype=spec.storage) for spec in arrays
        }

    def committed(self, block: int) -> bool:
        """Nothing is there before it is written."""
        return False

    def replay(self, block: int) -> None:
        """Never called."""

    def write(self, block: int, buffers: Buffers) -> None:
        """Copy a block's rows to their places."""
        done = 0
        for start, stop in self._plan.runs_of(block):
            for key, values in buffers.items():
                self.arrays[key][:, start:stop] = values[:, done : done + stop - start]
            done += stop - start

    def close(self) -> None:
        """Nothing to release."""


class BlockBuffer:
    """The rows of one block while its batches come in; its memory is used again for the next."""

    def __init__(self, plan: Plan, arrays: tuple[ArraySpec, ...]) -> None:
        self._plan = plan
        self._arrays = arrays
        most = max((plan.n_rows_of(block) for block in range(plan.n_blocks)), default=0)
        self._memory = {
            spec.key: np.empty(spec.n_layers * most * spec.row_bytes, dtype=np.uint8) for spec in arrays
        }
        self.views: dict[str, np.ndarray] = {}

    def begin(self, block: int) -> None:
        """Shape the memory for a block."""
        prompts = self._plan.prompts_of(block)
        counts = self._plan.row_starts[prompts + 1] - self._plan.row_starts[prompts]
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._starts, self._counts = starts[:-1], counts
        runs = self._plan.same_as[prompts]
        self._by_run = np.argsort(runs, kind="stable")
        self._runs = runs[self._by_run]
        n_rows = int(starts[-1])
        self.views = {}
        for spec in self._arrays:
            size = spec.n_layers * n_rows * spec.row_bytes
            shape = (spec.n_layers, n_rows, *spec.shape)
            self.views[spec.key] = self._memory[spec.key][:size].view(spec.storage).reshape(shape)

    def put(self, prompts: np.ndarray, rows: dict[str, dict[int, np.ndarray]]) -> None:
        """Place a batch's rows, for the prompts that ran and for those identical to them."""
        source, target = self._indices(prompts)
        # without copies of a prompt every row goes to one place: no gathering first
        once = bool((np.diff(source) == 1).all())
        for key, layers in rows.items():
            for layer, values in layers.items():
                self.views[key][layer, target] = values if once else values[source]

    def _indices(self, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = self._plan.row_starts[prompts + 1] - self._plan.row_starts[prompts]
        first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        sources, targets = [], []
        for prompt, start, count in zip(prompts.tolist(), first.tolist(), counts.tolist(), strict=True):
            low, high = np.searchsorted(self._runs, [prompt, prompt + 1])
            for copy in self._by_run[low:high]:
                sources.append(np.arange(start, start + count))
                targets.append(np.arange(self._starts[copy], self._starts[copy] + count))
        return np.concatenate(sources), np.concatenate(targets)
