"""Where the parts of a chat lie in the text that its template made: found by rendering and comparing.

The contents are rendered once more with a character of its own for each of theirs. Where that text, read back
character by character, is the real one, every character in it is known to come from one place of one message,
or to be the template's. Nothing is guessed: a chat whose text cannot be read back is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ...hooks.errors import LayerprobeError
from .cells import Messages, Span, content_text
from .origins import (
    Leaf,
    Ranges,
    Render,
    _check_once,
    _fill,
    _Finer,
    _leaves,
    _levels,
    _ranges,
    _runs,
    _trace,
)


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
