"""What a label can be told from without a model: its majority class, the words of the prompt, the prompt's
length.

A probe that does not beat these has found the prompt, not a representation.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ..reading.device import on_device
from ..reading.task import Task
from ..statistics.metrics import Predicted
from .fit import fit_layer
from .methods import METHODS
from .problem import Floats

MAX_WORDS = 5000


@dataclass(frozen=True)
class Baselines:
    """Predictions of every baseline for every row of a task; held-out rows by fits on training rows alone."""

    predicted: dict[str, Predicted]
    """`majority`, `text` where the store keeps texts, `length` where it knows lengths."""
    missing: tuple[str, ...]
    """Why a baseline is absent."""


def fit_baselines(
    store: ActivationStore,
    task: Task,
    *,
    words: bool = True,
    class_weight: str | None = None,
    device: torch.device | None = None,
) -> Baselines:
    """Fit the baselines of a task.

    Args:
        store: for texts and lengths.
        task: labels and splits.
        words: whether to fit the bag of words.
        class_weight: as the probe's, for what is weighed differently is not to be compared.
        device: that the bag of words is fitted on.
    """
    predicted = {"majority": majority(task)}
    missing = []
    texts = store.texts
    if not words:
        missing.append("bag of words: switched off")
    elif texts is None:
        missing.append("bag of words: the store keeps no texts (pass texts= to from_arrays)")
    else:
        examples = np.asarray(store.examples)[task.rows]
        predicted["text"] = bag_of_words(
            [texts[example] for example in examples], task, class_weight=class_weight, device=device
        )
    lengths = store.lengths
    if lengths is None:
        missing.append("prompt length: the store has no lengths (pass lengths= to from_arrays)")
    else:
        predicted["length"] = prompt_length(np.asarray(lengths)[task.rows], task, class_weight=class_weight)
    return Baselines(predicted, tuple(missing))


def majority(task: Task) -> Predicted:
    """The training rows' class shares (or mean) for every row."""
    seen = task.y[task.train]
    if task.kind == "regression":
        return Predicted(np.full(len(task.y), float(np.mean(seen))))
    share = np.bincount(seen, minlength=task.n_classes) / len(seen)
    if task.kind == "binary":
        constant = np.full(len(task.y), share[1])
        return Predicted(np.zeros(len(task.y)), constant)
    return Predicted(
        np.zeros((len(task.y), task.n_classes)) + np.log(share), np.tile(share, (len(task.y), 1))
    )


def words_of(text: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def word_features(texts: Sequence[str], train: NDArray[np.bool_]) -> Floats:
    """[rows, words] presence of each word that at least two training texts have.

    Args:
        texts: one per row.
        train: rows whose words make the vocabulary.
    """
    unique = {text: set(words_of(text)) for text in dict.fromkeys(texts)}
    counts = Counter(word for text, seen in zip(texts, train, strict=True) if seen for word in unique[text])
    common = sorted((word for word, n in counts.items() if n >= 2), key=lambda word: (-counts[word], word))
    column = {word: index for index, word in enumerate(common[:MAX_WORDS])}
    features = np.zeros((len(texts), max(1, len(column))))
    for row, text in enumerate(texts):
        features[row, [column[word] for word in unique[text] if word in column]] = 1
    return features


def bag_of_words(
    texts: Sequence[str],
    task: Task,
    *,
    class_weight: str | None = None,
    device: torch.device | None = None,
) -> Predicted:
    """Logistic (for numbers: ridge) regression on the words a text has, strength chosen inside the fold."""
    return _fitted(word_features(texts, task.train), task, class_weight, device)


def prompt_length(lengths: NDArray[Any], task: Task, *, class_weight: str | None = None) -> Predicted:
    """The same on the prompt's length in tokens, its square and its logarithm."""
    return _fitted(length_features(lengths), task, class_weight)


def length_features(lengths: NDArray[Any]) -> Floats:
    """[rows, 3] length, its square and its logarithm."""
    n = np.asarray(lengths, dtype=np.float64)
    return np.stack([n, n**2, np.log1p(n)], axis=1)


def _fitted(
    features: Floats, task: Task, class_weight: str | None, device: torch.device | None = None
) -> Predicted:
    method = METHODS["ridge" if task.kind == "regression" else "logistic"]
    varying = np.ptp(features[task.train], axis=0) > 0
    if not varying.any():
        return majority(task)
    x = on_device(features[:, varying], device)
    return fit_layer(x, task, method, strengths=method.strengths, class_weight=class_weight).predicted
