"""What each kind of number means and cannot show: the notes that a report needs."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

NOTES = Path(__file__).parent / "templates" / "methods.toml"
ALWAYS = "groups"


def notes_for(kinds: Iterable[str]) -> list[dict[str, Any]]:
    """The notes that cover these kinds of results: text, sources, limits; the one on groups first."""
    notes = tomllib.loads(NOTES.read_text(encoding="utf-8"))
    wanted = set(kinds)
    chosen = [n for key, n in notes.items() if key == ALWAYS or wanted & set(n["covers"])]
    return [{**n, "text": " ".join(n["text"].split())} for n in chosen]
