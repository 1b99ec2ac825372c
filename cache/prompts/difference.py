"""In what two prompt tables differ, in words: a hash says only that they do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .columns import GENERATED_COLUMNS, PromptColumns
from .table import PromptTable


def prompt_difference(held: PromptColumns, table: PromptTable) -> str:
    """What a file's prompts and a table differ in, the texts first.

    Args:
        held: the columns of the file.
        table: what is asked for.
    """
    if len(held) != len(table):
        return f"{len(held):,} in the file, {len(table):,} asked for"
    found = []
    # what a model wrote after its prompts is held with them
    written = [name for name in GENERATED_COLUMNS if name in held.labels and name not in table.labels]
    labels = {name: values for name, values in held.labels.items() if name not in written}
    # chats, and texts put into a template, are held as they were rendered: not compared here
    plain = not table.chat and held.texts is not None
    if plain:
        changed = [
            row
            for row, text in enumerate(held.texts or ())
            if text != table.prompts[row] and not (written and text.startswith(str(table.prompts[row])))
        ]
        if changed:
            found.append(f"texts of {len(changed):,}, first {table.ids[changed[0]]!r}")
    ours = {"ids": np.array(table.ids, dtype=object), **_keys(table)}
    theirs = {"ids": held.ids, **_keys(held)}
    found += [f"{name} ({how})" for name, how in _changed(theirs, ours)]
    found += [f"label {name!r} ({how})" for name, how in _changed(labels, table.labels)]
    if not found:
        return "the texts, or their spans"
    if plain and not changed and all(part.startswith("label ") for part in found):
        found.append(
            "the texts are the same, so these activations serve: from_arrays({site: store.activations(site), "
            "...}, labels={...}) puts other labels on them"
        )
    return "; ".join(found)


def _keys(columns: PromptColumns | PromptTable) -> dict[str, np.ndarray]:
    named = {"groups": columns.groups, "pairs": columns.pairs, "splits": columns.splits}
    return {name: values for name, values in named.items() if values is not None}


def _changed(theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """(column, what differs) of every column that is not the same in both."""
    found = []
    for name in dict.fromkeys([*theirs, *ours]):
        if name not in theirs or name not in ours:
            found.append((name, "only in the file" if name in theirs else "only asked for"))
            continue
        count = sum(str(a) != str(b) for a, b in zip(theirs[name], ours[name], strict=True))
        if count:
            found.append((name, f"differs in {count:,} of {len(ours[name]):,}"))
    return found
