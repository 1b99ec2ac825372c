"""A worker's job, which knows nothing of what started it: Ray, a plain process, `torchrun` or a Slurm array
(docs/scale_out.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...hooks.errors import LayerprobeError
from ..capture.execute import run_job
from ..capture.job import CaptureJob
from ..capture.request import CaptureRequest
from ..prompts.table import PromptTable

if TYPE_CHECKING:
    from ...hooks.model import Model

log = logging.getLogger(__name__)

#: how often a shard is tried when its worker dies
ATTEMPTS = 3


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    source: str
    load: Mapping[str, Any]
    """Keyword arguments of `load_model`."""
    request: CaptureRequest
    folder: Path
    of: int
    prompts: str
    """Hash of the whole table."""
    now: datetime | None = None
    """The moment that chat templates are told which write the date: one for all shards."""

    def capture(self, model: Model, index: int, part: PromptTable) -> Path:
        """Capture one of its shards."""
        return capture_shard(
            model,
            part,
            index=index,
            of=self.of,
            prompts=self.prompts,
            folder=self.folder,
            options=self.request,
            now=self.now,
        )


class Pool(Protocol):
    """Workers that take shards and may die."""

    def run(self, table: PromptTable, todo: list[int]) -> Iterator[int]:
        """Yield the numbers of shards as they are done."""
        ...


def shard_of(table: PromptTable, index: int, of: int) -> PromptTable:
    """Shard `index` of `of`: consecutive prompts, as equal in number as can be."""
    rows = np.array_split(np.arange(len(table)), of)[index]
    return table[int(rows[0]) : int(rows[-1]) + 1] if len(rows) else table[:0]


def shard_path(folder: Path, index: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{index:04d}.h5"


def capture_shard(
    model: Model,
    part: PromptTable,
    *,
    index: int,
    of: int,
    prompts: str,
    folder: str | Path,
    options: CaptureRequest | Mapping[str, Any],
    now: datetime | None = None,
) -> Path:
    """Capture one shard; a shard that is there already returns at once, an interrupted one is resumed.

    Args:
        model: the model, loaded once per worker.
        part: `shard_of(table, index, of)`.
        index: its number, from 0.
        of: how many there are.
        prompts: `table.sha256` of the whole table.
        folder: where the shards lie.
        options: keyword arguments of `capture`, or a request made of them.
        now: the moment that a chat template is told which writes the date; None for the clock's.

    Returns:
        The shard's file.

    Raises:
        LayerprobeError: as `capture`.
    """
    path = shard_path(Path(folder), index)
    shard = {"index": index, "of": of, "prompts": prompts}
    request = CaptureRequest.of(options)
    job = CaptureJob.of(model, part, request, path=path, progress=False, shard=shard)
    run_job(replace(job, now=now))
    return path


def died(index: int, tries: int) -> None:
    """Note a worker's death; give up on a shard that kills them all.

    Raises:
        LayerprobeError: when it has been tried often enough.
    """
    if tries >= ATTEMPTS:
        raise LayerprobeError(
            f"shard {index} ended its worker {tries} times (out of memory?): "
            f"try fewer workers or smaller batch_tokens"
        )
    log.warning("the worker of shard %d died: another takes it over", index)
