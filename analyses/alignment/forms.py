"""The Alignment Quality Index of labelled rows: the sound form, the paper's, and the released code's.

With two hard clusters of n₁ + n₂ = n rows, Xie-Beni and Calinski-Harabasz are one number:

    CHI = n₁ n₂ (n − 2) / (n² · XBI)

so the published sum λ/XBI + (1 − λ)·CHI grows with n. The default here is n₁ n₂ / (n² · XBI), the ratio of
the variance between the clusters to that within; it does not.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..separation.indices import cluster_indices

VARIANTS = ("default", "paper", "released")


def quality(
    xie_beni: NDArray[np.float64],
    sizes: NDArray[np.float64],
    *,
    variant: str = "default",
    balance: float = 0.5,
) -> NDArray[np.float64]:
    """AQI from Xie-Beni of two clusters.

    Args:
        xie_beni: […] values.
        sizes: [2, …] rows (or bootstrap weight) per cluster.
        variant: `default`: n₁n₂ / (n²·XBI); `paper`: λ/XBI + (1 − λ)·CHI.
        balance: λ.

    >>> float(quality(np.array(0.5), np.array([50.0, 50.0])))
    0.5
    >>> float(quality(np.array(0.5), np.array([50.0, 50.0]), variant="paper"))
    25.5
    """
    n = sizes.sum(axis=0)
    with np.errstate(divide="ignore"):
        ratio = sizes[0] * sizes[1] / (n**2 * xie_beni)
        if variant == "default":
            return ratio
        return balance / xie_beni + (1 - balance) * ratio * (n - 2)


def released_quality(
    layer: NDArray[np.floating],
    labels: NDArray[np.int64],
    axes: Mapping[str, NDArray[np.bool_]],
    *,
    balance: float = 0.5,
    seed: int = 42,
) -> dict[str, dict[str, float]]:
    """The released code's figures: 3-D t-SNE of one layer per axis, indices there, scores scaled within the
    model.

    Provided so that published figures can be recognised. It pools no layers; t-SNE does not keep distances
    (clusters moved further apart have come out closer); and since scores are scaled between the categories of
    one model, two models cannot be compared by them.

    Args:
        layer: [rows, width] of the last layer.
        labels: [rows] 0 or 1.
        axes: name -> [rows] rows of that axis; `overall` is added.
        balance: weight of the scaled Calinski-Harabasz.
        seed: of t-SNE.
    """
    found = {}
    for name, rows in {**axes, "overall": np.ones(len(labels), dtype=bool)}.items():
        if rows.sum() < 6 or len(np.unique(labels[rows])) < 2:
            continue
        most = 50.0 if name == "overall" else 30.0
        shown = _tsne(np.asarray(layer[rows], dtype=np.float64), most, seed)
        found[name] = cluster_indices(shown, labels[rows], names=("calinski_harabasz", "xie_beni"))
    return scaled_within_model(found, balance=balance)


def _tsne(x: NDArray[np.float64], most: float, seed: int) -> NDArray[np.float64]:
    from sklearn.manifold import TSNE

    perplexity = min(most, max(5.0, float(len(x) - 2)))
    perplexity = min(
        perplexity, len(x) - 1
    )  # scikit-learn refuses what the released code asks for below 7 rows
    reducer = TSNE(
        n_components=3,
        random_state=seed,
        perplexity=perplexity,
        max_iter=500,
        init="pca",
        learning_rate="auto",
    )
    return np.asarray(reducer.fit_transform(x), dtype=np.float64)


def scaled_within_model(
    found: Mapping[str, Mapping[str, float]], *, balance: float = 0.5
) -> dict[str, dict[str, float]]:
    """Calinski-Harabasz to 0 … 100 by the smallest and largest category; Xie-Beni by a sigmoid around the
    median in units of the interquartile range, at least 10; their weighted mean is the released AQI.

    With a single category the result is 50 whatever the model.

    >>> scaled_within_model({"overall": {"calinski_harabasz": 900.0, "xie_beni": 0.1}})["overall"]["aqi"]
    50.0
    """
    chi = np.array([one["calinski_harabasz"] for one in found.values()])
    xbi = np.array([one["xie_beni"] for one in found.values()])
    if not len(chi):
        return {}
    spread = chi.max() - chi.min()
    width = float(np.subtract(*np.percentile(xbi, [75, 25]))) + 1e-9
    scores = {}
    for name, one in found.items():
        chi_score = 50.0 if spread < 1e-9 else 100 * (one["calinski_harabasz"] - chi.min()) / spread
        z = float(np.clip((one["xie_beni"] - np.median(xbi)) / width, -500, 500))
        xbi_score = max(10.0, 100 * (1 - 1 / (1 + math.exp(-z))))
        value = balance * chi_score + (1 - balance) * xbi_score
        scores[name] = {**one, "aqi": value}
    return scores


def quality_of(x: Any, labels: Any, *, variant: str = "default", balance: float = 0.5) -> float:
    """AQI of one set of rows in two clusters.

    >>> quality_of([[0.0], [2.0], [10.0], [12.0]], [0, 0, 1, 1])
    25.0
    """
    sizes = np.unique(np.asarray(labels), return_counts=True)[1].astype(np.float64)
    xb = cluster_indices(x, labels, names=("xie_beni",))["xie_beni"]
    return float(quality(np.asarray(xb), sizes, variant=variant, balance=balance))
