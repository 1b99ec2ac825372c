"""How alike two sets of activations of the same rows are: pure functions on arrays.

Linear CKA comes debiased by default: the plain one is 0.83-0.89 for independent noise of common shapes. All
take [rows, width] with rows matched; widths may differ except where said.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.group_codes import group_codes

Floats = NDArray[np.float64]
LEAST_GROUPS = 4
"""From so many groups on a similarity of pairs can be debiased."""


def _pair(x: ArrayLike, y: ArrayLike, least: int = 4) -> tuple[Floats, Floats]:
    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if one.ndim != 2 or two.ndim != 2 or len(one) != len(two):
        raise LayerprobeError(
            f"arrays of shape {one.shape} and {two.shape}: expected [rows, width] of the same rows"
        )
    if len(one) < least:
        raise LayerprobeError(f"{len(one)} rows are too few to compare; give at least {least}")
    return one, two


def zscore(x: ArrayLike) -> Floats:
    """Every dimension at mean 0 and standard deviation 1; constant ones become 0."""
    values = np.asarray(x, dtype=np.float64)
    spread = values.std(axis=0)
    return (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _unbiased_hsic(k: Floats, m: Floats, groups: NDArray[np.int64]) -> float:
    """Up to a factor, unbiased HSIC over pairs of rows in different groups.

    k is replaced by the nearest matrix that is zero within groups and whose rows sum to zero; what is left of
    constants and of effects of single rows is then nothing. With one row per group this is Song et al. 2012
    (JMLR 13), equation 5. As an inner product of such matrices it keeps CKA between −1 and 1.

    Args:
        k: [rows, rows] zero within groups, symmetric.
        m: the same of the other.
        groups: [rows] codes 0 … G − 1.
    """
    return float(np.einsum("ij,ij->", k, m) - 2 * _row_effects(k.sum(axis=1), groups) @ m.sum(axis=1))


def _row_effects(sums: Floats, groups: NDArray[np.int64]) -> Floats:
    """[rows] u for which k − (u 1ᵀ + 1 uᵀ), zero within groups, has rows that sum to zero."""
    size = np.bincount(groups).astype(np.float64)
    n, of_group = float(size.sum()), np.bincount(groups, sums)
    # per group: V (n − 2s) + s U = R, where V is the sum of u over its rows and U over all
    if (n - 2 * size == 0).any():
        system = np.diag(n - 2 * size) + size[:, None]
        total = np.linalg.lstsq(system, of_group, rcond=None)[0]
        everything = float(total.sum())
    else:
        everything = float((of_group / (n - 2 * size)).sum() / (1 + (size / (n - 2 * size)).sum()))
        total = (of_group - size * everything) / (n - 2 * size)
    return np.asarray((sums - everything + total[groups]) / (n - size[groups]))


def _hollow(x: Floats) -> Floats:
    gram = x @ x.T
    np.fill_diagonal(gram, 0.0)
    return gram


def cka_debiased(x: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> float:
    """Linear CKA from unbiased HSIC: around 0 for unrelated features whatever their width, 1 for equal ones.

    Kornblith et al. 2019 (1905.00414) with the estimator of Song et al. 2012, as in Nguyen et al. 2021
    (2010.15327). Pairs of rows of one group (paraphrases of an item) leave every sum: they are alike in both
    sets of features, and three to a group would give independent features a CKA of 0.31.

    Args:
        x: [rows, width].
        y: [rows, other width].
        groups: [rows] rows that belong together; default: each row its own. Fewer than 4 groups give NaN.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(50, 200))
    >>> round(cka_debiased(x, 3 * x + 1), 6), abs(cka_debiased(x, rng.normal(size=(50, 200)))) < 0.1
    (1.0, True)
    """
    one, two = _pair(x, y)
    k, m = _hollow(one - one.mean(axis=0)), _hollow(two - two.mean(axis=0))
    return cka_of_grams(k, m, groups)


def cka_of_grams(k: Floats, m: Floats, groups: ArrayLike | None = None) -> float:
    """Debiased CKA of two Gram matrices with zero diagonals; `groups` as `cka_debiased`."""
    codes = np.arange(len(k)) if groups is None else group_codes(groups)
    if len(np.unique(codes)) < LEAST_GROUPS:
        return float("nan")
    if groups is not None:
        apart = codes[:, None] != codes
        k, m = k * apart, m * apart
    own, other = _unbiased_hsic(k, k, codes), _unbiased_hsic(m, m, codes)
    if not (own > 0 and other > 0):
        return float("nan")
    return float(np.clip(_unbiased_hsic(k, m, codes) / np.sqrt(own * other), -1, 1))


def exchanged_groups(
    groups: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of one set and the rows of the other that they meet when whole groups are exchanged.

    Groups keep their rows' order; where two that meet differ in size, the larger one's last rows sit out.

    Args:
        groups: [rows] codes 0 … G − 1.
        rng: of the permutation.
    """
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    met = rng.permutation(len(members))
    sizes = [min(len(members[own]), len(members[other])) for own, other in enumerate(met)]
    own = [members[group][:size] for group, size in enumerate(sizes)]
    return np.concatenate(own), np.concatenate(
        [members[other][:size] for other, size in zip(met, sizes, strict=True)]
    )


