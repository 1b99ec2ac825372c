"""The batch plan: which prompts run together, and which rows are committed together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

#: a prompt's rows of one layer are worth a write of their own from here on (bytes)
LONG_RUN = 8192


@dataclass(frozen=True)
class Plan:
    """What runs when. Stored with the rows and used again on resume, so that the same batches make the same
    bytes.
    """

    order: np.ndarray
    """[runs] int64 prompts in the order they run; each stands for all prompts identical to it."""
    batches: np.ndarray
    """[batches + 1] int64 bounds into `order`."""
    blocks: np.ndarray
    """[blocks + 1] int64 bounds into the batches: the rows of a block are committed together."""
    same_as: np.ndarray
    """[prompts] int64 the prompt that runs in its place, itself where it runs, -1 where it has no rows."""
    row_starts: np.ndarray
    """[prompts + 1] int64 where each prompt's rows begin."""

    block_of_prompt: np.ndarray = field(init=False, repr=False)
    """[prompts] the block that holds each prompt's rows, -1 for none."""
    _by_block: np.ndarray = field(init=False, repr=False)
    """[prompts] prompts sorted by their block."""
    _bounds: np.ndarray = field(init=False, repr=False)
    """[blocks + 1] bounds of each block in `_by_block`."""

    def __post_init__(self) -> None:
        block_of_run = np.repeat(np.arange(self.n_blocks), np.diff(self.batches[self.blocks]))
        block_of = np.full(len(self.same_as) + 1, -1, dtype=np.int64)  # the last entry serves same_as == -1
        block_of[self.order] = block_of_run
        block_of[-1] = -1
        per_prompt = block_of[self.same_as]
        by_block = np.argsort(per_prompt, kind="stable")
        bounds = np.searchsorted(per_prompt[by_block], np.arange(self.n_blocks + 1))
        object.__setattr__(self, "_by_block", by_block)
        object.__setattr__(self, "_bounds", bounds)
        object.__setattr__(self, "block_of_prompt", per_prompt)

    @property
    def n_blocks(self) -> int:
        """Blocks."""
        return len(self.blocks) - 1

    def prompts_of(self, block: int) -> np.ndarray:
        """Prompts whose rows a block holds, ascending, duplicates included."""
        return self._by_block[self._bounds[block] : self._bounds[block + 1]]

    def batches_of(self, block: int) -> Iterator[np.ndarray]:
        """The prompts of each batch of a block, in the order they run."""
        for batch in range(self.blocks[block], self.blocks[block + 1]):
            yield self.order[self.batches[batch] : self.batches[batch + 1]]

    def runs_of(self, block: int) -> list[tuple[int, int]]:
        """(start, stop) of each run of consecutive rows of a block, ascending."""
        prompts = self.prompts_of(block)
        starts, stops = self.row_starts[prompts], self.row_starts[prompts + 1]
        breaks = np.flatnonzero(starts[1:] != stops[:-1]) + 1
        edges = np.concatenate([[0], breaks, [len(prompts)]])
        return [(int(starts[a]), int(stops[b - 1])) for a, b in pairwise(edges) if b > a]

    def n_rows_of(self, block: int) -> int:
        """Rows of a block."""
        prompts = self.prompts_of(block)
        return int((self.row_starts[prompts + 1] - self.row_starts[prompts]).sum())


def make_plan(
    lengths: np.ndarray,
    rows: np.ndarray,
    identical: np.ndarray,
    *,
    batch_tokens: int,
    block_rows: int,
    row_bytes: int,
) -> Plan:
    """Fill batches by length under a token budget, and blocks under a row budget.

    Length-sorting pads next to nothing; but rows lie in the file in prompt order, so sorting everything
    would scatter one-row prompts over the whole file. Where a prompt's rows are too few for writes of their
    own, only prompts of one window, as many as a block takes, are sorted.

    Args:
        lengths: [prompts] tokens of each prompt.
        rows: [prompts] rows that each prompt yields.
        identical: [prompts] an earlier prompt with the same tokens and rows, or itself.
        batch_tokens: tokens of a batch, padding included; a longer prompt runs alone.
        block_rows: rows of a block; a prompt with more is a block of its own.
        row_bytes: bytes of one row of one layer.
    """
    same_as = _bounded_duplicates(rows, identical, block_rows)
    runs = np.flatnonzero((same_as == np.arange(len(rows))) & (rows > 0))
    weight = np.bincount(same_as[same_as >= 0], weights=rows[same_as >= 0], minlength=len(rows)).astype(
        np.int64
    )
    scattered = len(runs) > 0 and rows[runs].mean() * row_bytes >= LONG_RUN
    order: list[int] = []
    batches = [0]
    blocks = [0]
    for window in [runs] if scattered else _windows(runs, weight, block_rows):
        by_length = window[np.argsort(-lengths[window], kind="stable")]
        filled = 0
        for batch in _batches(by_length, lengths, weight, batch_tokens, block_rows):
            size = int(weight[batch].sum())
            if filled and filled + size > block_rows:
                blocks.append(len(batches) - 1)
                filled = 0
            filled += size
            order.extend(batch.tolist())
            batches.append(len(order))
        blocks.append(len(batches) - 1)
    return Plan(
        np.asarray(order, dtype=np.int64),
        np.asarray(batches, dtype=np.int64),
        np.asarray(blocks, dtype=np.int64),
        same_as,
        np.concatenate([[0], np.cumsum(rows)]).astype(np.int64),
    )


def _bounded_duplicates(rows: np.ndarray, identical: np.ndarray, block_rows: int) -> np.ndarray:
    """Duplicates share a run as long as their rows fit a block; beyond that the prompt runs again."""
    same_as = np.where(rows > 0, identical, -1).astype(np.int64)
    copies = np.flatnonzero(same_as != np.arange(len(rows)))
    leader: dict[int, int] = {}
    taken: dict[int, int] = {}
    for prompt in copies[same_as[copies] >= 0]:
        first = int(same_as[prompt])
        current = leader.setdefault(first, first)
        used = taken.get(current, int(rows[current]))
        if used + rows[prompt] > block_rows:
            leader[first] = current = int(prompt)
            used = 0
        taken[current] = used + int(rows[prompt])
        same_as[prompt] = current
    return same_as


def _windows(runs: np.ndarray, weight: np.ndarray, block_rows: int) -> Iterator[np.ndarray]:
    start, filled = 0, 0
    for index, size in enumerate(weight[runs].tolist()):
        if filled and filled + size > block_rows:
            yield runs[start:index]
            start, filled = index, 0
        filled += size
    if start < len(runs):
        yield runs[start:]


def _batches(
    by_length: np.ndarray, lengths: np.ndarray, weight: np.ndarray, batch_tokens: int, block_rows: int
) -> Iterator[np.ndarray]:
    """Consecutive prompts of a descending order: the first of a batch is its longest."""
    start, filled = 0, 0
    for index, prompt in enumerate(by_length.tolist()):
        too_long = (index - start + 1) * int(lengths[by_length[start]]) > batch_tokens
        too_many = filled + int(weight[prompt]) > block_rows
        if index > start and (too_long or too_many):
            yield by_length[start:index]
            start, filled = index, 0
        filled += int(weight[prompt])
    if start < len(by_length):
        yield by_length[start:]
