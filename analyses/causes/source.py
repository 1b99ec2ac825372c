"""Where patched-in values come from: each pair's contrast, another model on the same tokens, an ablation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ...hooks.sites import SiteAt
from ..behaviour.on_pairs import pair_members
from .answer_task import AnswerTask, Batch
from .edited_runs import SITES, Cache, record, run_difference


@dataclass
class Source:
    """Gives, for every batch of a task, the other run's values and logit difference on the task's answers."""

    model: Model
    """whose run it is."""
    task: AnswerTask
    """its prompts, row for row those of the task that is patched."""
    name: str

    def run(self, batch: Batch, sites: Sequence[str] = SITES) -> tuple[Cache, Tensor]:
        """Values [B, T, …] and LD [B] of the other run, on the same answers and foils."""
        own = self.task.batch(batch.rows)
        if own.ids.shape != batch.ids.shape or bool((own.mask != batch.mask).any()):
            raise LayerprobeError(
                "the two runs are not aligned token by token"
            )  # excluded when the source was made
        aligned = Batch(batch.rows, own.ids, own.mask, batch.answers, batch.foils)
        return record(self.model, aligned, sites), run_difference(self.model, aligned)


def contrast_source(task: AnswerTask, model: Model, role: str = "role") -> tuple[AnswerTask, Source, int]:
    """The targets of a task, with each one's contrast as the source; pairs of unequal length are left out.

    Args:
        task: made from a store with pairs and roles.
        model: runs both.
        role: label column with target and contrast.

    Returns:
        the task of the targets, the source, and how many pairs were left out for their lengths.

    Raises:
        LayerprobeError: no pair is left.
    """
    members = pair_members(task.store, role)
    place = {int(row): index for index, row in enumerate(task.rows)}
    both = [(place[int(t)], place[int(c)]) for t, c in members if int(t) in place and int(c) in place]
    equal = [(t, c) for t, c in both if len(task.tokens[t]) == len(task.tokens[c])]
    if not equal:
        raise LayerprobeError(
            f"none of {len(both)} pairs has target and contrast of the same number of tokens, so their runs "
            "cannot be aligned; pass source=MODEL, or other pairs"
        )
    targets, contrasts = (np.array(side) for side in zip(*equal, strict=True))
    return task.select(targets), Source(model, task.select(contrasts), "contrast"), len(both) - len(equal)


def model_source(task: AnswerTask, model: Model, other: Any) -> Source:
    """Another model (base) on the same token ids.

    Raises:
        LayerprobeError: sizes or vocabularies differ, so that neither values nor token ids correspond.
    """
    for name in ("n_layers", "d_model", "n_heads", "d_head"):
        if getattr(model, name) != getattr(other, name):
            raise LayerprobeError(
                f"{model.name} has {name}={getattr(model, name)} and {other.name} "
                f"{getattr(other, name)}: values "
                "of one cannot be put into the other; patch between checkpoints of one architecture"
            )
    if model.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        texts = (task.store.texts or [])[:50]
        if any(model.encode(text).input_ids != other.encode(text).input_ids for text in texts) or not texts:
            raise LayerprobeError(
                f"{model.name} and {other.name} tokenise differently, so their runs are not aligned; "
                f"use models "
                "that share a tokenizer"
            )
    return Source(other, task, other.name)


@dataclass
class Ablation:
    """Zero, mean or resampled values instead of another run's."""

    how: str
    model: Model
    task: AnswerTask
    seed: int = 0
    _means: dict[SiteAt, Tensor] = field(default_factory=dict)

    def values(self, batch: Batch, cache: Cache, sites: Sequence[str] = ("head_out", "mlp_out")) -> Cache:
        """Replacement values [B, T, …] for every layer of the sites."""
        wanted = {at: value for at, value in cache.items() if at.site in sites}
        if self.how == "zero":
            return {at: torch.zeros_like(value) for at, value in wanted.items()}
        if self.how == "mean":
            return {at: self.means(sites)[at].to(value).expand_as(value) for at, value in wanted.items()}
        return self._resampled(batch, wanted)

    def means(self, sites: Sequence[str]) -> dict[SiteAt, Tensor]:
        """Mean of every site over all real tokens of the task."""
        if not self._means:
            sums: dict[SiteAt, Tensor] = {}
            count = 0.0
            for batch in self.task.batches(32):
                weight = batch.mask.to(self.model.device)
                count += float(weight.sum())
                for at, value in record(self.model, batch, sites).items():
                    shaped = weight.reshape(*weight.shape, *(1,) * (value.dim() - 2)).to(value.dtype)
                    sums[at] = sums.get(at, 0) + (value * shaped).sum((0, 1))
            self._means = {at: total / count for at, total in sums.items()}
        return self._means

    def _resampled(self, batch: Batch, wanted: Cache) -> Cache:
        """Another prompt's values, aligned from the end; its own where the other prompt is shorter."""
        n = len(self.task)
        shift = int(np.random.default_rng(self.seed).integers(1, n)) if n > 1 else 0
        others = (batch.rows + shift) % n  # never a prompt's own values
        donors = self.task.batch(others)
        got = record(self.model, donors, sorted({at.site for at in wanted}))
        width = min(donors.ids.shape[1], batch.ids.shape[1])
        out = {}
        real = (donors.mask[:, -width:] * batch.mask[:, -width:]).bool().to(self.model.device)
        for at, value in wanted.items():
            mixed = value.clone()
            chosen = real.reshape(*real.shape, *(1,) * (value.dim() - 2))
            mixed[:, -width:] = torch.where(chosen, got[at][:, -width:], value[:, -width:])
            out[at] = mixed
        return out


def half_of_groups(groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """True for a random half of the groups."""
    from ..statistics.resampling import split_half

    return split_half(groups, seed)