def cka_biased(x: ArrayLike, y: ArrayLike) -> float:
    """The plain linear CKA, for comparison with published figures; far from 0 on noise when width ≥ rows."""
    one, two = _pair(x, y)
    one, two = one - one.mean(axis=0), two - two.mean(axis=0)
    return float(np.sum((two.T @ one) ** 2) / (np.linalg.norm(one.T @ one) * np.linalg.norm(two.T @ two)))


def procrustes_r2(x: ArrayLike, y: ArrayLike, train: NDArray[np.bool_]) -> float:
    """Share of held-out variance of y explained by a rotation and a scale of x, fitted on the training rows.

    Args:
        x: [rows, width].
        y: [rows, width]; the narrower is padded with zeros.
        train: [rows] true where the map may be fitted; the rest is scored.

    Returns:
        1 − residual / variance around the training mean; below 0 where the map is worse than that mean.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(60, 5)); turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    >>> round(procrustes_r2(x, 2 * x @ turn + 1, np.arange(60) < 30), 6)
    1.0
    """
    residual, total = procrustes_residuals(x, y, train)
    return float(1 - residual.sum() / total.sum())


def procrustes_residuals(x: ArrayLike, y: ArrayLike, train: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """[held-out rows] squared distance of y from the rotated, scaled x, and from the training mean."""
    one, two = _pair(x, y)
    width = max(one.shape[1], two.shape[1])
    one, two = (np.pad(v, ((0, 0), (0, width - v.shape[1]))) for v in (one, two))
    centre_x, centre_y = one[train].mean(axis=0), two[train].mean(axis=0)
    a, b = one - centre_x, two - centre_y
    u, s, vt = np.linalg.svd(a[train].T @ b[train])
    total = np.sum(a[train] ** 2)
    scale = s.sum() / total if total > 0 else 0.0
    test = ~train
    return np.sum((b[test] - scale * a[test] @ (u @ vt)) ** 2, axis=1), np.sum(b[test] ** 2, axis=1)


def dissimilarities(x: ArrayLike, kind: str = "correlation") -> Floats:
    """Upper triangle of the rows' dissimilarity matrix.

    Args:
        x: [rows, width].
        kind: `correlation` (1 − Pearson), `cosine` or `euclidean`.
    """
    from scipy.spatial.distance import pdist

    rows = np.asarray(x, dtype=np.float64)
    if kind == "correlation":
        return np.asarray(pdist(rows, "correlation"))
    if kind == "cosine":
        return np.asarray(pdist(rows, "cosine"))
    if kind == "euclidean":
        return np.asarray(pdist(rows, "euclidean"))
    raise LayerprobeError(f"kind={kind!r}, expected 'correlation', 'cosine' or 'euclidean'")


def rsa_spearman(
    x: ArrayLike, y: ArrayLike, kind: str = "correlation", *, groups: ArrayLike | None = None
) -> float:
    """Representational similarity: Spearman correlation of two dissimilarity matrices' upper triangles.

    Args:
        x: [rows, width].
        y: [rows, other width].
        kind: as `dissimilarities`.
        groups: [rows] rows that belong together, whose pairs are left out; default: each row its own. Fewer
            than 4 groups give NaN.
    """
    from scipy.stats import spearmanr

    one, two = _pair(x, y)
    first, second = dissimilarities(one, kind), dissimilarities(two, kind)
    if groups is not None:
        codes = group_codes(groups)
        if len(np.unique(codes)) < LEAST_GROUPS:
            return float("nan")
        i, j = np.triu_indices(len(codes), 1)
        first, second = first[codes[i] != codes[j]], second[codes[i] != codes[j]]
    return float(spearmanr(first, second).statistic)


def effective_rank(x: ArrayLike) -> float:
    """exp of the entropy of the normalised singular values of the centred rows (Roy & Vetterli 2007).

    >>> round(effective_rank([[1, 0], [-1, 0], [0, 1], [0, -1]]), 6)
    2.0
    """
    values = np.asarray(x, dtype=np.float64)
    values = values - values.mean(axis=0)
    gram = values @ values.T if len(values) < values.shape[1] else values.T @ values
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0.0))
    share = singular / singular.sum() if singular.sum() > 0 else singular
    share = share[share > 0]
    return float(np.exp(-np.sum(share * np.log(share))))


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of two vectors; NaN where one is zero."""
    one, two = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    scale = np.linalg.norm(one) * np.linalg.norm(two)
    return float(one @ two / scale) if scale > 0 else float("nan")


def group_jackknife(
    statistic: Callable[[NDArray[np.bool_]], ArrayLike],
    groups: NDArray[np.int64],
    *,
    n_blocks: int = 20,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[Floats, Floats, Floats]:
    """A statistic with its delete-a-block-of-groups jackknife interval.

    For statistics of *pairs* of rows (CKA, RSA, ranks): a bootstrap repeats rows, and a row is always
    like itself.

    Args:
        statistic: mask of rows -> value or array of values.
        groups: [rows] codes.
        n_blocks: blocks of whole groups, each left out once (at most the number of groups).
        seed: of the blocks.
        level: nominal coverage, by Student's t with blocks − 1 degrees of freedom.

    Returns:
        estimate, lo, hi.
    """
    return jackknife_interval(*jackknife_values(statistic, groups, n_blocks=n_blocks, seed=seed), level=level)


def jackknife_values(
    statistic: Callable[[NDArray[np.bool_]], ArrayLike],
    groups: NDArray[np.int64],
    *,
    n_blocks: int = 20,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """The statistic of all rows, and [blocks, …] of all but one; the same seed leaves out the same blocks."""
    n_groups = int(groups.max()) + 1
    blocks = min(n_blocks, n_groups)
    block = np.empty(n_groups, dtype=np.int64)
    block[np.random.default_rng(seed).permutation(n_groups)] = np.arange(n_groups) % blocks
    full = np.asarray(statistic(np.ones(len(groups), dtype=bool)), dtype=np.float64)
    return full, np.stack(
        [np.asarray(statistic(block[groups] != b), dtype=np.float64) for b in range(blocks)]
    )


def jackknife_interval(full: Floats, left: Floats, *, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Estimate, lo and hi from a statistic and its leave-a-block-out values [blocks, …]."""
    from scipy.stats import t

    blocks = len(left)
    error = np.sqrt((blocks - 1) / blocks * np.sum((left - left.mean(axis=0)) ** 2, axis=0))
    reach = t.ppf((1 + level) / 2, blocks - 1) * error
    return full, full - reach, full + reach
