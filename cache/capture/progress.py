"""What a capture says while it runs: its plan, an estimate from its own first batches, a bar of tokens."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ..file.batch_plan import Plan
from ..file.layout import ArraySpec
from .estimate import Measured, summarise


class Progress:
    """A bar over real tokens, with the plan before it.

    The estimate costs nothing: the second batch is timed where there is one, since the first also pays for
    allocation and the choice of kernels. Batches run longest first, so the first shows the peak of memory.
    """

    def __init__(
        self,
        plan: Plan,
        lengths: np.ndarray,
        arrays: tuple[ArraySpec, ...],
        todo: list[int],
        *,
        path: Path | None,
        device: torch.device,
        show: bool,
    ) -> None:
        from tqdm.auto import tqdm

        self._plan, self._lengths, self._arrays, self._path = plan, lengths, arrays, path
        self._cuda = device if device.type == "cuda" else None
        self._show = show
        left = [batch for block in todo for batch in plan.batches_of(block)]
        self._batches = len(left)
        self._left = sum(int(lengths[batch].sum()) for batch in left)
        self._seen = 0
        total = int(lengths[plan.order].sum())
        self._tqdm: Any = tqdm
        if show and left:
            if self._cuda is not None:
                torch.cuda.reset_peak_memory_stats(self._cuda)
            self._say(self._summary(None).contents)
        self._bar = tqdm(
            total=total,
            initial=total - self._left,
            unit="tok",
            unit_scale=True,
            desc="capture",
            disable=not show,
        )
        self._last = time.perf_counter()

    def update(self, n_tokens: int) -> None:
        """A batch's rows have arrived."""
        now = time.perf_counter()
        self._seen += 1
        if self._show and self._seen == min(2, self._batches):
            self._say(self._summary(self._measured(n_tokens, now - self._last)).costs)
        self._left -= n_tokens
        self._last = now
        self._bar.update(n_tokens)

    def _measured(self, n_tokens: int, seconds: float) -> Measured:
        peak = None if self._cuda is None else torch.cuda.max_memory_allocated(self._cuda)
        return Measured(n_tokens, seconds, peak)

    def _summary(self, measured: Measured | None) -> Any:
        return summarise(self._plan, self._lengths, self._arrays, self._path, measured, left=self._left)

    def _say(self, line: str) -> None:
        self._tqdm.write(f"capture: {line}", file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
