"""One order of rows and of groups, whatever order a store holds them in and whatever groups are called."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from .group_codes import group_codes

Codes = NDArray[np.int64]


def canonical_order(store: ActivationStore, rows: ArrayLike | None = None) -> Codes:
    """Indices that put rows in the order of their prompts, and of their positions in each.

    Whatever is seeded takes rows in this order, so that shuffling a store changes nothing. Prompts are
    ordered by their ids; where those are whole numbers, which only count rows, by what they hold: their
    texts, and where these are missing or repeat, their activations and lens readings.

    Args:
        store: an activation store.
        rows: store rows; default: all.
    """
    chosen = np.arange(store.n_rows) if rows is None else np.asarray(rows)
    ids = group_codes(store.examples if store.ids is None else store.ids)
    keys = [np.asarray(store.positions), ids]
    if store.ids is None or all(str(name).isdigit() for name in store.ids):
        named = [] if store.groups is None else [group_codes(store.groups)]  # of prompts that hold the same
        keys += [*named, *_contents(store)]
    return np.lexsort([key[chosen] for key in keys])


def _contents(store: ActivationStore) -> list[NDArray[Any]]:
    """[rows] keys of what a prompt holds, the one that decides first last."""
    examples = np.asarray(store.examples)
    used = np.unique(examples)
    if store.texts is not None:
        texts = np.array([str(text) for text in store.texts], dtype=object)
        codes = group_codes(texts)[examples]
        if len(np.unique(codes)) == len(used):
            return [codes]
        return [*_digests(store, examples), codes]
    return _digests(store, examples)


def _digests(store: ActivationStore, examples: Codes) -> list[NDArray[Any]]:
    """[rows] hash of the prompt's activations in the deepest layer of the first site of vectors, and lens."""
    sites = [site for site in store.sites if site not in ("embed", "lens")]
    held = []
    if sites:
        layers = store.layers(sites[0])
        held.append(np.asarray(store.activations(sites[0], layers[-1] if layers else None)))
    if store.lens is not None:
        held.append(np.moveaxis(np.asarray(store.lens.candidate_logits), 1, 0))
    if not held or not len(examples):
        return []
    order = np.lexsort((np.asarray(store.positions), examples))
    ends = np.flatnonzero(np.diff(examples[order])) + 1
    found = np.empty(len(examples), dtype="S16")
    for mine in np.split(order, ends):
        digest = hashlib.blake2b(digest_size=8)
        for row in mine:
            for values in held:
                digest.update(values[row].tobytes())
        found[mine] = digest.hexdigest()
    return [found]


def by_first_row(codes: ArrayLike, order: ArrayLike) -> Codes:
    """[rows] the same groups, numbered as they first occur when rows are taken in an order.

    >>> by_first_row([2, 0, 2, 1], [3, 0, 1, 2]).tolist()
    [1, 2, 1, 0]
    """
    given, taken = np.asarray(codes), np.asarray(order)
    _, first, number = np.unique(given[taken], return_index=True, return_inverse=True)
    found = np.empty(len(given), dtype=np.int64)
    found[taken] = np.argsort(np.argsort(first))[number]
    return found
