"""Prompts with an answer and a foil as batches of token ids, for attribution and patching."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..lens.from_model import candidate_ids, check_same_model
from ..statistics.resampling import STORED, resolve_groups


@dataclass(frozen=True)
class Batch:
    """Left-padded rows whose last column is the token that the answer follows."""

    rows: NDArray[np.int64]
    """[B] rows of the task."""
    ids: Tensor
    """[B, T] int64."""
    mask: Tensor
    """[B, T] int64, 1 at real tokens."""
    answers: Tensor
    """[B, V] token ids of the answer's variants, -1 where there are fewer."""
    foils: Tensor
    """[B, V]."""

    def difference(self, logits: Tensor) -> Tensor:
        """[B] logit difference of answer and foil (best variant of each) from logits [B, vocabulary]."""
        return _best(logits, self.answers) - _best(logits, self.foils)

    def repeat(self, times: int) -> "Batch":
        """Every row `times` times over, rows of one copy together: [times · B, T]."""
        return Batch(
            np.tile(self.rows, times),
            *(part.repeat(times, 1) for part in (self.ids, self.mask, self.answers, self.foils)),
        )


@dataclass(frozen=True)
class AnswerTask:
    """Token ids, answers and groups of the rows that an analysis runs on."""

    tokens: list[NDArray[np.int64]]
    """per row, up to and including the token that the answer follows."""
    candidates: NDArray[np.int64]
    """[rows, 2, variants] token ids of answer and foil."""
    groups: NDArray[np.int64]
    """[rows] codes."""
    rows: NDArray[np.int64]
    """[rows] rows of the store."""
    store: ActivationStore

    def __len__(self) -> int:
        return len(self.tokens)

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of at most `size` rows, longest rows together."""
        order = np.argsort([-len(tokens) for tokens in self.tokens], kind="stable")
        for start in range(0, len(order), size):
            yield self.batch(order[start : start + size])

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Some rows, padded on the left to the longest."""
        width = max(len(self.tokens[row]) for row in rows)
        ids, mask = (
            torch.zeros((len(rows), width), dtype=torch.long),
            torch.zeros((len(rows), width), dtype=torch.long),
        )
        for place, row in enumerate(rows):
            tokens = torch.as_tensor(self.tokens[row])
            ids[place, width - len(tokens) :], mask[place, width - len(tokens) :] = tokens, 1
        pair = torch.as_tensor(self.candidates[rows])
        return Batch(np.asarray(rows), ids, mask, pair[:, 0], pair[:, 1])

    def select(self, keep: NDArray[Any]) -> "AnswerTask":
        """Some rows (mask or indices)."""
        index = np.arange(len(self))[keep]
        return AnswerTask(
            [self.tokens[i] for i in index],
            self.candidates[index],
            self.groups[index],
            self.rows[index],
            self.store,
        )

    def labels(self, name: str) -> NDArray[Any]:
        return np.asarray(self.store.labels(name))[self.rows]


def answer_task(
    store: ActivationStore,
    model: Model,
    *,
    target: str = "answer",
    foil: str = "foil",
    groups: Any = STORED,
    rows: NDArray[Any] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> AnswerTask:
    """The prompts of a store as a task for the model that it was captured from.

    Args:
        store: one row per prompt, with token ids.
        model: the model.
        target: lens column, label column or literal answer.
        foil: likewise.
        groups: rows that belong together.
        rows: mask or indices of the rows wanted.
        limit: at most so many rows, drawn by whole groups.
        seed: of that draw.

    Raises:
        LayerprobeError: no token ids, several or pooled rows per prompt, or another model.
    """
    check_same_model(store, model)
    ids = store.token_ids()
    if ids is None:
        raise LayerprobeError(
            "this store has no token ids, so a model cannot be run on its prompts again; make it with capture"
        )
    if store.n_rows != store.n_prompts or (np.asarray(store.positions) < 0).any():
        raise LayerprobeError(
            f"tokens={store.tokens!r} keeps several or pooled tokens per prompt; attribution and patching "
            'need the one that the answer follows: capture with tokens="last"'
        )
    codes = resolve_groups(store, groups)
    lens = store.lens
    if lens is not None and target in lens.columns and foil in lens.columns:
        candidates = np.asarray(lens.candidate_ids)[:, [lens.columns.index(target), lens.columns.index(foil)]]
    else:
        candidates = candidate_ids(store, model, target, foil)
    index = np.arange(store.n_rows) if rows is None else np.arange(store.n_rows)[rows]
    if limit is not None and len(index) > limit:
        from ..comparison.geometry import codes as recode
        from ..comparison.geometry import subsample_groups

        index = index[subsample_groups(recode(codes[index]), limit, seed)]
    if not len(index):
        raise LayerprobeError("no row is left to run on; loosen rows=")
    tokens = [
        np.asarray(ids[store.examples[row]][: store.positions[row] + 1], dtype=np.int64) for row in index
    ]
    return AnswerTask(
        tokens,
        candidates[index].astype(np.int64),
        np.unique(codes[index], return_inverse=True)[1],
        index,
        store,
    )


def _best(logits: Tensor, ids: Tensor) -> Tensor:
    ids = ids.to(logits.device)
    picked = logits.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, float("-inf"))
    return picked.max(dim=1).values


def best_ids(logits: Tensor, ids: Tensor) -> Tensor:
    """[B] the variant with the largest logit."""
    ids = ids.to(logits.device)
    picked = logits.gather(1, ids.clamp(min=0)).masked_fill(ids < 0, float("-inf"))
    return ids.gather(1, picked.argmax(dim=1, keepdim=True)).squeeze(1)
