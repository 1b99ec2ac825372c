"""What is known of every prompt beside its activations: ids, labels, groups, spans, text and tokens."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

#: label columns of what a model wrote after its prompts: the text, and how many tokens
GENERATED_TEXT, N_GENERATED = GENERATED_COLUMNS = ("generated_text", "n_generated")


def as_column(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A 1-D array as stores keep columns: numbers and booleans as they are, all else as str.

    None, NaN and pandas' NA are gaps: None among strings, NaN among numbers; whole numbers that no float
    holds become strings beside them.

    >>> as_column(["a", None, 3])
    array(['a', None, '3'], dtype=object)
    >>> as_column([1, None])
    array([ 1., nan])
    >>> as_column([2**53, 2**53 + 1, None])
    array(['9007199254740992', '9007199254740993', None], dtype=object)
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values
    values = [None if _is_gap(value) else value for value in values]
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, (bool, int, float, np.number, np.bool_)) for value in present):
        whole = [int(value) for value in present if isinstance(value, (int, np.integer))]
        largest = max(map(abs, whole), default=0)
        complete = len(present) == len(values)
        if complete and (largest <= 1 << 53 or (len(whole) == len(values) and largest < 1 << 63)):
            return np.asarray(values)
        if largest <= 1 << 53:
            return np.asarray([np.nan if value is None else float(value) for value in values])
    return _texts(values)


def as_keys(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """A 1-D array of keys (groups, pairs, splits): equal only where their texts are equal.

    Numbers of one kind stay numbers where none is missing.

    >>> as_keys(["007", "7", None])
    array(['007', '7', None], dtype=object)
    >>> as_keys([2**53, 2**53 + 1, None])
    array(['9007199254740992', '9007199254740993', None], dtype=object)
    >>> as_keys([3, 1])
    array([3, 1])
    """
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    kinds = {type(value) for value in plain}
    if len(kinds) == 1 and kinds <= {bool, int, float}:
        out = np.asarray(plain)
        return out if out.dtype.kind in "bif" else _texts(plain)
    return _texts(plain)


def _texts(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    out[:] = [None if value is None else str(value) for value in values]
    return out


def same_codes(values: Iterable[Hashable]) -> np.ndarray:
    """[n] int64: equal numbers where the values are equal, in order of first appearance.

    >>> same_codes(["b", "a", "b"])
    array([0, 1, 0])
    """
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values], dtype=np.int64)


def _is_gap(value: Any) -> bool:
    # NaN alone differs from itself; pandas' NA is neither equal nor unequal, and pandas may not be loaded
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and value != value)


class StoredTexts(Sequence[str]):
    """Texts of a file, decoded where asked for: there may be millions, and few analyses read them."""

    def __init__(self, data: np.ndarray, starts: np.ndarray) -> None:
        self._data, self._starts = data, starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        one = range(len(self))[index]
        return self._data[self._starts[one] : self._starts[one + 1]].tobytes().decode()


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


def join_columns(parts: Sequence[PromptColumns]) -> PromptColumns:
    """The columns of several sets of prompts, one after the other; columns that not all have are left out."""
    if len(parts) == 1:
        return parts[0]

    def joined(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
        held = [one for one in values if one is not None]
        return np.concatenate(held) if len(held) == len(parts) else None

    def shared(tables: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {
            name: np.concatenate([table[name] for table in tables])
            for name in tables[0]
            if all(name in table for table in tables)
        }

    lengths = joined([part.lengths for part in parts])
    tokens = joined([part.token_ids for part in parts])
    return PromptColumns(
        ids=np.concatenate([part.ids for part in parts]),
        labels=shared([part.labels for part in parts]),
        groups=joined([part.groups for part in parts]),
        pairs=joined([part.pairs for part in parts]),
        splits=joined([part.splits for part in parts]),
        spans=shared([part.spans for part in parts]),
        texts=[text for part in parts for text in part.texts or ()],
        token_ids=tokens,
        token_starts=None if tokens is None or lengths is None else np.cumsum([0, *lengths], dtype=np.int64),
        given_lengths=lengths,
    )
