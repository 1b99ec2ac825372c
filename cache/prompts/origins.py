"""Which characters of a rendered chat come from which character of its messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from .cells import Messages

Render = Callable[[Messages], str]


Ranges = list[tuple[int, int]]


#: keys of a message that hold what its role thought before it spoke
REASONING = ("reasoning_content", "thinking", "reasoning")


#: private-use characters, which stand for the characters of the contents
_FIRST, _LAST = 0xF0000, 0x10FFFD
#: renderings that one chat may take
RENDERINGS = 500


#: what templates look for in a content: kept as it is where nothing else reads back
_TAG = re.compile(r"</?[^<>\s]{1,60}>|\[/?[A-Z_]+\]|/(?:no_)?think\b")


@dataclass(frozen=True)
class Leaf:
    """A text within a message."""

    message: int
    field: str
    """`content`, or one of `REASONING`."""
    part: int | None
    """Which part of a content that is a list of parts."""
    start: int
    """Where it begins among the characters of all leaves."""
    text: str


def _leaves(messages: Messages) -> Iterator[Leaf]:
    start = 0
    for index, message in enumerate(messages):
        content = message.get("content")
        parts: list[tuple[str, int | None, Any]] = [("content", None, content)]
        if isinstance(content, list):
            parts = [("content", number, part.get("text")) for number, part in enumerate(content)]
        # transformers hands the first of these on under the names of the others
        thought = next((key for key in REASONING if isinstance(message.get(key), str)), None)
        if thought is not None:
            parts.insert(0, (thought, None, message[thought]))
        for field, number, text in parts:
            if isinstance(text, str) and text:
                yield Leaf(index, field, number, start, text)
                start += len(text)


def _levels(
    leaves: Sequence[Leaf], written: str, literals: Collection[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """[characters of all leaves] which of them are rendered as they are, none and then ever more; and which
    belong to a tag or another string that stays whole or goes.
    """
    none = np.zeros(len(written), dtype=bool)
    blank = np.fromiter((char.isspace() for char in written), dtype=bool, count=len(written))
    tags = _matches(leaves, len(written), _TAG)
    words = "|".join(
        re.escape(one) for one in sorted(literals, key=len, reverse=True) if len(one.strip()) > 1
    )
    named = _matches(leaves, len(written), re.compile(words)) if words else none
    yield none, none
    for whole in (named, tags, named | tags):
        yield blank | whole, whole & ~blank


class _Finer:
    """Marks what was kept after all, but for what the template looks for: half of it, half of that, ..."""

    def __init__(
        self, trace: Callable[[np.ndarray], np.ndarray | None], kept: np.ndarray, source: np.ndarray
    ) -> None:
        self._trace, self.kept, self.source, self._left = trace, kept, source, RENDERINGS

    def mark(self, runs: Sequence[slice]) -> None:
        """Give these runs characters of their own, as many of them as the text still reads back with.

        Raises:
            LayerprobeError: it takes too many renderings to tell.
        """
        if not runs:
            return
        if not self._left:
            raise LayerprobeError(
                f"{RENDERINGS} renderings did not tell which characters of the chat its template looks for: "
                f"use tokens='regex:...'"
            )
        self._left -= 1
        fewer = self.kept.copy()
        for run in runs:
            fewer[run] = False
        source = self._trace(fewer)
        if source is not None:
            self.kept, self.source = fewer, source
        elif len(runs) > 1:
            half = len(runs) // 2
            self.mark(runs[:half])
            self.mark(runs[half:])


def _runs(mask: np.ndarray) -> list[slice]:
    """Where a mask is true without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [slice(int(low), int(high)) for low, high in edges.reshape(-1, 2)]


def _matches(leaves: Sequence[Leaf], count: int, pattern: re.Pattern[str]) -> np.ndarray:
    found = np.zeros(count, dtype=bool)
    for leaf in leaves:
        for match in pattern.finditer(leaf.text):
            found[leaf.start + match.start() : leaf.start + match.end()] = True
    return found


def _trace(
    messages: Messages, render: Render, text: str, leaves: Sequence[Leaf], written: str, kept: np.ndarray
) -> np.ndarray | None:
    """Where the characters that are not kept went; None where the text does not read back.

    There are 131,000 private characters: a longer chat is rendered several times, a stretch of it each time.
    """
    used = {ord(char) for char in {*text, *written} if ord(char) >= _FIRST}
    codes = np.arange(_FIRST, _LAST + 1) if not used else np.setdiff1d(np.arange(_FIRST, _LAST + 1), [*used])
    letters = np.array([ord(char) for char in text], dtype=np.int64)
    originals = np.array([ord(char) for char in written], dtype=np.int64)
    source = np.full(len(text), -1, dtype=np.int64)
    marked = np.flatnonzero(~kept)
    for begin in range(0, len(marked), len(codes)):
        places = marked[begin : begin + len(codes)]
        signs = originals.copy()
        signs[places] = codes[: len(places)]
        try:
            other = render(_with_texts(messages, leaves, signs))
        except LayerprobeError:
            return None  # it looks for something in the contents
        if len(other) != len(text):
            return None
        seen = np.array([ord(char) for char in other], dtype=np.int64)
        index = np.searchsorted(codes[: len(places)], seen).clip(max=len(places) - 1)
        ours = codes[index] == seen
        if not np.array_equal(np.where(ours, originals[places[index]], seen), letters):
            return None
        source[ours] = places[index[ours]]
    return source


