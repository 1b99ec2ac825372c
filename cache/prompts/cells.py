"""The cells of a prompt table: what a prompt, a span or an id must be, and the error that names the row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ...hooks.errors import LayerprobeError

Messages = list[dict[str, Any]]
TokenIds = list[int]
Prompt = str | Messages | TokenIds
Span = tuple[int, int] | None

#: how deep messages may nest: tool schemas stay below ten
DEPTH = 64


def plain_text(prompt: Prompt) -> str:
    """The text of a prompt, or the contents of its messages joined by newlines: what spans count in.

    >>> plain_text([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}])
    'Be brief.\\nHello'
    """
    if isinstance(prompt, str):
        return prompt
    return "\n".join(content_text(message) for message in prompt if isinstance(message, Mapping))


def content_text(message: Mapping[str, Any]) -> str:
    """What a message says: its content, the texts of its parts, or nothing beside tool calls."""
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""


def is_chat(prompt: Prompt) -> bool:
    """Whether a prompt is a list of messages, rather than a text or token ids."""
    return not isinstance(prompt, str) and isinstance(prompt[0], Mapping)


def text_cell(value: Any, where: str) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise LayerprobeError(f"{where}: expected a text, got {shown(value)}")
    return value


def ids_cell(value: Any, where: str) -> TokenIds:
    """Token ids, as a list, an array, or JSON."""
    if isinstance(value, str):
        value = _from_json(value, where, "token ids such as [5, 17, 2]")
    ids = value.tolist() if hasattr(value, "tolist") else value
    good = isinstance(ids, list | tuple) and all(
        isinstance(one, Integral) and not isinstance(one, bool) and 0 <= int(one) < 1 << 31 for one in ids
    )
    if not good or not ids:
        raise LayerprobeError(f"{where}: expected token ids such as [5, 17, 2], got {shown(value)}")
    return [int(one) for one in ids]


def messages_cell(value: Any, where: str) -> Messages:
    """Chat messages, as a list or as JSON, with every key that they have.

    Keys without a value are left out (a column of messages in Parquet has every key in every message), but
    for `content`, which stands in each.
    """
    if isinstance(value, str):
        value = _from_json(value, where, "chat messages", "; use text= for plain text")
    parts = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(parts, list | tuple) or not parts or not all(isinstance(p, Mapping) for p in parts):
        raise LayerprobeError(f'{where}: expected [{{"role": ..., "content": ...}}, ...], got {shown(value)}')
    return [_message(part, f"{where}, message {index}") for index, part in enumerate(parts)]


def _message(part: Mapping[str, Any], where: str) -> dict[str, Any]:
    role, content = part.get("role"), none_if_missing(part.get("content"))
    if not isinstance(role, str):
        raise LayerprobeError(f'{where}: expected {{"role": ..., "content": ...}}, got {shown(part)}')
    rest = {str(key): part[key] for key in sorted(map(str, part)) if key not in ("role", "content")}
    kept = {key: one for key, one in ((k, plain_json(v, where)) for k, v in rest.items()) if one is not None}
    if isinstance(content, str) or (content is None and kept):
        return {"role": role, "content": content, **kept}
    content = plain_json(content, where)
    for piece in content if isinstance(content, list) else [content]:
        kind = piece.get("type", "no type") if isinstance(piece, dict) else type(piece).__name__
        if kind != "text":
            said = f"a part of type {kind!r}: layerprobe reads text" if isinstance(piece, dict) else "no text"
            raise LayerprobeError(
                f'{where}: expected {{"role": ..., "content": ...}} with a text, got {said} ({shown(piece)})'
            )
    return {"role": role, "content": content, **kept}


def plain_json(value: Any, where: str, depth: int = DEPTH) -> Any:
    """A value as JSON would hold it: numpy and table types made plain, missing values None, keys of objects
    without a value left out.

    Raises:
        LayerprobeError: it nests too deeply, or holds what JSON does not.
    """
    value = none_if_missing(value)
    if depth == 0:
        raise LayerprobeError(f"{where}: it nests more than {DEPTH} deep; is it a prompt?")
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        pairs = ((str(key), plain_json(one, where, depth - 1)) for key, one in value.items())
        return {key: one for key, one in pairs if one is not None}
    if hasattr(value, "tolist"):
        return plain_json(value.tolist(), where, depth)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain_json(one, where, depth - 1) for one in value]
    if isinstance(value, Integral) and int(value).bit_length() <= 1024:
        return int(value)
    if isinstance(value, Real) and not isinstance(value, Integral):
        return float(value)
    raise LayerprobeError(f"{where}: {shown(value)} is no text, number, list or object")


def _from_json(text: str, where: str, expected: str, advice: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, lists in lists
        raise LayerprobeError(f"{where}: expected {expected}, got the text {text[:40]!r}{advice}") from None


def span_cell(value: Any, prompt: Prompt, where: str) -> Span:
    """Character offsets, or a piece of the text that occurs once."""
    value = none_if_missing(value)
    if value is None:
        return None
    if not isinstance(prompt, str) and not is_chat(prompt):
        raise LayerprobeError(f"{where}: spans count in texts, and these prompts are token ids: use pos:N")
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
    except (TypeError, ValueError, OverflowError):
        raise LayerprobeError(
            f"{where}: expected [start, end] or a piece of the text, got {shown(value)}"
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
    seen: dict[str, int] = {}
    for row, value in enumerate(columns[column]):
        if none_if_missing(value) is None:
            raise LayerprobeError(f"{source}: row {row} has no id in column {column!r}: give every row one")
        if (name := key_text(value, f"{source}: row {row}, column {column!r}")) in seen:
            raise LayerprobeError(
                f"{source}: id {name!r} stands in rows {seen[name]} and {row}; ids must be unique: "
                f"name another id= column, or leave it out to number the rows"
            )
        seen[name] = row
    return tuple(seen)


def key_text(value: Any, where: str) -> str:
    """The text of an id or a group.

    Raises:
        LayerprobeError: a number that was rounded before it came here: 2**53 + 1 is no float.
    """
    if isinstance(value, float) and abs(value) >= 1 << 53:
        raise LayerprobeError(
            f"{where}: {value!r} was a whole number that a float column cannot hold, so that neighbours have "
            f"become equal: read it as text, or as pandas' Int64"
        )
    if isinstance(value, int) and value.bit_length() > 1024:
        raise LayerprobeError(f"{where}: {shown(value)}: write it as a text")
    return str(value)


def none_if_missing(value: Any) -> Any:
    """A table's empty cell is None: None itself, NaN, pandas' NA and NaT."""
    if isinstance(value, float) and value != value:
        return None
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def shown(value: Any) -> str:
    """A value for an error, short whatever it is.

    >>> shown("a" * 100)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    >>> shown(10**6000)
    'a whole number of 19932 bits'
    """
    if isinstance(value, int) and value.bit_length() > 1024:
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = repr(value[:80] if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:79]}..."
