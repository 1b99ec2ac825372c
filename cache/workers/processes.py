"""Workers as plain processes on this machine, replaced when they die."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from ...hooks.errors import LayerprobeError
from ..prompts.table import PromptTable
from .jobs import Job, died, shard_of


def work(job: Job, pipe: Connection) -> None:
    """A worker: load the model once, then capture shards as they come."""
    from ...hooks.weights.load import load_model

    model: Any = None
    while (task := _next_task(pipe)) is not None:
        index, part = task
        try:
            model = model or load_model(job.source, **job.load)
            job.capture(model, index, part)
            pipe.send((index, None))
        except LayerprobeError as error:
            pipe.send((index, str(error)))


def _next_task(pipe: Connection) -> tuple[int, PromptTable] | None:
    try:
        task: tuple[int, PromptTable] | None = pipe.recv()
    except EOFError:
        return None  # whoever gave out the work is gone
    return task


class ProcessPool:
    """A fixed number of spawned processes (never forked: a GPU does not survive it)."""

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")
        self._tries: dict[int, int] = {}
        self._running: dict[Any, tuple[Any, Connection, int]] = {}

    def run(self, table: PromptTable, todo: list[int]) -> Iterator[int]:
        """Yield the numbers of shards as they are done."""
        queue = list(todo)
        try:
            for _ in range(min(self._workers, len(queue))):
                self._give(*self._start(), table, queue)
            while self._running:
                ready = wait([entry[1] for entry in self._running.values()])
                for process, (_, pipe, index) in list(self._running.items()):
                    if pipe not in ready:
                        continue
                    del self._running[process]
                    try:
                        done, error = pipe.recv()
                    except (EOFError, ConnectionResetError):
                        died(index, self._tries[index])
                        queue.insert(0, index)
                        self._give(*self._start(), table, queue)
                        continue
                    if error is not None:
                        raise LayerprobeError(f"shard {done}: {error}")
                    self._give(process, pipe, table, queue)
                    yield done
        finally:
            for process, (_, pipe, _) in self._running.items():
                process.terminate()
                pipe.close()

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(self._job, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the worker's death shows as the end of the pipe
        return process, ours

    def _give(self, process: Any, pipe: Connection, table: PromptTable, queue: list[int]) -> None:
        if not queue:
            pipe.send(None)
            pipe.close()
            return
        index = queue.pop(0)
        self._tries[index] = self._tries.get(index, 0) + 1
        pipe.send((index, shard_of(table, index, self._job.of)))
        self._running[process] = (process, pipe, index)
