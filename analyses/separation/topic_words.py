"""Prompts of two classes matched by their words, and how well words alone tell the classes apart."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.resampling import grouped_folds

WORD = r"(?u)\b\w+\b"
"""One letter is a word too."""


def match_by_words(
    texts: Sequence[str], codes: NDArray[np.int64], *, min_similarity: float = 0.1
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One-to-one pairs of prompts of two classes with the most words in common.

    Args:
        texts: [prompts].
        codes: [prompts] 0 or 1.
        min_similarity: tf-idf cosine below which a pair is dropped.

    Returns:
        [pairs, 2] prompt of class 0 and of class 1, and [pairs] their similarity.

    >>> texts = ["kill a process", "bake bread", "kill a man", "bake a bomb"]
    >>> pairs, _ = match_by_words(texts, np.array([0, 0, 1, 1]))
    >>> pairs.tolist()
    [[0, 2], [1, 3]]
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
    i, j = linear_sum_assignment(-similarity)
    kept = similarity[i, j] >= min_similarity
    return np.stack([first[i[kept]], second[j[kept]]], axis=1), similarity[i[kept], j[kept]]


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
