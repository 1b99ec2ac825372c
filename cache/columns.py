"""What is known of every prompt beside its activations: ids, labels, groups, spans, text and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


def as_column(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A 1-D array as stores keep columns: numbers and booleans as they are, all else as str.

    None stays None among strings and becomes NaN among numbers.

    >>> as_column(["a", None, 3])
    array(['a', None, '3'], dtype=object)
    >>> as_column([1, None])
    array([ 1., nan])
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in present):
        if len(present) == len(values):
            return np.asarray(values)
        return np.asarray([np.nan if value is None else float(value) for value in values])
    out = np.empty(len(values), dtype=object)
    out[:] = [None if value is None else str(value) for value in values]
    return out


@dataclass(frozen=True)
class PromptColumns:
    """One entry per prompt in everything here; a store repeats them per row through `examples`."""

    ids: np.ndarray
    """[prompts] object array of str."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> [prompts] array: numbers, booleans or str objects."""
    groups: np.ndarray | None = None
    """[prompts] keys of rows that must never straddle a split, or None."""
    pairs: np.ndarray | None = None
    """[prompts] keys of contrastive pairs, or None."""
    splits: np.ndarray | None = None
    """[prompts] names of given splits, or None."""
    spans: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> [prompts, 2] character offsets into the prompt's text, -1 where a prompt has none."""
    texts: Sequence[str] | None = None
    """Prompt texts as the model saw them (chat template applied), or None where nobody gave any."""
    token_ids: np.ndarray | None = None
    """[sum of lengths] int32 token ids of all prompts, one after the other."""
    token_starts: np.ndarray | None = None
    """[prompts + 1] int64 where each prompt begins in `token_ids`."""
    given_lengths: np.ndarray | None = None
    """[prompts] token counts where no token ids are kept."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray | None:
        """[prompts] int64 tokens of each prompt, special tokens included."""
        if self.token_starts is not None:
            return np.diff(self.token_starts)
        return self.given_lengths
