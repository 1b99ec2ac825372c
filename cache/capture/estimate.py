"""The figures of a capture: rows, bytes, memory, time."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..file.batch_plan import Plan
from ..file.disk_space import bytes_of, free_bytes, human_bytes
from ..file.layout import ArraySpec


@dataclass(frozen=True)
class CapturePlan:
    """The cost of a capture."""

    prompts: int
    runs: int
    """Prompts that run; identical ones run once."""
    rows: int
    tokens: int
    """Real tokens that run."""
    padding: float
    """Share of padding in all batches."""
    batches: int
    blocks: int
    bytes_on_disk: int
    bytes_free: int | None
    host_bytes: int
    """Peak host memory: what the process has taken so far, two blocks of rows, without a file all rows."""
    device_bytes: int | None
    """Peak device memory of the measured batch; None on CPU."""
    seconds: float | None
    """Estimate from a measured batch; None where nothing was measured."""
    at_most: bool = False
    """Whether rows, tokens and bytes are those of the longest continuations that the model may write."""

    @property
    def contents(self) -> str:
        """What is known before anything runs, in one line."""
        room = "" if self.bytes_free is None else f" on disk ({human_bytes(self.bytes_free)} free)"
        blocks = f"{self.blocks:,} block{'' if self.blocks == 1 else 's'}"
        most = "at most " if self.at_most else ""
        return (
            f"{most}{self.rows:,} rows, {human_bytes(self.bytes_on_disk)}{room} in {blocks}; "
            f"{self.tokens:,} tokens ({self.padding:.0%} padding) in {self.batches:,} batches"
        )

    @property
    def costs(self) -> str:
        """Memory and time, in one line."""
        device = "" if self.device_bytes is None else f", device {human_bytes(self.device_bytes)}"
        memory = f"peak memory: host {human_bytes(self.host_bytes)}{device}"
        if self.seconds is None:
            return memory
        without = ", without the time of generating" if self.at_most else ""
        return f"{memory}; about {_duration(self.seconds)}, by a measured batch{without}"

    def __str__(self) -> str:
        return f"{self.contents}\n{self.costs}"


@dataclass(frozen=True)
class Measured:
    """One batch, timed."""

    tokens: int
    seconds: float
    device_bytes: int | None


def summarise(
    plan: Plan,
    lengths: np.ndarray,
    arrays: tuple[ArraySpec, ...],
    path: Path | None,
    measured: Measured | None,
    *,
    left: int | None = None,
) -> CapturePlan:
    """The figures of a plan.

    Args:
        plan: the batches.
        lengths: [prompts] tokens of each prompt.
        arrays: what is stored.
        path: where, None in memory.
        measured: a batch that was timed.
        left: real tokens that the estimate of time is for; None for all.
    """
    real = int(lengths[plan.order].sum())
    longest = np.maximum.reduceat(lengths[plan.order], plan.batches[:-1]) if len(plan.order) else np.zeros(0)
    padded = int((longest * np.diff(plan.batches)).sum())
    n_rows = int(plan.row_starts[-1])
    total = bytes_of(arrays, n_rows)
    block = bytes_of(arrays, max((plan.n_rows_of(index) for index in range(plan.n_blocks)), default=0))
    held = min(2, plan.n_blocks) * block + (total if path is None else 0)
    return CapturePlan(
        prompts=len(lengths),
        runs=len(plan.order),
        rows=n_rows,
        tokens=real,
        padding=1 - real / max(padded, 1),
        batches=len(plan.batches) - 1,
        blocks=plan.n_blocks,
        bytes_on_disk=total,
        bytes_free=None if path is None else free_bytes(path),
        host_bytes=peak_rss() + held,
        device_bytes=None if measured is None else measured.device_bytes,
        seconds=None
        if measured is None
        else measured.seconds * (real if left is None else left) / max(measured.tokens, 1),
    )


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
