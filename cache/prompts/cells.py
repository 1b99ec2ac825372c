"""The cells of a prompt table: what a prompt, a span or an id must be, and the error that names the row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...hooks.errors import LayerprobeError

Messages = list[dict[str, str]]
Prompt = str | Messages
Span = tuple[int, int] | None


def plain_text(prompt: Prompt) -> str:
    """The text of a prompt, or the contents of its messages joined by newlines: what spans count in.

    >>> plain_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    'Be brief.\\nHello'
    """
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def text_cell(value: Any, where: str) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise LayerprobeError(f"{where}: expected a text, got {value!r}")
    return value


def messages_cell(value: Any, where: str) -> Messages:
    """Chat messages, as a list or as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise LayerprobeError(
                f"{where}: expected chat messages, got the text {value[:40]!r}: use text= for plain text"
            ) from None
    try:
        messages = [{"role": str(part["role"]), "content": part["content"]} for part in value]
    except (TypeError, KeyError):
        messages = []
    if not messages or not all(isinstance(part["content"], str) for part in messages):
        raise LayerprobeError(f'{where}: expected [{{"role": ..., "content": ...}}, ...], got {value!r:.80}')
    return messages


def span_cell(value: Any, prompt: Prompt, where: str) -> Span:
    """Character offsets, or a piece of the text that occurs once."""
    value = none_if_nan(value)
    if value is None:
        return None
    text = plain_text(prompt)
    if isinstance(value, str):
        count = text.count(value) if value else 0
        if count != 1:
            raise LayerprobeError(
                f"{where}: the span {value!r} occurs {count} times in the prompt; give [start, end] offsets"
            )
        start = text.index(value)
        return start, start + len(value)
    try:
        start, end = (int(bound) for bound in value)
    except (TypeError, ValueError):
        raise LayerprobeError(
            f"{where}: expected [start, end] or a piece of the text, got {value!r}"
        ) from None
    if not 0 <= start < end <= len(text):
        raise LayerprobeError(
            f"{where}: the span [{start}, {end}] does not lie in a text of {len(text)} characters"
        )
    return start, end


def id_cells(columns: Mapping[str, list[Any]], column: str | None, n: int, source: str) -> tuple[str, ...]:
    """Unique ids; numbers from 0 where no column is named."""
    if column is None:
        return tuple(str(row) for row in range(n))
    ids = tuple(str(value) for value in columns[column])
    seen: dict[str, int] = {}
    for row, value in enumerate(ids):
        if value in seen:
            raise LayerprobeError(
                f"{source}: id {value!r} stands in rows {seen[value]} and {row}; ids must be unique: "
                f"name another id= column, or leave it out to number the rows"
            )
        seen[value] = row
    return ids


def none_if_nan(value: Any) -> Any:
    """A table's empty cell is None."""
    return None if isinstance(value, float) and value != value else value
