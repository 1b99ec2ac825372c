"""The capture loop: batches prepared ahead, rows written behind, while the model runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..file.batch_plan import Plan
from .forward import Batch, Reads, concatenate, make_batch, run_batch
from .prepare import Prepared
from .progress import Progress
from .sinks import BlockBuffer, Sink
from .staging import DeviceRows, Rows, Staging

if TYPE_CHECKING:
    from ...hooks.model import Model

log = logging.getLogger(__name__)


def run_plan(
    model: Model, reads: Reads, prepared: Prepared, plan: Plan, sink: Sink, *, progress: bool
) -> None:
    """Run every block that is not there yet and hand it to the sink, in order."""
    todo = [block for block in range(plan.n_blocks) if not sink.committed(block)]
    runner = _Runner(model, reads, prepared)
    try:
        with (
            Progress(
                plan,
                prepared.lengths,
                reads.arrays,
                todo,
                path=sink.path,
                device=model.device,
                show=progress,
            ) as bar,
            ThreadPoolExecutor(1, thread_name_prefix="layerprobe-write") as writing,
            ThreadPoolExecutor(1, thread_name_prefix="layerprobe-batch") as preparing,
        ):
            _run_blocks(runner, plan, sink, bar, writing, preparing)
    finally:
        sink.close()


def _run_blocks(
    runner: _Runner,
    plan: Plan,
    sink: Sink,
    bar: Progress,
    writing: ThreadPoolExecutor,
    preparing: ThreadPoolExecutor,
) -> None:
    # two buffers: one fills while the other is written
    buffers = [BlockBuffer(plan, runner.reads.arrays) for _ in range(min(2, plan.n_blocks))]
    pending: list[Future[None] | None] = [None, None]
    staging = Staging(runner.model.device)
    ahead = _prefetch(runner.ready, plan, sink, preparing)
    for block in range(plan.n_blocks):
        slot = block % 2
        previous = pending[slot]
        if previous is not None:
            previous.result()
        if sink.committed(block):
            pending[slot] = writing.submit(sink.replay, block)
            continue
        buffer = buffers[slot]
        buffer.begin(block)
        arriving: tuple[Batch, Callable[[], Rows]] | None = None
        for _ in plan.batches_of(block):
            batch = next(ahead)
            sent = (batch, staging.send(runner.run(batch)))
            if arriving is not None:
                _take(buffer, *arriving, bar)
            arriving = sent
        if arriving is not None:
            _take(buffer, *arriving, bar)
        pending[slot] = writing.submit(sink.write, block, buffer.views)
    for last in pending:
        if last is not None:
            last.result()


def _take(buffer: BlockBuffer, batch: Batch, rows: Callable[[], Rows], bar: Progress) -> None:
    buffer.put(batch.prompts, rows())
    bar.update(batch.n_tokens)


def _prefetch(
    ready_batch: Callable[[np.ndarray], Batch], plan: Plan, sink: Sink, preparing: ThreadPoolExecutor
) -> Iterator[Batch]:
    """Batches in order, the next one being made while the current one runs."""
    following: Future[Batch] | None = None
    for block in range(plan.n_blocks):
        if sink.committed(block):
            continue
        for prompts in plan.batches_of(block):
            ready, following = following, preparing.submit(ready_batch, prompts)
            if ready is not None:
                yield ready.result()
    if following is not None:
        yield following.result()


class _Runner:
    """Runs batches, halving those that do not fit the device's memory."""

    def __init__(self, model: Model, reads: Reads, prepared: Prepared) -> None:
        self.model = model
        self.reads = reads
        self.prepared = prepared
        self._limit: int | None = None

    def ready(self, prompts: np.ndarray) -> Batch:
        """A batch of prompts on the model's device."""
        return make_batch(self.prepared, prompts).to(self.model.device)

    def run(self, batch: Batch) -> DeviceRows:
        """Rows of a batch; a batch larger than what once did not fit is halved beforehand."""
        if self._limit is not None and batch.input_ids.numel() > self._limit and len(batch.prompts) > 1:
            return self._halves(batch)
        try:
            return run_batch(self.model, self.reads, batch)
        except torch.OutOfMemoryError:
            if len(batch.prompts) == 1:
                raise
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self._limit = batch.input_ids.numel() // 2
        log.warning(
            "a batch of %d tokens does not fit the device's memory: batches of at most %d from here on",
            batch.input_ids.numel(),
            self._limit,
        )
        return self._halves(batch)

    def _halves(self, batch: Batch) -> DeviceRows:
        middle = (len(batch.prompts) + 1) // 2
        parts: list[np.ndarray] = [batch.prompts[:middle], batch.prompts[middle:]]
        return concatenate([self.run(self.ready(part)) for part in parts if len(part)])
