"""Where the parts of a chat lie in the text that its template made: found by rendering and comparing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .cells import Messages, Span

Render = Callable[[Messages], str]

#: private-use characters: no prompt begins or ends with one
_MARK = "\ue0a7\ue0f3"


def content_regions(messages: Messages, render: Render) -> list[tuple[int, int] | None]:
    """The place of every message's content in the rendered text.

    Each content in turn is replaced by a mark; what differs between the two renderings is the content.
    Works for any template, with or without `{% generation %}`, and gives None for a message that the
    template leaves out.

    Args:
        messages: the chat.
        render: messages -> text.

    >>> render = lambda chat: "".join(f"<{m['role']}>{m['content'].strip()}</>" for m in chat)
    >>> content_regions([{"role": "user", "content": " Hi "}, {"role": "bot", "content": "Yo"}], render)
    [(6, 8), (16, 18)]
    """
    text = render(messages)
    found: list[tuple[int, int] | None] = []
    for index, message in enumerate(messages):
        marked = [*messages[:index], {**message, "content": _MARK}, *messages[index + 1 :]]
        other = render(marked)
        start = other.find(_MARK)
        tail = len(other) - start - len(_MARK)
        whole = (
            start >= 0
            and text[:start] == other[:start]
            and text[len(text) - tail :] == other[len(other) - tail :]
        )
        found.append((start, len(text) - tail) if whole and start <= len(text) - tail else None)
    return found


def role_regions(messages: Messages, role: str, render: Render) -> list[tuple[int, int]]:
    """Ranges of the contents that one role wrote."""
    return [
        region
        for message, region in zip(messages, content_regions(messages, render), strict=True)
        if message["role"] == role and region is not None
    ]


def map_spans(
    messages: Messages, spans: Mapping[str, Span], render: Render
) -> dict[str, Sequence[tuple[int, int]]]:
    """Spans that count in the contents joined by newlines, as ranges of the rendered text.

    A template may strip the contents; a span that reaches over two messages becomes two ranges.
    """
    text = render(messages)
    regions = content_regions(messages, render)
    out: dict[str, Sequence[tuple[int, int]]] = {}
    for name, span in spans.items():
        ranges = []
        base = 0
        for message, region in zip(messages, regions, strict=True):
            content = message["content"]
            if span is not None and region is not None:
                shift = region[0] - max(content.find(text[region[0] : region[1]]), 0)
                low = max(span[0] - base, 0) + shift
                high = min(span[1] - base, len(content)) + shift
                low, high = max(low, region[0]), min(high, region[1])
                if low < high:
                    ranges.append((low, high))
            base += len(content) + 1
        out[name] = ranges
    return out
