"""Workers as Ray Core actors: one resident model each, replaced when they die."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from ...hooks.errors import LayerprobeError
from ..prompts.table import PromptTable
from .jobs import ATTEMPTS, Job, died, shard_of

log = logging.getLogger(__name__)

#: only prompts travel through Ray's object store; its default is a third of the machine's memory
OBJECT_STORE_BYTES = 256 << 20


class Worker:
    """A resident model that captures shards; an ordinary class, made an actor below."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._model: Any = None

    def load(self) -> str | None:
        """Load the model; an error about what was given comes back as its message."""
        from ...hooks.weights.load import load_model

        try:
            self._model = load_model(self._job.source, **self._job.load)
        except LayerprobeError as error:
            return str(error)
        return None

    def capture(self, index: int, part: PromptTable) -> str | None:
        """Capture a shard; an error about what was given comes back as its message."""
        try:
            self._job.capture(self._model, index, part)
        except LayerprobeError as error:
            return str(error)
        return None


class RayPool:
    """Actors on the cluster that Ray is connected to, or that RAY_ADDRESS names; without either, on one that
    is started on this machine and ended with the run.
    """

    def __init__(self, job: Job, workers: int) -> None:
        import ray

        self._ray: Any = ray
        self._job = job
        self._workers = workers
        self._tries: dict[int, int] = {}
        self._failed_starts = 0
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, workers)
        gpus = 1 if self._ray.cluster_resources().get("GPU", 0) >= 1 else 0
        self._actor: Any = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)

    def run(self, table: PromptTable, todo: list[int]) -> Iterator[int]:
        """Yield the numbers of shards as they are done.

        An actor is given its first shard once its model is loaded: one for which the cluster has no room
        keeps no shard waiting.
        """
        ray, queue = self._ray, list(todo)
        running: dict[Any, tuple[int | None, Any]] = {}  # answer awaited -> its shard (None: loading), actor
        try:
            for _ in range(self._workers):
                self._start(running)
            left = len(todo)
            while left:
                answer = ray.wait(list(running))[0][0]
                index, actor = running.pop(answer)
                try:
                    error = ray.get(answer)
                except ray.exceptions.RayError as lost:
                    ray.kill(actor)
                    self._lost(index, lost)
                    queue[:0] = [] if index is None else [index]
                    self._start(running)
                    continue
                if error is not None:
                    raise LayerprobeError(error if index is None else f"shard {index}: {error}")
                if queue:
                    self._give(running, actor, table, queue.pop(0))
                else:
                    ray.kill(actor)
                if index is not None:
                    left -= 1
                    yield index
        finally:
            for _, actor in running.values():
                ray.kill(actor)
            if self._ours:
                ray.shutdown()

    def _start(self, running: dict[Any, tuple[int | None, Any]]) -> None:
        actor = self._actor.remote(self._job)
        running[actor.load.remote()] = (None, actor)

    def _give(
        self, running: dict[Any, tuple[int | None, Any]], actor: Any, table: PromptTable, index: int
    ) -> None:
        self._tries[index] = self._tries.get(index, 0) + 1
        running[actor.capture.remote(index, shard_of(table, index, self._job.of))] = (index, actor)

    def _lost(self, index: int | None, error: Exception) -> None:
        log.info("a worker was lost: %s", error)
        if index is not None:
            died(index, self._tries[index])
            return
        self._failed_starts += 1
        if self._failed_starts >= ATTEMPTS * self._workers:
            raise LayerprobeError(
                f"{self._failed_starts} workers ended while they loaded {self._job.source} (out of memory?): "
                f"try fewer workers or a smaller dtype. The last said: {error}"
            )


def _connect(ray: Any, workers: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**quiet)
        return
    # Ray renices its workers to 15: beside other work on all cores they would hardly run at all
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        address="local",
        num_cpus=max(workers, os.cpu_count() or 1),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        **quiet,
    )
