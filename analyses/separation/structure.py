"""Measures of one set of rows that look at no label: dimension, rank, anisotropy, clusters, projection."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]


def two_nn(x: Rows, *, discard: float = 0.1) -> float:
    """Intrinsic dimension from the ratio of second to first neighbour distances (Facco et al. 2017).

    −log(1 − F(μ)) = d · log μ, fitted through the origin without the largest ratios; rows with a duplicate
    say nothing and are left out. NaN where fewer than 10 rows remain.

    Args:
        x: [rows, width].
        discard: share of the largest ratios left out.

    >>> rng = np.random.default_rng(0)
    >>> plane = rng.uniform(size=(800, 2)) @ rng.normal(size=(2, 30))
    >>> bool(1.8 < two_nn(plane) < 2.3)
    True
    """
    from sklearn.neighbors import NearestNeighbors

    rows = np.unique(np.asarray(x, dtype=np.float64), axis=0)
    if len(rows) < 10:
        return float("nan")
    away = NearestNeighbors(n_neighbors=3).fit(rows).kneighbors(rows)[0]
    away = away[away[:, 1] > 0]
    ratio = np.sort(np.log(away[:, 2] / away[:, 1]))
    share = np.arange(1, len(ratio) + 1) / len(ratio)
    kept = slice(0, int(len(ratio) * (1 - discard)))
    return float((ratio[kept] @ -np.log1p(-share[kept])) / (ratio[kept] @ ratio[kept]))


def effective_rank(x: Rows) -> float:
    """exp(entropy) of the covariance eigenvalues: how many directions the variance is spread over (Roy &
    Vetterli 2007).

    >>> effective_rank(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])).__round__(6)
    2.0
    """
    share = spectrum(x)
    share = share[share > 0] / share.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def participation_ratio(x: Rows) -> float:
    """(Σλ)² / Σλ² of the covariance eigenvalues."""
    values = spectrum(x)
    return float(values.sum() ** 2 / (values**2).sum())


def spectrum(x: Rows) -> NDArray[np.float64]:
    """Covariance eigenvalues, largest first, from the smaller Gram matrix."""
    centred = np.asarray(x, dtype=np.float64) - np.asarray(x, dtype=np.float64).mean(axis=0)
    gram = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    return np.clip(np.linalg.eigvalsh(gram)[::-1], 0, None) / len(centred)


def anisotropy(x: Rows) -> float:
    """Mean cosine between different rows, 0 for directions spread evenly (Ethayarajh 1909.00512).

    Exact over all pairs, from the length of the mean unit vector.

    >>> anisotropy(np.array([[1.0, 0], [2, 0], [5, 0]]))
    1.0
    """
    rows = np.asarray(x, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1)
    unit = rows[norms > 0] / norms[norms > 0, None]
    n = len(unit)
    return float(((unit.sum(axis=0) ** 2).sum() - n) / (n * (n - 1)))


def principal_scores(x: Rows, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[rows, n] coordinates on the first principal axes, and their share of the variance.

    Signs are fixed so that each axis' largest coordinate is positive.
    """
    centred = np.asarray(x, dtype=np.float64) - np.asarray(x, dtype=np.float64).mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores = left[:, :n] * singular[:n]
    scores *= np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])])
    return scores, singular[:n] ** 2 / (singular**2).sum()


def clusters(x: Rows, k: int, method: str, seed: int) -> NDArray[np.int64]:
    """[rows] clusters found without labels: `kmeans`, or `gmm` (diagonal Gaussians on 20 principal axes).

    Starts are drawn from the rows in an order of their values, so that the order given decides nothing.
    """
    order = np.lexsort(np.asarray(x).T[::-1])
    found = np.empty(len(x), dtype=np.int64)
    found[order] = _clusters(np.asarray(x, dtype=np.float64)[order], k, method, seed)
    return found


def _clusters(x: NDArray[np.float64], k: int, method: str, seed: int) -> NDArray[np.int64]:
    if method == "kmeans":
        from sklearn.cluster import KMeans

        return np.asarray(KMeans(k, n_init=5, random_state=seed).fit_predict(x))
    from sklearn.mixture import GaussianMixture

    scores, _ = principal_scores(x, min(20, x.shape[1], len(x) - 1))
    mixture = GaussianMixture(k, covariance_type="diag", n_init=2, random_state=seed, reg_covar=1e-4)
    return np.asarray(mixture.fit_predict(scores / scores.std()))
