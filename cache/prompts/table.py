"""The prompt table: ids, texts or chat messages, labels, groups, pairs, splits and spans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ...hooks.errors import LayerprobeError
from .cells import (
    Prompt,
    Span,
    id_cells,
    ids_cell,
    is_chat,
    key_text,
    messages_cell,
    none_if_missing,
    span_cell,
    text_cell,
)
from .columns import as_column, as_keys, same_codes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class PromptTable:
    """Prompts and what is known of each. Every field has one entry per prompt; made by `read_prompts`.

    >>> table = read_prompts([{"text": "A cat.", "animal": "cat"}, {"text": "A dog."}], labels="animal")
    >>> table
    PromptTable(list: 2 texts; labels: animal; from list)
    >>> table[0]
    {'id': '0', 'prompt': 'A cat.', 'animal': 'cat'}
    >>> table[1:].prompts, len(table.head(1))
    (('A dog.',), 1)
    """

    ids: tuple[str, ...]
    prompts: tuple[Prompt, ...]
    """A text, chat messages `[{"role": ..., "content": ...}, ...]`, or token ids."""
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
        kind = "chats" if self.chat else "texts" if isinstance(self.prompts[0], str) else "lists of token ids"
        keys = [name for name in ("groups", "pairs", "splits") if getattr(self, name) is not None]
        parts = [
            f"{len(self):,} {kind}",
            f"labels: {', '.join(self.labels) or 'none'}",
            *(f"{name}: {len(set(getattr(self, name).tolist())):,}" for name in keys),
            *([f"spans: {', '.join(self.spans)}"] if self.spans else []),
            f"from {self.source}" if self.source else "from a list",
        ]
        return f"PromptTable({self.name}: {'; '.join(parts)})"

    @overload
    def __getitem__(self, rows: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int] | np.ndarray) -> PromptTable: ...
    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> PromptTable | dict[str, Any]:
        """One prompt with all that is known of it, or, of a slice, indices or a mask, the same table with
        some of its prompts.
        """
        if isinstance(rows, (int, np.integer)):
            return self._one(range(len(self))[rows])
        index = np.arange(len(self))[rows]

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

    def _one(self, row: int) -> dict[str, Any]:
        named = {"group": self.groups, "pair": self.pairs, "split": self.splits, **self.labels}
        known = {name: _plain_value(values[row]) for name, values in named.items() if values is not None}
        spans = {name: values[row] for name, values in self.spans.items()}
        return {"id": self.ids[row], "prompt": self.prompts[row], **known, **spans}

    def head(self, n: int = 5) -> PromptTable:
        """The same table with its first prompts."""
        return self[:n]

    def _repr_html_(self) -> str:
        rows = [self._one(row) for row in range(min(5, len(self)))]
        names = list(rows[0]) if rows else []

        def line(tag: str, cells: Sequence[Any]) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(_short(cell))}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(line("td", [row[name] for name in names]) for row in rows)
        return f"<p>{escape(repr(self))}</p><table>{line('th', names)}{body}</table>"

    @property
    def chat(self) -> bool:
        """Whether the prompts are chat messages."""
        return bool(self.prompts) and is_chat(self.prompts[0])

    @property
    def same_text(self) -> np.ndarray:
        """[prompts] int64 codes, equal for prompts that say the same, in order of first appearance.

        Rows of equal prompts are copies of each other: a split that parts them tests on what it trained on.
        A store has it by the tokens that the model saw, `store.same_text`.

        >>> read_prompts([{"text": "yes"}, {"text": "no"}, {"text": "yes"}]).same_text
        array([0, 1, 0])
        """
        return same_codes(json.dumps(prompt, sort_keys=True) for prompt in self.prompts)

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
        cls, frame: pd.DataFrame, *, name: str = "frame", source: str = "DataFrame", **columns: Any
    ) -> PromptTable:
        """A table from a pandas DataFrame; `columns` as in `read_prompts`, which takes a DataFrame too."""
        return replace(read_prompts(frame, **columns), name=name, source=source)


@dataclass(frozen=True)
class _Roles:
    """Which column plays which part."""

    text: str | None
    messages: str | None
    token_ids: str | None
    labels: tuple[str, ...]
    group: str | None
    pair: str | None
    split: str | None
    spans: tuple[str, ...]
    id: str | None

    def wanted(self) -> list[tuple[str, str]]:
        """(option, column) of every column that is asked for."""
        single = [("group", self.group), ("pair", self.pair), ("split", self.split), ("id", self.id)]
        many = [("labels", name) for name in self.labels] + [("spans", name) for name in self.spans]
        return [(option, name) for option, name in [self.body, *many, *single] if name is not None]

    @property
    def body(self) -> tuple[str, str]:
        """(option, column) of the prompts themselves.

        Raises:
            LayerprobeError: none, or more than one way to give them.
        """
        given = {"messages": self.messages, "token_ids": self.token_ids}
        named = [(option, column) for option, column in given.items() if column is not None]
        if len(named) > 1:
            raise LayerprobeError("messages= and token_ids= are two ways to give the prompts: choose one")
        if named:
            return named[0]
        if self.text is None:
            raise LayerprobeError(
                "none of text=, messages= and token_ids= was given: name the column that holds the prompts"
            )
        return ("text", self.text)


def read_prompts(
    path: str | Path | pd.DataFrame | Sequence[Mapping[str, Any]] | Any,
    *,
    text: str | None = "text",
    messages: str | None = None,
    token_ids: str | None = None,
    labels: str | Sequence[str] = (),
    group: str | None = None,
    pair: str | None = None,
    split: str | None = None,
    spans: str | Sequence[str] = (),
    id: str | None = None,
    limit: int | None = None,
    sep: str | None = None,
    encoding: str = "utf-8",
) -> PromptTable:
    """Read a prompt table.

    Args:
        path: a file (JSON lines, CSV, TSV, Parquet), a folder written by `datasets`' `save_to_disk`, a pandas
            DataFrame, a `datasets.Dataset`, or a list of dicts.
        text: the column with the prompt's text.
        messages: the column with chat messages instead (a list of `{"role", "content", ...}`, or that as
            JSON); every key is kept and reaches the chat template.
        token_ids: the column with token ids instead (a list of whole numbers), which the model reads as they
            are.
        labels: label columns to keep, one or several.
        group: the column whose equal values must never straddle a split.
        pair: the column that names contrastive pairs.
        split: the column with given splits.
        spans: columns with a span of the prompt: `[start, end]` character offsets, or a string that occurs in
            the prompt exactly once. For messages, offsets count in the contents joined by newlines.
        id: the column with ids, unique; numbers from 0 by default. Ids, groups, pairs and splits keep their
            text: `007` and `7` are two.
        limit: only the first so many rows, unshuffled.
        sep: what separates the columns of a CSV file; by default what its first line shows: `,`, `;`, a tab
            or `|`.
        encoding: of a text file.

    Returns:
        The table, one entry per prompt.

    Raises:
        LayerprobeError: a path or column that is not there, a cell of the wrong kind (its row is named).

    >>> rows = [{"q": "Is it blue?", "sky": True}, {"q": "Is it red?", "sky": False}]
    >>> read_prompts(rows, text="q", labels="sky").labels["sky"]
    array([ True, False])
    >>> read_prompts([{"ids": [5, 17, 2]}], token_ids="ids")
    PromptTable(list: 1 lists of token ids; labels: none; from list)
    """
    roles = _Roles(text, messages, token_ids, _several(labels), group, pair, split, _several(spans), id)
    wanted = roles.wanted()
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise LayerprobeError(f"limit={limit!r}: expected how many rows to read, at least 1")
    if isinstance(path, str | Path):
        from .tabular import read_columns

        file = Path(path).expanduser()
        columns = read_columns(file, wanted, limit, sep=sep, encoding=encoding)
        return _build(columns, roles, name=file.stem, source=str(path))
    from .from_memory import given_columns

    columns, kind = given_columns(path, wanted, limit)
    return _build(columns, roles, name=kind.lower(), source=kind)


def _several(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


_CELLS: dict[str, Callable[[Any, str], Prompt]] = {
    "text": text_cell,
    "messages": messages_cell,
    "token_ids": ids_cell,
}


def _build(columns: Mapping[str, list[Any]], roles: _Roles, *, name: str, source: str) -> PromptTable:
    option, body = roles.body
    read = _CELLS[option]
    prompts = tuple(
        read(value, f"{source}: row {row}, column {body!r}") for row, value in enumerate(columns[body])
    )
    if not prompts:
        raise LayerprobeError(f"{source} holds no prompts")

    def keys(column: str | None) -> np.ndarray | None:
        if column is None:
            return None
        values = [none_if_missing(value) for value in columns[column]]
        for row, value in enumerate(values):
            key_text(value, f"{source}: row {row}, column {column!r}")
        return as_keys(values)

    return PromptTable(
        ids=id_cells(columns, roles.id, len(prompts), source),
        prompts=prompts,
        labels={label: _labels(columns[label]) for label in roles.labels},
        groups=keys(roles.group),
        pairs=keys(roles.pair),
        splits=keys(roles.split),
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


def _labels(values: list[Any]) -> np.ndarray:
    return as_column([none_if_missing(value) for value in values])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def _plain_value(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
