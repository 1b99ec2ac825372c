"""What a capture in shards is as a whole, and what a worker's share of it is, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..capture.assembly import array_specs
from ..capture.continuations import at_most
from ..capture.job import CaptureJob
from ..capture.prepare import prepare_options
from ..capture.request import CaptureRequest
from ..file.disk_space import bytes_of, free_bytes, human_bytes
from ..prompts.table import PromptTable

if TYPE_CHECKING:
    from ...hooks.model import Model


@dataclass(frozen=True)
class ShardsPlan:
    """A capture in shards; each tuple has one entry per shard."""

    prompts: tuple[int, ...]
    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    row_bytes: int
    """Bytes of one row of everything stored."""
    bytes_free: int
    """On the disk of the shards."""
    at_most: bool = False
    """Whether rows and tokens are those of the longest continuations that the model may write."""

    @property
    def shards(self) -> int:
        """How many."""
        return len(self.prompts)

    @property
    def _bound(self) -> str:
        return "at most " if self.at_most else ""

    def share(self, shards: Sequence[int]) -> str:
        """What some of the shards hold together, in one line."""
        prompts, rows, tokens = (
            sum(part[index] for index in shards) for part in (self.prompts, self.rows, self.tokens)
        )
        count = f"{len(shards)} of {self.shards} shard{'' if self.shards == 1 else 's'}"
        return (
            f"{count}: {prompts:,} prompts, {self._bound}{tokens:,} tokens, {rows:,} rows, "
            f"{human_bytes(rows * self.row_bytes)}"
        )

    def __str__(self) -> str:
        size, free = human_bytes(sum(self.rows) * self.row_bytes), human_bytes(self.bytes_free)
        return (
            f"{sum(self.prompts):,} prompts, {self._bound}{sum(self.tokens):,} tokens, "
            f"{sum(self.rows):,} rows, {size} on disk ({free} free), "
            f"in {self.shards} shard{'' if self.shards == 1 else 's'}"
        )


def plan_shards(
    model: Model,
    prompts: PromptTable,
    *,
    of: int,
    folder: str | Path,
    options: CaptureRequest | Mapping[str, Any],
) -> ShardsPlan:
    """Tokenise the whole table and count what each shard will hold.

    Args:
        model: the model, or its outline without weights.
        prompts: the whole table.
        of: number of shards.
        folder: where they lie.
        options: keyword arguments of `capture`, or a request made of them.

    Raises:
        LayerprobeError: what `capture` refuses before anything runs, here for every shard at once.
    """
    job = CaptureJob.of(model, prompts, CaptureRequest.of(options))
    prepared = prepare_options(model, prompts, job.request)
    prepared.unknown.warn(model.name, prompts)
    prepared = at_most(job, prepared)

    def per_shard(values: np.ndarray) -> tuple[int, ...]:
        return tuple(int(part.sum()) for part in np.array_split(values, of))

    return ShardsPlan(
        prompts=per_shard(np.ones(len(prompts), dtype=np.int64)),
        rows=per_shard(prepared.rows_per_prompt),
        tokens=per_shard(prepared.lengths),
        row_bytes=bytes_of(array_specs(job, prepared), 1),
        bytes_free=free_bytes(Path(folder) / "shard"),
        at_most=bool(job.request.asked.generate),
    )
