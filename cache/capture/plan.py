"""`layerprobe plan`: what a capture will cost, before it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..file.batch_plan import Plan
from ..prompts.table import PromptTable
from .assembly import array_specs, batch_plan, batch_reads
from .continuations import at_most
from .estimate import CapturePlan, Measured, summarise
from .forward import Reads, make_batch, run_batch
from .job import CaptureJob
from .prepare import Prepared, prepare_options
from .request import CaptureRequest

if TYPE_CHECKING:
    from ...hooks.model import Model


def plan(
    model: Model,
    prompts: PromptTable | Sequence[str],
    *,
    sites: Sequence[str] | str,
    tokens: str = "last",
    path: str | Path | None = None,
    chat_template: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    batch_tokens: int | Literal["auto"] = "auto",
    dtype: str | None = None,
    top_k: int = 5,
    on_long: Literal["error", "truncate"] = "error",
    generate: Mapping[str, Any] | None = None,
    measure: bool = True,
) -> CapturePlan:
    """Rows, bytes, memory and time of a capture with the same arguments.

    Args:
        measure: run one batch of middling size to estimate the time; everything else is as in `capture`. Of
            `generate`, nothing is written: the figures are for continuations as long as they may be, and the
            time is without that of writing them.

    Raises:
        LayerprobeError: as `capture`, but for what concerns the file.
    """
    request = CaptureRequest(
        sites=sites,  # type: ignore[arg-type]  # one name, or any sequence of them, becomes a tuple
        tokens=tokens,
        chat_template=chat_template,
        chat_options=chat_options or {},
        lens_tokens=tuple(lens_tokens),
        lens_first_difference=lens_first_difference,
        dtype=dtype,
        top_k=top_k,
        on_long=on_long,
        batch_tokens=batch_tokens,
        generate=generate or {},
    )
    return plan_job(CaptureJob.of(model, prompts, request, path=path), measure=measure)


def plan_job(job: CaptureJob, *, measure: bool = True) -> CapturePlan:
    """The same of a job.

    Raises:
        LayerprobeError: as `plan`.
    """
    prepared = prepare_options(job.model, job.table, job.request)
    prepared.unknown.warn(job.model.name, job.table)
    prepared = at_most(job, prepared)
    arrays = array_specs(job, prepared)
    batches = batch_plan(job, prepared, arrays)
    reads = batch_reads(job, arrays, prepared)
    measured = _measure(job.model, reads, prepared, batches) if measure else None
    figures = summarise(batches, prepared.lengths, arrays, job.path, measured)
    return replace(figures, at_most=bool(job.request.asked.generate))


def _measure(model: Model, reads: Reads, prepared: Prepared, plan: Plan) -> Measured:
    import torch

    middle = (len(plan.batches) - 1) // 2
    batch = make_batch(prepared, plan.order[plan.batches[middle] : plan.batches[middle + 1]])
    cuda = model.device.type == "cuda"
    run_batch(model, reads, batch)  # the first pass pays for allocation and kernel choice
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run_batch(model, reads, batch)
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return Measured(batch.n_tokens, seconds, torch.cuda.max_memory_allocated() if cuda else None)
