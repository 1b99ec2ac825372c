"""Prompts of two classes matched by their words, and how well words alone tell the classes apart."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.resampling import group_codes, grouped_folds

WORD = r"(?u)\b\w+\b"
"""One letter is a word too."""


def match_by_words(
    texts: Sequence[str],
    codes: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    *,
    min_similarity: float = 0.1,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """One-to-one pairs of prompts of two classes with the most words in common.

    Groups of several prompts get one partner each, and prompts are matched between partners only: pairs of
    other partners then have no group in common, so that classes can be swapped in one and not in another.

    Args:
        texts: [prompts].
        codes: [prompts] 0 or 1.
        groups: [prompts] prompts of one group are never matched; None: each prompt by itself.
        min_similarity: tf-idf cosine below which a pair is dropped.

    Returns:
        [pairs, 2] prompt of class 0 and of class 1, [pairs] their similarity, and [pairs] which partners
        they are of, counted from 0.

    >>> texts = ["kill a process", "bake bread", "kill a man", "bake a bomb"]
    >>> pairs, _, partners = match_by_words(texts, np.array([0, 0, 1, 1]))
    >>> pairs.tolist(), partners.tolist()
    ([[0, 2], [1, 3]], [0, 1])
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.feature_extraction.text import TfidfVectorizer

    if not any(re.search(WORD, text) for text in texts):
        raise LayerprobeError(
            "the texts hold no words, so prompts cannot be matched by them; topic_control needs texts= with "
            "letters or digits"
        )
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=WORD).fit_transform(texts)
    first, second = np.flatnonzero(codes == 0), np.flatnonzero(codes == 1)
    similarity = (vectors[first] @ vectors[second].T).toarray()
    keys = group_codes(np.arange(len(texts)) if groups is None else groups)
    of_first, of_second = keys[first], keys[second]
    pairs, alike, partners = [], [], []
    for number, (one, other) in enumerate(_partners(similarity, of_first, of_second)):
        rows = np.flatnonzero((of_first == one) | (of_first == other))
        columns = np.flatnonzero((of_second == one) | (of_second == other))
        same = of_first[rows][:, None] == of_second[columns]
        block = np.where(same, -1.0, similarity[np.ix_(rows, columns)])
        for i, j in zip(*linear_sum_assignment(-block), strict=True):
            if block[i, j] >= min_similarity:
                pairs.append((first[rows[i]], second[columns[j]]))
                alike.append(block[i, j])
                partners.append(number)
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    order = np.argsort(found[:, 0], kind="stable")
    kept = np.array(partners, dtype=np.int64)[order]
    return found[order], np.array(alike)[order], np.unique(kept, return_inverse=True)[1]


def _partners(
    similarity: NDArray[np.float64], of_first: NDArray[np.int64], of_second: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """Disjoint pairs of groups, alike in words: the best total where groups have one class, else greedily."""
    from scipy.optimize import linear_sum_assignment

    n = 1 + int(max(of_first.max(), of_second.max()))
    total, counts = np.zeros((n, n)), np.zeros((n, n))
    np.add.at(total, (of_first[:, None], of_second[None]), similarity)
    np.add.at(counts, (of_first[:, None], of_second[None]), 1)
    mean = np.divide(total, counts, out=np.zeros((n, n)), where=counts > 0)
    ones, others = np.unique(of_first), np.unique(of_second)
    if not set(ones) & set(others):
        i, j = linear_sum_assignment(-mean[np.ix_(ones, others)])
        return list(zip(ones[i].tolist(), others[j].tolist(), strict=True))
    both = np.triu(mean + mean.T, 1)
    found, free = [], np.ones(n, dtype=bool)
    for flat in np.argsort(-both, axis=None, kind="stable"):
        one, other = divmod(int(flat), n)
        if one < other and free[one] and free[other] and counts[one, other] + counts[other, one]:
            found.append((one, other))
            free[[one, other]] = False
    return found


def words_auroc(
    texts: Sequence[str], codes: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> float:
    """How well words alone tell the classes apart: AUROC of tf-idf logistic regression, 5 grouped folds."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline

    folds = grouped_folds(groups, codes, n_folds=5, seed=seed)
    words = np.asarray(texts, dtype=object)
    scores = []
    for fold in range(5):
        out = folds == fold
        model = make_pipeline(
            TfidfVectorizer(sublinear_tf=True, token_pattern=WORD), LogisticRegression(C=10, max_iter=1000)
        )
        model.fit(words[~out], codes[~out])
        scores.append(roc_auc_score(codes[out], model.predict_proba(words[out])[:, 1]))
    return float(np.mean(scores))