def _with_texts(messages: Messages, leaves: Sequence[Leaf], signs: np.ndarray) -> Messages:
    """The same chat with other characters."""
    out: Messages = [dict(message) for message in messages]
    for leaf in leaves:
        _replaced(out, leaf, "".join(map(chr, signs[leaf.start : leaf.start + len(leaf.text)].tolist())))
    return out


def _replaced(messages: Messages, leaf: Leaf, text: str) -> Messages:
    """Messages with another text at a leaf, changed in place but for their parts."""
    message = messages[leaf.message]
    if leaf.part is None:
        message[leaf.field] = text
    else:
        parts = list(message[leaf.field])
        parts[leaf.part] = {**parts[leaf.part], "text": text}
        message[leaf.field] = parts
    return messages


def _fill(
    messages: Messages,
    render: Render,
    text: str,
    leaves: Sequence[Leaf],
    written: str,
    source: np.ndarray,
    tags: np.ndarray,
) -> None:
    """Give the characters that were rendered as they are a place in `source`, beside those that are known."""
    for leaf in leaves:
        known = np.flatnonzero((source >= leaf.start) & (source < leaf.start + len(leaf.text)))
        if not len(known):
            continue
        for here, after in zip(known[:-1].tolist(), known[1:].tolist(), strict=True):
            _fill_between(text, written, source, tags, here, after)
        for place, step in ((int(known[0]), -1), (int(known[-1]), 1)):
            _fill_edge(messages, render, text, leaf, source, tags, place, step)


def _fill_between(
    text: str, written: str, source: np.ndarray, tags: np.ndarray, here: int, after: int
) -> None:
    """Between two known characters of one leaf: what stands in both the content and the text, with the tags
    in it or without.

    Raises:
        LayerprobeError: white space has become something else (an escape of JSON).
    """
    first, last = int(source[here]), int(source[after])
    if last <= first + 1:
        return
    between, rendered = written[first + 1 : last], text[here + 1 : after]
    if rendered == between:
        source[here + 1 : after] = np.arange(first + 1, last)
        return
    bare = first + 1 + np.flatnonzero(~tags[first + 1 : last])
    if rendered == "".join(written[place] for place in bare):
        source[here + 1 : after] = bare
    elif between.isspace() and rendered.strip():
        raise LayerprobeError(
            f"the chat template rewrites {written[max(first - 20, 0) : last + 1]!r}, so that its characters "
            f"cannot be found in the text: use tokens='regex:...'"
        )


def _fill_edge(
    messages: Messages,
    render: Render,
    text: str,
    leaf: Leaf,
    source: np.ndarray,
    tags: np.ndarray,
    place: int,
    step: int,
) -> None:
    """Outwards from the first or last known character of a leaf, as far as content and text agree.

    The template may have stripped a line break and written one of its own: what can be taken out of the
    content without a change of the text is not in it.
    """
    at, count = int(source[place]) - leaf.start, 0
    while 0 <= at + step * (count + 1) < len(leaf.text):
        following = place + step * (count + 1)
        if not 0 <= following < len(text) or source[following] >= 0:
            break
        if text[following] != leaf.text[at + step * (count + 1)]:
            break
        count += 1
    inside = tags[leaf.start : leaf.start + len(leaf.text)]
    while count:
        edge, beyond = at + step * count, at + step * (count + 1)
        size = _whole(inside, edge, step)  # a tag goes as one, and part of one is none
        part = bool(inside[edge]) and 0 <= beyond < len(inside) and bool(inside[beyond])
        first = min(edge, edge - step * (size - 1))
        shorter = leaf.text[:first] + leaf.text[first + size :]
        if not part and _with_text(messages, render, leaf, shorter) != text:
            break
        count -= size
    low, high = (0, at - count) if step < 0 else (at + count + 1, len(leaf.text))
    shorter = leaf.text[:low] + "".join(leaf.text[low:high].split()) + leaf.text[high:]
    if shorter != leaf.text and _with_text(messages, render, leaf, shorter) != text:
        raise LayerprobeError(
            f"the chat template rewrites the white space of {leaf.text[-60:]!r}, so that its characters "
            f"cannot be found in the text: use tokens='regex:...'"
        )
    for number in range(1, count + 1):
        source[place + step * number] = leaf.start + at + step * number


def _whole(inside: np.ndarray, at: int, step: int) -> int:
    """Characters of the tag whose outer end is at `at`; 1 where there is none."""
    size = 1
    while inside[at] and 0 <= at - step * size < len(inside) and inside[at - step * size]:
        size += 1
    return size


def _with_text(messages: Messages, render: Render, leaf: Leaf, other: str) -> str | None:
    """The text of the chat with something else at a leaf; None where the template refuses that."""
    try:
        return render(_replaced([dict(message) for message in messages], leaf, other))
    except LayerprobeError:
        return None


def _check_once(source: np.ndarray, leaves: Iterable[Leaf]) -> None:
    places = source[source >= 0]
    if len(np.unique(places)) < len(places):
        first = int(next(place for place in places if (places == place).sum() > 1))
        leaf = next(leaf for leaf in leaves if leaf.start <= first < leaf.start + len(leaf.text))
        raise LayerprobeError(
            f"the chat template writes message {leaf.message} twice ({leaf.text[:40]!r}), so that it has no "
            f"one place: use tokens='regex:...'"
        )


def _ranges(places: np.ndarray) -> Ranges:
    """Ascending ranges that cover some places of a text."""
    if not len(places):
        return []
    places = np.unique(places)
    breaks = np.flatnonzero(np.diff(places) > 1)
    starts = [int(places[0]), *places[breaks + 1].tolist()]
    ends = [*(places[breaks] + 1).tolist(), int(places[-1]) + 1]
    return list(zip(starts, ends, strict=True))
