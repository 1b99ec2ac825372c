"""Rows of the same prompt stay together, whatever groups were given.

Identical prompts in two groups leak from one side of a split to the other: 50 texts in four copies with
*random* labels are told apart with an AUROC of 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .group_codes import group_codes

Codes = NDArray[np.int64]


def merge_codes(codes: ArrayLike, links: ArrayLike) -> Codes:
    """Groups joined wherever a link says that two of them are one.

    Args:
        codes: [rows] group of each row, 0 … n − 1.
        links: [links, 2] pairs of groups.

    Returns:
        [rows] 0 … m − 1, in the order of each joined group's lowest code.

    >>> merge_codes([0, 1, 2, 3], [[3, 1]]).tolist()
    [0, 1, 2, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    given, pairs = np.asarray(codes, dtype=np.int64), np.asarray(links, dtype=np.int64).reshape(-1, 2)
    if not (pairs[:, 0] != pairs[:, 1]).any():
        return given
    n = int(given.max()) + 1
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    part = connected_components(graph, directed=False)[1]
    _, first, number = np.unique(part, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return np.asarray(order[number][given], dtype=np.int64)


def join_same(codes: ArrayLike, same: ArrayLike) -> Codes:
    """Groups of [rows] joined where they hold rows of one `same` code.

    >>> join_same([0, 0, 1, 2], [7, 8, 8, 9]).tolist()
    [0, 0, 0, 1]
    """
    given = np.asarray(codes, dtype=np.int64)
    _, first, of_row = np.unique(np.asarray(same), return_index=True, return_inverse=True)
    return merge_codes(given, np.stack([given[first][of_row], given], axis=1)) if len(given) else given


def same_prompts(*stores: Any) -> Codes:
    """[rows of all stores, one after the other] codes that rows of the same prompt share.

    Prompts are the same where their texts or their token ids are; where neither was given, where all their
    activations are the same bits. What is one and the same for all prompts of several says nothing (a text
    that stands for many sampled answers, arrays of zeros), and is not looked at.

    Args:
        *stores: of one model, where there are several and none has texts.
    """
    starts = np.cumsum([0, *(len(store.columns) for store in stores)])
    prompt = np.concatenate(
        [np.asarray(store.examples) + start for store, start in zip(stores, starts[:-1], strict=True)]
    )
    codes = group_codes(prompt)
    if not len(codes):
        return codes
    written = [_texts(stores, prompt), _token_ids(stores, prompt)]
    if all(keys is None for keys in written):
        written = [_activations(stores, codes)]
    for keys in written:
        if keys is not None and keys.max(initial=0) > 0:
            codes = join_same(codes, keys)
    return codes


def _texts(stores: Sequence[Any], prompt: Codes) -> Codes | None:
    if any(store.texts is None for store in stores):
        return None
    import pandas as pd

    texts = np.array([text for store in stores for text in store.texts], dtype=object)
    return np.asarray(pd.factorize(texts)[0], dtype=np.int64)[prompt]


def _token_ids(stores: Sequence[Any], prompt: Codes) -> Codes | None:
    found = [store.token_ids() for store in stores]
    if any(ids is None for ids in found):
        return None
    import pandas as pd

    keys = np.empty(sum(map(len, found)), dtype=object)
    keys[:] = [ids.tobytes() for some in found for ids in some]
    return np.asarray(pd.factorize(keys)[0], dtype=np.int64)[prompt]


def _activations(stores: Sequence[Any], prompts: Codes) -> Codes | None:
    """[rows] code of the values of the row's whole prompt; embeddings alone know the last token only."""
    first = stores[0]
    sites = [site for site in first.sites if site not in ("embed", "lens")]
    places = [(site, layer) for site in sites for layer in (*reversed(first.layers(site)),) or (None,)]
    codes: Codes | None = None
    for site, layer in places:
        if any(site not in store.sites or layer not in (store.layers(site) or (None,)) for store in stores):
            continue
        parts = [np.asarray(store.activations(site, layer)) for store in stores]
        if len({(part.shape[1:], part.dtype) for part in parts}) > 1:
            continue
        of_prompt = _by_prompt(_bits(np.concatenate(parts)), prompts)
        codes = of_prompt if codes is None else group_codes(codes * (of_prompt.max() + 1) + of_prompt)
        if codes.max() == prompts.max():
            break
    return codes


def _bits(values: NDArray[Any]) -> Codes:
    """[rows] code of each row's bits."""
    flat = np.ascontiguousarray(values.reshape(len(values), -1))
    rows = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def _by_prompt(rows: Codes, prompts: Codes) -> Codes:
    """[rows] code of all rows of a prompt in their order, from one code per row."""
    if len(prompts) == prompts.max() + 1:
        return rows
    order = np.argsort(prompts, kind="stable")
    ends = np.cumsum(np.bincount(prompts))[:-1]
    number: dict[bytes, int] = {}
    keys = [number.setdefault(part.tobytes(), len(number)) for part in np.split(rows[order], ends)]
    return np.asarray(keys, dtype=np.int64)[prompts]
