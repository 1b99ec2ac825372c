"""The prompt table: ids, texts or chat messages, labels, groups, pairs, splits and spans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hooks.errors import LayerprobeError
from .cells import (
    Prompt,
    Span,
    id_cells,
    messages_cell,
    none_if_nan,
    span_cell,
    text_cell,
)
from .columns import as_column

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class PromptTable:
    """Prompts and what is known of each. Every field has one entry per prompt."""

    ids: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    """A text, or chat messages `[{"role": ..., "content": ...}, ...]`."""
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    groups: np.ndarray | None = None
    """Keys of prompts that must never straddle a split: paraphrases, contrastive pairs."""
    pairs: np.ndarray | None = None
    splits: np.ndarray | None = None
    spans: dict[str, list[Span]] = field(default_factory=dict)
    """Name -> (start, end) character offsets into `plain_text(prompt)`, or None."""
    name: str = "prompts"
    """A short name, for tables."""
    source: str = ""
    """Where the table was read from."""

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        kind = "chats" if self.chat else "texts"
        keys = [name for name in ("groups", "pairs", "splits") if getattr(self, name) is not None]
        parts = [
            f"{len(self):,} {kind}",
            f"labels: {', '.join(self.labels) or 'none'}",
            *(f"{name}: {len(set(getattr(self, name).tolist())):,}" for name in keys),
            *([f"spans: {', '.join(self.spans)}"] if self.spans else []),
            f"from {self.source}" if self.source else "from a list",
        ]
        return f"PromptTable({self.name}: {'; '.join(parts)})"

    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> PromptTable:
        """The same table with some of its prompts: a slice, indices or a mask."""
        index = np.arange(len(self))[rows]
        if index.ndim != 1:
            raise LayerprobeError("a PromptTable is sliced by a slice, indices or a mask, not by one number")

        def pick(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[index]

        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            prompts=tuple(self.prompts[i] for i in index),
            labels={name: values[index] for name, values in self.labels.items()},
            groups=pick(self.groups),
            pairs=pick(self.pairs),
            splits=pick(self.splits),
            spans={name: [values[i] for i in index] for name, values in self.spans.items()},
        )

    @property
    def chat(self) -> bool:
        """Whether the prompts are chat messages."""
        return bool(self.prompts) and not isinstance(self.prompts[0], str)

    @property
    def sha256(self) -> str:
        """A hash of everything that the table says, apart from its name and source."""
        digest = hashlib.sha256()
        for part in self._canonical():
            digest.update(json.dumps(part, ensure_ascii=True, default=_plain).encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def _canonical(self) -> Iterator[Any]:
        yield from zip(self.ids, self.prompts, strict=True)
        for name in sorted(self.labels):
            yield ["label", name, self.labels[name].tolist()]
        for name, values in (("groups", self.groups), ("pairs", self.pairs), ("splits", self.splits)):
            yield [name, None if values is None else values.tolist()]
        for name in sorted(self.spans):
            yield ["span", name, self.spans[name]]

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        text: str | None = "text",
        messages: str | None = None,
        labels: Sequence[str] = (),
        group: str | None = None,
        pair: str | None = None,
        split: str | None = None,
        spans: Sequence[str] = (),
        id: str | None = None,
        name: str = "frame",
        source: str = "DataFrame",
    ) -> PromptTable:
        """A table from a pandas DataFrame; arguments as in `read_prompts`."""
        columns = {str(column): frame[column].tolist() for column in frame.columns}
        roles = _Roles(text, messages, tuple(labels), group, pair, split, tuple(spans), id)
        return _build(columns, roles, name=name, source=source)


@dataclass(frozen=True)
class _Roles:
    """Which column plays which part."""

    text: str | None
    messages: str | None
    labels: tuple[str, ...]
    group: str | None
    pair: str | None
    split: str | None
    spans: tuple[str, ...]
    id: str | None

    def wanted(self) -> list[tuple[str, str]]:
        """(option, column) of every column that is asked for."""
        single = [("group", self.group), ("pair", self.pair), ("split", self.split), ("id", self.id)]
        body = ("messages", self.messages) if self.messages else ("text", self.text)
        many = [("labels", name) for name in self.labels] + [("spans", name) for name in self.spans]
        return [(option, name) for option, name in [body, *many, *single] if name is not None]


def read_prompts(
    path: str | Path,
    *,
    text: str | None = "text",
    messages: str | None = None,
    labels: Sequence[str] = (),
    group: str | None = None,
    pair: str | None = None,
    split: str | None = None,
    spans: Sequence[str] = (),
    id: str | None = None,
    limit: int | None = None,
) -> PromptTable:
    """Read a prompt table.

    Args:
        path: JSON lines, CSV, TSV, Parquet, or a folder written by `datasets`' `save_to_disk`.
        text: the column with the prompt's text.
        messages: the column with chat messages instead (a list of `{"role", "content"}`, or that as JSON).
        labels: label columns to keep.
        group: the column whose equal values must never straddle a split.
        pair: the column that names contrastive pairs.
        split: the column with given splits.
        spans: columns with a span of the prompt: `[start, end]` character offsets, or a string that occurs in
            the prompt exactly once. For messages, offsets count in the contents joined by newlines.
        id: the column with ids, unique; numbers from 0 by default.
        limit: only the first so many rows of the file, unshuffled.

    Raises:
        LayerprobeError: a path or column that is not there, a cell of the wrong kind (its row is named).
    """
    from .tabular import read_columns

    path = Path(path)
    roles = _Roles(text, messages, tuple(labels), group, pair, split, tuple(spans), id)
    if roles.text is None and roles.messages is None:
        raise LayerprobeError("neither text= nor messages= was given: name the column that holds the prompts")
    columns = read_columns(path, roles.wanted(), limit)
    return _build(columns, roles, name=path.stem, source=str(path))


def _build(columns: Mapping[str, list[Any]], roles: _Roles, *, name: str, source: str) -> PromptTable:
    from .tabular import missing_column

    for option, column in roles.wanted():
        if column not in columns:
            raise missing_column(source, option, column, list(columns))
    body = roles.messages or roles.text
    assert body is not None
    read = messages_cell if roles.messages else text_cell
    prompts = tuple(
        read(value, f"{source}: row {row}, column {body!r}") for row, value in enumerate(columns[body])
    )
    if not prompts:
        raise LayerprobeError(f"{source} holds no prompts")

    def optional(column: str | None) -> np.ndarray | None:
        return None if column is None else as_column([none_if_nan(value) for value in columns[column]])

    return PromptTable(
        ids=id_cells(columns, roles.id, len(prompts), source),
        prompts=prompts,
        labels={label: _checked(optional(label)) for label in roles.labels},
        groups=optional(roles.group),
        pairs=optional(roles.pair),
        splits=optional(roles.split),
        spans={
            span: [
                span_cell(value, prompts[row], f"{source}: row {row}, column {span!r}")
                for row, value in enumerate(columns[span])
            ]
            for span in roles.spans
        },
        name=name,
        source=source,
    )


def _checked(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
