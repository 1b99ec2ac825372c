"""Where the parts of a chat lie in the text that its template made: found by rendering and comparing.

The contents are rendered once more with a character of its own for each of theirs. Where that text, read back
character by character, is the real one, every character in it is known to come from one place of one message,
or to be the template's. Nothing is guessed: a chat whose text cannot be read back is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from .cells import Messages, Span, content_text

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


@dataclass(frozen=True)
class Located:
    """A rendered chat, and where each of its characters comes from."""

    text: str
    leaves: tuple[Leaf, ...]
    source: np.ndarray
    """[characters of the text] int64 index into the characters of all leaves, -1 for the template's own."""

    def within(self, leaf: Leaf, low: int = 0, high: int | None = None) -> np.ndarray:
        """Places in the text of characters `low` to `high` of a leaf, ascending."""
        end = len(leaf.text) if high is None else high
        return np.flatnonzero((self.source >= leaf.start + low) & (self.source < leaf.start + end))


def locate(messages: Messages, render: Render, literals: Collection[str] = ()) -> Located:
    """Find every character of the contents in the rendered text.

    A template may strip, cut or move the contents, and leave messages out; it may not rewrite what it keeps.

    Args:
        messages: the chat.
        render: messages -> text, the same text for the same messages.
        literals: strings that the template's code looks for in contents.

    Raises:
        LayerprobeError: the template rewrites the contents (as JSON, in capitals), or writes one twice.

    >>> render = lambda chat: "".join(f"<{m['role']}>{m['content'].strip()}</>" for m in chat)
    >>> found = locate([{"role": "user", "content": " Hi "}, {"role": "bot", "content": "Yo"}], render)
    >>> found.source.tolist()[6:9]
    [1, 2, -1]
    """
    text = render(messages)
    leaves = tuple(_leaves(messages))
    written = "".join(leaf.text for leaf in leaves)
    for kept, tags in _levels(leaves, written, literals):
        source = _trace(messages, render, text, leaves, written, kept)
        if source is not None:
            finer = _Finer(lambda fewer: _trace(messages, render, text, leaves, written, fewer), kept, source)
            finer.mark(_runs(tags) + _runs(kept & ~tags))
            source, tags = finer.source, tags & finer.kept
            _fill(messages, render, text, leaves, written, source, tags)
            _check_once(source, leaves)
            return Located(text, leaves, source)
    raise LayerprobeError(
        "the chat template rewrites what the messages say, so that their characters cannot be found in its "
        "text: use tokens='regex:...', or write the messages as the template will"
    )


def role_ranges(
    found: Located, messages: Messages, role: str, *, reduction: str = "all", where: str = "the chat"
) -> Ranges:
    """Ranges of the text that one role wrote: its contents and its reasoning, as far as they are rendered.

    Tool calls are written by the template and belong to nobody.

    Args:
        found, messages: from `locate`, and the chat that it was given.
        role: whose.
        reduction: what becomes of them, `first` and `last` being of one message.
        where: the prompt, for errors.

    Raises:
        LayerprobeError: a message of the role is left out by the template; the first or last, which is asked
            for, holds tool calls and says nothing.
    """
    places = []
    mine = [index for index, message in enumerate(messages) if message["role"] == role]
    for index in mine:
        leaves = [leaf for leaf in found.leaves if leaf.message == index]
        seen = [found.within(leaf) for leaf in leaves]
        says = "".join(leaf.text for leaf in leaves).strip()
        lost = [
            leaf for leaf, place in zip(leaves, seen, strict=True) if leaf.text.strip() and not len(place)
        ]
        # an earlier turn's reasoning is left out by most templates; what was said must be there
        if says and (not any(map(len, seen)) or any(leaf.field == "content" for leaf in lost)):
            raise LayerprobeError(
                f"{where}: the chat template leaves out message {index} ({role}: {says[:40]!r}), so that its "
                f"tokens cannot be read: leave the prompt out"
            )
        asked = (reduction == "first" and index == mine[0]) or (reduction == "last" and index == mine[-1])
        if asked and not says and messages[index].get("tool_calls"):
            raise LayerprobeError(
                f"{where}: message {index}, the {reduction} of {role}, holds tool calls and no text, so that "
                f"no token of it is {role}'s {reduction}: use tokens='regex:...', or leave the prompt out"
            )
        places += seen
    return _ranges(np.concatenate(places) if places else np.empty(0, dtype=np.int64))


def span_ranges(found: Located, messages: Messages, span: Span, *, where: str = "the chat") -> Ranges:
    """A span that counts in the contents joined by newlines, as ranges of the rendered text.

    A span over two messages becomes two ranges.

    Raises:
        LayerprobeError: the template leaves some of its characters out, white space apart.
    """
    if span is None:
        return []
    places: list[np.ndarray] = []
    base = 0
    for index, message in enumerate(messages):
        inside = base
        for leaf in (one for one in found.leaves if one.message == index and one.field == "content"):
            low, high = max(span[0] - inside, 0), min(span[1] - inside, len(leaf.text))
            if low < high:
                seen = found.within(leaf, low, high)
                present = set((found.source[seen] - leaf.start).tolist())
                lost = [c for c in range(low, high) if c not in present and not leaf.text[c].isspace()]
                if lost:
                    raise LayerprobeError(
                        f"{where}: the chat template leaves out {leaf.text[lost[0] : lost[-1] + 1][:40]!r} "
                        f"of its span {span} (message {index}, {message['role']}): leave the prompt out"
                    )
                places.append(seen)
            inside += len(leaf.text)
        base += len(content_text(message)) + 1
    return _ranges(np.concatenate(places) if places else np.empty(0, dtype=np.int64))


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
