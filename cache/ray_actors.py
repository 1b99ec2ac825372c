"""Workers as Ray Core actors: one resident model each, replaced when they die."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from ..hooks.errors import LayerprobeError
from .distributed import Job, capture_shard, died, shard_of
from .prompts import PromptTable


class Worker:
    """A resident model that captures shards; an ordinary class, made an actor below."""

    def __init__(self, job: Job) -> None:
        from ..hooks.load import load_model

        self._job = job
        self._model = load_model(job.source, **job.load)

    def pid(self) -> int:
        """The process, so that a test may end it."""
        return os.getpid()

    def capture(self, index: int, part: PromptTable) -> str | None:
        """Capture a shard; an error about what was given comes back as its message."""
        job = self._job
        try:
            capture_shard(
                self._model,
                part,
                index=index,
                of=job.of,
                prompts=job.prompts,
                folder=job.folder,
                options=job.options,
            )
        except LayerprobeError as error:
            return str(error)
        return None


class RayPool:
    """Actors on the cluster that Ray is connected to (one is started on this machine if there is none)."""

    def __init__(self, job: Job, workers: int) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0
        self._ray: Any = ray
        self._actor: Any = ray.remote(num_cpus=1, num_gpus=gpus)(Worker)
        self._job = job
        self.actors: list[Any] = [self._actor.remote(job) for _ in range(workers)]

    def run(self, table: PromptTable, todo: list[int]) -> Iterator[int]:
        """Yield the numbers of shards as they are done."""
        ray, queue = self._ray, list(todo)
        tries = dict.fromkeys(todo, 0)
        running: dict[Any, tuple[int, int]] = {}

        def give(worker: int) -> None:
            if queue:
                index = queue.pop(0)
                tries[index] += 1
                part = shard_of(table, index, self._job.of)
                running[self.actors[worker].capture.remote(index, part)] = (index, worker)

        for worker in range(len(self.actors)):
            give(worker)
        try:
            while running:
                ready, _ = ray.wait(list(running))
                index, worker = running.pop(ready[0])
                try:
                    error = ray.get(ready[0])
                except ray.exceptions.RayActorError:
                    died(index, tries[index])
                    queue.insert(0, index)
                    self.actors[worker] = self._actor.remote(self._job)
                    give(worker)
                    continue
                if error is not None:
                    raise LayerprobeError(f"shard {index}: {error}")
                give(worker)
                yield index
        finally:
            for actor in self.actors:
                ray.kill(actor)
