"""The nearest word to one that is not known, for every message that answers a misspelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one most like it, or None where none is.

    >>> nearest("lable", ["label", "layers"]), nearest("zzz", ["label"])
    ('label', None)
    """
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)), None)


def suggest(word: str, known: Iterable[str], *, shown: Iterable[str] | None = None) -> str:
    """The nearest, and what there is.

    >>> suggest("lable", ["label", "layers"])
    "did you mean 'label'? (choose from label, layers)"
    """
    known = list(known)
    near, listed = nearest(word, known), list(known if shown is None else shown)
    choices = f"choose from {', '.join(listed)}" if listed else "there are none"
    return f"did you mean {near!r}? ({choices})" if near else choices
