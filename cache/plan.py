"""`layerprobe plan`: what a capture will cost, before it starts."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .assembly import array_specs, batch_plan, free_bytes, make_request
from .batches import Plan
from .info import human_bytes
from .layout import ArraySpec
from .options import make_options, text_table
from .prepare import Prepared, prepare
from .prompts import PromptTable
from .running import make_batch, run_batch

if TYPE_CHECKING:
    from ..hooks.model import Model


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
    """Peak host memory: what the process takes now, two blocks of rows, one batch."""
    device_bytes: int | None
    """Peak device memory of the measured batch; None on CPU."""
    seconds: float | None
    """Estimate from a measured batch; None where nothing was measured."""

    def __str__(self) -> str:
        lines = [
            f"{self.tokens:,} tokens ({self.padding:.0%} padding) in {self.batches:,} batches",
            f"{self.rows:,} rows, {human_bytes(self.bytes_on_disk)} on disk in {self.blocks:,} blocks"
            + ("" if self.bytes_free is None else f" ({human_bytes(self.bytes_free)} free)"),
            f"peak memory: host {human_bytes(self.host_bytes)}"
            + ("" if self.device_bytes is None else f", device {human_bytes(self.device_bytes)}"),
        ]
        if self.seconds is not None:
            lines.append(f"about {_duration(self.seconds)}, by a measured batch")
        return "\n".join(lines)


def plan(
    model: Model,
    prompts: PromptTable | Sequence[str],
    *,
    sites: Sequence[str] | str,
    tokens: str = "last",
    path: str | Path | None = None,
    chat_template: bool | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    batch_tokens: int | Literal["auto"] = "auto",
    dtype: str | None = None,
    top_k: int = 5,
    on_long: Literal["error", "truncate"] = "error",
    measure: bool = True,
) -> CapturePlan:
    """Rows, bytes, memory and time of a capture with the same arguments.

    Args:
        measure: run one batch of middling size to estimate the time; everything else is as in `capture`.

    Raises:
        LayerprobeError: as `capture`, but for what concerns the file.
    """
    table = prompts if isinstance(prompts, PromptTable) else text_table(prompts)
    options = make_options(
        model,
        table,
        sites=sites,
        tokens=tokens,
        chat_template=chat_template,
        lens_tokens=tuple(lens_tokens),
        lens_first_difference=lens_first_difference,
        dtype=dtype,
        top_k=top_k,
        on_long=on_long,
    )
    prepared = prepare(
        model,
        table,
        options.rule,
        chat_template=options.chat_template,
        lens_tokens=options.lens_tokens,
        first_difference=lens_first_difference,
        on_long=on_long,
    )
    arrays = array_specs(model, options, prepared)
    batches = batch_plan(model, prepared, arrays, batch_tokens)
    request = make_request(model, options, arrays, prepared)
    measured = _measure(model, request, prepared, batches) if measure else None
    return summarise(prepared, batches, arrays, None if path is None else Path(path), measured)


@dataclass(frozen=True)
class Measured:
    """One batch, timed."""

    tokens: int
    seconds: float
    device_bytes: int | None


def summarise(
    prepared: Prepared,
    plan: Plan,
    arrays: tuple[ArraySpec, ...],
    path: Path | None,
    measured: Measured | None,
) -> CapturePlan:
    """The figures of a plan."""
    lengths = prepared.columns.lengths
    assert lengths is not None
    real = int(lengths[plan.order].sum())
    longest = np.maximum.reduceat(lengths[plan.order], plan.batches[:-1]) if len(plan.order) else np.zeros(0)
    padded = int((longest * np.diff(plan.batches)).sum())
    row_bytes = sum(spec.n_layers * spec.row_bytes for spec in arrays)
    n_rows = int(plan.row_starts[-1])
    block = max((plan.n_rows_of(index) for index in range(plan.n_blocks)), default=0) * row_bytes
    return CapturePlan(
        prompts=len(prepared.columns),
        runs=len(plan.order),
        rows=n_rows,
        tokens=real,
        padding=1 - real / max(padded, 1),
        batches=len(plan.batches) - 1,
        blocks=plan.n_blocks,
        bytes_on_disk=n_rows * row_bytes,
        bytes_free=None if path is None else free_bytes(path),
        host_bytes=peak_rss() + min(2, plan.n_blocks) * block,
        device_bytes=None if measured is None else measured.device_bytes,
        seconds=None if measured is None else measured.seconds * real / max(measured.tokens, 1),
    )


def _measure(model: Model, request: Any, prepared: Prepared, plan: Plan) -> Measured:
    import torch

    middle = (len(plan.batches) - 1) // 2
    batch = make_batch(prepared, plan.order[plan.batches[middle] : plan.batches[middle + 1]])
    cuda = model.device.type == "cuda"
    run_batch(model, request, batch)  # the first pass pays for allocation and kernel choice
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run_batch(model, request, batch)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return Measured(batch.n_tokens, seconds, torch.cuda.max_memory_allocated() if cuda else None)


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
