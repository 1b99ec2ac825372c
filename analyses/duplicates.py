"""Near-duplicate prompts that sit in different groups: what grouping should have kept together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .linear_probe_task import Task
from .resampling import group_codes

MAX_PROMPTS = 4000


def near_duplicates(
    texts: Sequence[str], groups: ArrayLike, *, similarity: float = 0.8, words: int = 3
) -> NDArray[np.int64]:
    """Pairs of texts in different groups that share most of their word sequences.

    Similarity is Jaccard's, of the sets of runs of `words` words.

    Args:
        texts: one per prompt.
        groups: [prompts].
        similarity: from which pairs are reported, 0 to 1.
        words: length of a run.

    Returns:
        [pairs, 2] indices of texts.

    >>> texts = ["the cat sat on the mat", "the cat sat on the mat !", "a dog ran"]
    >>> near_duplicates(texts, [0, 1, 2], similarity=0.7)
    array([[0, 1]])
    """
    from scipy.sparse import csr_matrix

    from .baselines import words_of

    number: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        tokens = words_of(text)
        runs = {tuple(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))}
        columns += [number.setdefault(run, len(number)) for run in runs]
        rows += [row] * len(runs)
    has = csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(texts), len(number)))
    sizes = np.asarray(has.sum(axis=1)).ravel()
    codes = group_codes(groups)
    found = []
    for start in range(
        0, len(texts), 500
    ):  # blocks, so that shared runs never fill a prompts × prompts array
        shared = (has[start : start + 500] @ has.T).tocoo()
        i, j = shared.row + start, shared.col
        alike = shared.data >= similarity * (sizes[i] + sizes[j] - shared.data)
        kept = alike & (i < j) & (codes[i] != codes[j])
        found.append(np.stack([i[kept], j[kept]], axis=1))
    return np.concatenate(found).astype(np.int64) if found else np.empty((0, 2), dtype=np.int64)


def near_duplicate_note(store: Any, task: Task) -> str | None:
    """A warning where near-duplicates lie on both sides of the held-out split."""
    if store.texts is None:
        return None
    examples, first = np.unique(np.asarray(store.examples)[task.rows], return_index=True)
    if len(examples) > MAX_PROMPTS:
        return f"Near-duplicate prompts were not looked for: {len(examples)} prompts, limit {MAX_PROMPTS}."
    texts = [store.texts[example] for example in examples]
    pairs = near_duplicates(texts, task.groups[first])
    test = task.test[first]
    across = pairs[test[pairs[:, 0]] != test[pairs[:, 1]]] if len(pairs) else pairs
    if not len(across):
        return None
    one, other = across[0]
    touched = len(np.unique(np.where(test[across[:, 0]], across[:, 0], across[:, 1])))
    return (
        f"{touched} of {int(test.sum())} held-out prompts are near-duplicates (80 % of their word "
        f"triples) of training prompts in other groups, such as {_short(texts[one])!r} and "
        f"{_short(texts[other])!r}: if they are variants of one item, give them one group, for what is "
        "learnt from one is scored on the other."
    )


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 70 else flat[:67] + "…"
