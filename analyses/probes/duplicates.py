"""Near-duplicate prompts that sit in different groups: what grouping should have kept together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ..reading.task import Task
from ..statistics.group_codes import group_codes

MAX_PROMPTS = 50_000
SIMILARITY = 0.8
WORDS = 3

Pairs = NDArray[np.int64]


def near_duplicates(
    texts: Sequence[str], groups: ArrayLike, *, similarity: float = SIMILARITY, words: int = WORDS
) -> Pairs:
    """Pairs of texts in different groups that share most of their word sequences.

    Similarity is Jaccard's, of the sets of runs of `words` words. Exact, and yet not every pair is compared:
    two sets this alike share one of their rarest runs (prefix filtering: Bayardo, Ma & Srikant 2007).

    Args:
        texts: one per prompt.
        groups: [prompts].
        similarity: from which pairs are reported, above 0 to 1.
        words: length of a run.

    Returns:
        [pairs, 2] indices of texts.

    >>> texts = ["the cat sat on the mat", "the cat sat on the mat !", "a dog ran"]
    >>> near_duplicates(texts, [0, 1, 2], similarity=0.7)
    array([[0, 1]])
    """
    has = _runs(texts, words)
    sizes = np.diff(has.indptr)
    rare = _rarest(has, sizes - np.ceil(similarity * sizes - 1e-9).astype(np.int64) + 1)
    codes = group_codes(groups)
    found = []
    for start in range(0, len(texts), 500):  # blocks, so that candidates never fill a prompts × prompts array
        candidates = (rare[start : start + 500] @ rare.T).tocoo()
        i, j = candidates.row + start, candidates.col
        likely = (i < j) & (codes[i] != codes[j])
        likely &= np.minimum(sizes[i], sizes[j]) >= similarity * np.maximum(sizes[i], sizes[j]) - 1e-9
        i, j = i[likely], j[likely]
        for part in range(0, len(i), 100_000):
            a, b = i[part : part + 100_000], j[part : part + 100_000]
            shared = np.asarray(has[a].multiply(has[b]).sum(axis=1)).ravel()
            alike = shared >= similarity * (sizes[a] + sizes[b] - shared) - 1e-9
            found.append(np.stack([a[alike], b[alike]], axis=1))
    pairs = np.concatenate(found).astype(np.int64) if found else np.empty((0, 2), dtype=np.int64)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _runs(texts: Sequence[str], words: int) -> Any:
    """[texts, runs] sparse, 1 where a text has a run of words; columns from rare to common."""
    from scipy.sparse import csr_matrix

    from .baselines import words_of

    number: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        tokens = words_of(text)
        runs = {tuple(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))}
        columns += [number.setdefault(run, len(number)) for run in runs]
        rows += [row] * len(runs)
    count = np.bincount(columns, minlength=len(number))
    rank = np.empty(len(count), dtype=np.int64)
    rank[np.argsort(count, kind="stable")] = np.arange(len(count))
    entries = (np.ones(len(rows), np.float32), (rows, rank[columns] if len(rows) else columns))
    has = csr_matrix(entries, shape=(len(texts), len(number)))
    has.sort_indices()
    return has


def _rarest(has: Any, count: NDArray[np.int64]) -> Any:
    """Only the first `count` entries of every row."""
    from scipy.sparse import csr_matrix

    row = np.repeat(np.arange(has.shape[0]), np.diff(has.indptr))
    kept = np.arange(has.nnz) - has.indptr[row] < count[row]
    return csr_matrix((has.data[kept], (row[kept], has.indices[kept])), shape=has.shape)


def near_duplicate_notes(store: ActivationStore, tasks: Sequence[Task]) -> list[str]:
    """A warning per label whose split has near-duplicates on both sides; which label, where there are
    several."""
    found = [(task.name, near_duplicate_note(store, task)) for task in tasks]
    if len(tasks) == 1:
        return [note for _, note in found if note]
    return [f"{name}: {note}" for name, note in found if note]


def near_duplicate_note(store: ActivationStore, task: Task) -> str | None:
    """A warning where near-duplicates lie on both sides of the held-out split, or of the inner folds.

    A task without a split (its rows are all scored in turn) has them wherever groups differ.
    """
    if store.texts is None:
        return None
    examples, first = np.unique(np.asarray(store.examples)[task.rows], return_index=True)
    if len(examples) > MAX_PROMPTS:
        return f"Near-duplicate prompts were not looked for: {len(examples)} prompts, limit {MAX_PROMPTS}."
    texts = [store.texts[example] for example in examples]
    pairs = near_duplicates(texts, task.groups[first])
    if not len(pairs):
        return None
    test, fold = task.test[first], task.fold[first]
    one, other = pairs.T
    across = pairs[test[one] != test[other]]
    inside = pairs[~test[one] & ~test[other] & ((fold[one] != fold[other]) | (fold[one] < 0))]
    if len(across):
        touched = len(np.unique(np.where(test[across[:, 0]], across[:, 0], across[:, 1])))
        of_all = f"{touched} of {int(test.sum())} held-out prompts"
        what = f"{of_all} are near-duplicates ({_HOW}) of training prompts"
    elif len(inside):
        across = inside
        where = "in other folds" if (fold >= 0).any() else "that may fall into other folds"
        count = len(np.unique(inside))
        what = f"{count} of {int((~test).sum())} prompts are near-duplicates ({_HOW}) of prompts {where}"
    else:
        return None
    a, b = _differing(texts[across[0, 0]], texts[across[0, 1]])
    return (
        f"{what} in other groups, such as {a!r} and {b!r}: if they are variants of one item, give them one "
        "group, for what is learnt from one is scored on the other."
    )


_HOW = "80 % of their word triples"


def alike_between(seen: Sequence[str], scored: Sequence[str]) -> Pairs:
    """[pairs, 2] indices of a text seen and a near-duplicate of it that is scored; the same text is none."""
    known = set(seen)
    new = [index for index, text in enumerate(scored) if text not in known]
    unique = list(dict.fromkeys(seen))
    texts = [*unique, *(scored[index] for index in new)]
    if not new or not unique or len(texts) > MAX_PROMPTS:
        return np.empty((0, 2), dtype=np.int64)
    pairs = near_duplicates(texts, np.arange(len(texts)))
    pairs = pairs[(pairs[:, 0] < len(unique)) & (pairs[:, 1] >= len(unique))]
    return np.stack([pairs[:, 0], np.asarray(new)[pairs[:, 1] - len(unique)]], axis=1)


def _differing(one: str, other: str) -> tuple[str, str]:
    """Two texts cut to where they differ."""
    flat, also = " ".join(one.split()), " ".join(other.split())
    length = min(len(flat), len(also))
    start = next((i for i in range(length) if flat[i] != also[i]), length)
    begin = 0 if max(len(flat), len(also)) <= 70 else max(0, start - 30)
    return _short(flat, begin), _short(also, begin)


def _short(flat: str, begin: int) -> str:
    cut = flat[begin : begin + 70]
    return ("…" if begin else "") + cut + ("…" if begin + 70 < len(flat) else "")
