"""Per layer: how a model's activations differ from the reference's on the same prompts, labels aside."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reading.pairing import Paired
from ..statistics.bounded import bounded, null_fields
from ..statistics.resampling import (
    bootstrap_interval,
    check_finite,
    cluster_bootstrap_weights,
    group_permutations,
    max_t,
    permutation_p,
)
from .alikeness import (
    LEAST_GROUPS,
    _hollow,
    cka_of_grams,
    effective_rank,
    exchanged_groups,
    group_jackknife,
    jackknife_interval,
    jackknife_values,
    procrustes_residuals,
    rsa_spearman,
    zscore,
)

JACKKNIFE = "group jackknife, t"
BLOCKS = 10
NULL_DRAWS = 100
Floats = NDArray[np.float64]


def subsample_groups(groups: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Rows of randomly chosen whole groups, at most `most` of them (but at least 4 groups), in row order."""
    if len(groups) <= most:
        return np.arange(len(groups))
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    n = max(4, int(np.searchsorted(np.cumsum(sizes[order]), most, side="right")))
    return np.flatnonzero(np.isin(groups, order[:n]))


def geometry_rows(
    paired: Paired,
    site: str,
    layers: Mapping[str, int | None],
    groups: NDArray[np.int64],
    *,
    max_rows: int,
    n_permutations: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """CKA, Procrustes, RSA, effective rank and shift of the mean, each with a group-jackknife interval.

    CKA and RSA compare all pairs of rows: with more than `max_rows` rows they use randomly chosen whole
    groups.

    Args:
        paired: the models.
        site: compared.
        layers: by model, of the reference and of those compared with it here.
        groups: [rows] codes.
        max_rows: for what compares pairs.
        n_permutations: of the null.
        seed: of all draws.
    """
    rows = subsample_groups(groups, max_rows, seed)
    few = subsample_groups(groups, min(max_rows, 200), seed)
    values = {}
    for name, layer in layers.items():
        values[name] = paired.activations(name, site, layer)
        check_finite(values[name], site=f"{name}: {site}", layer=layer, ids=paired.ids)
    of_group = codes(groups[rows])
    ranks = {name: rank_values(v[rows], of_group, seed) for name, v in values.items()}
    deeper = any(paired.depth(name) != paired.depth(paired.reference) for name in layers)
    base, top = values[paired.reference], ranks[paired.reference]
    for name, v in values.items():
        common = {"model": name, "site": site, "ci_method": JACKKNIFE, "seed": seed}
        common |= where_of(paired, name, layers)
        if name == paired.reference and deeper:
            continue  # said with the models of its own depth
        yield {
            **common,
            **triple("effective_rank", jackknife_interval(*ranks[name])),
            "metric": "effective_rank",
            "space": "raw",
            **size(groups, rows),
        }
        if name == paired.reference:
            continue
        common["reference"] = paired.reference
        for space in ("raw", "zscored"):
            one, two = (v[rows], base[rows]) if space == "raw" else (zscore(v[rows]), zscore(base[rows]))
            yield {
                **common,
                "metric": "cka_debiased",
                "space": space,
                **size(groups, rows),
                **cka_row(one, two, groups[rows], n_permutations, seed),
            }
        yield {
            **common,
            "metric": "procrustes_r2",
            "space": "raw",
            "split": "held-out half of the groups",
            **size(groups, rows),
            **procrustes_row(base[rows], v[rows], groups[rows], n_permutations, seed),
        }
        yield {
            **common,
            "metric": "rsa_spearman",
            "space": "raw",
            **size(groups, few),
            **rsa_row(v[few], base[few], codes(groups[few]), seed),
        }
        yield {
            **common,
            "metric": "effective_rank_difference",
            "space": "raw",
            **size(groups, rows),
            **triple(
                "effective_rank_difference",
                jackknife_interval(ranks[name][0] - top[0], ranks[name][1] - top[1]),
            ),
        }
        if v.shape != base.shape:
            continue
        yield {
            **common,
            "metric": "mean_shift",
            "space": "raw",
            **size(groups, np.arange(len(groups))),
            **shift_row(v - base, base, groups, seed),
        }


def where_of(paired: Paired, name: str, layers: Mapping[str, int | None]) -> dict[str, Any]:
    """Fields that say where: the layer, and for a model of another depth which of the reference's it met."""
    own, theirs = layers[name], layers[paired.reference]
    if own is None or theirs is None or paired.depth(name) == paired.depth(paired.reference):
        return {"layer": own}
    return {"layer": own, "reference_layer": theirs, "depth": own / max(paired.depth(name) - 1, 1)}


def codes(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(groups, return_inverse=True)[1]


def size(groups: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, int]:
    return {"n": len(rows), "n_groups": len(np.unique(groups[rows]))}


def triple(metric: str, parts: tuple[Floats, Floats, Floats]) -> dict[str, float]:
    return bounded(metric, *map(float, parts))


def rank_values(x: Floats, groups: NDArray[np.int64], seed: int) -> tuple[Floats, Floats]:
    """Effective rank of all rows, and without each block of groups."""
    return jackknife_values(lambda mask: effective_rank(x[mask]), groups, n_blocks=BLOCKS, seed=seed)


def rsa_row(x: Floats, y: Floats, groups: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """RSA with its jackknife interval."""

    def similarity(mask: NDArray[np.bool_]) -> float:
        return rsa_spearman(x[mask], y[mask], groups=groups[mask])

    row = triple("rsa_spearman", group_jackknife(similarity, groups, n_blocks=BLOCKS, seed=seed))
    return row | _why(row, groups)


def _why(row: dict[str, float], groups: NDArray[np.int64]) -> dict[str, Any]:
    """A note where a similarity of pairs is not defined."""
    if not np.isnan(row["estimate"]):
        return {}
    few = len(np.unique(groups)) < LEAST_GROUPS
    return {"note": f"fewer than {LEAST_GROUPS} groups" if few else "one of the two does not vary"}


def cka_row(
    one: Floats, two: Floats, groups: NDArray[np.int64], n_permutations: int, seed: int
) -> dict[str, Any]:
    """Debiased CKA; its null pairs the groups of one model with other groups of the other."""
    k, m = _hollow(one - one.mean(axis=0)), _hollow(two - two.mean(axis=0))
    group = codes(groups)

    def similarity(mask: NDArray[np.bool_]) -> float:
        return cka_of_grams(k[np.ix_(mask, mask)], m[np.ix_(mask, mask)], group[mask])

    row = triple("cka_debiased", group_jackknife(similarity, group, n_blocks=BLOCKS, seed=seed))
    rng, null = np.random.default_rng(seed), []
    for _ in range(min(n_permutations, NULL_DRAWS)):
        own, other = exchanged_groups(group, rng)
        null.append(cka_of_grams(k[np.ix_(own, own)], m[np.ix_(other, other)], group[own]))
    return row | null_fields(null, ddof=0) | _why(row, group)


def procrustes_row(
    x: Floats, y: Floats, groups: NDArray[np.int64], n_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Held-out share of the model's variance that a rotation of the reference explains, both halves in turn.

    The interval resamples groups that the fit has not seen, with the fits held.
    """
    half = halves(groups, seed)
    residual, total = np.empty(len(x)), np.empty(len(x))
    for train in (half, ~half):
        residual[~train], total[~train] = procrustes_residuals(x, y, train)
    if not total.sum() > 0:  # the same token in the same place, before any block
        return {"estimate": float("nan"), "note": "these activations do not vary between prompts"}
    weights = cluster_bootstrap_weights(groups, n_bootstrap, seed)
    lo, hi = bootstrap_interval(1 - (weights @ residual) / (weights @ total))
    return {
        **bounded("procrustes_r2", 1 - residual.sum() / total.sum(), float(lo), float(hi)),
        "ci_method": "cluster bootstrap of held-out groups",
    }


def crossfit_norm(means: Floats) -> float:
    """Signed root of a mean vector's squared length, from two halves' means [2, width]: 0 under the null."""
    product = float(means[0] @ means[1])
    return float(np.sign(product) * np.sqrt(abs(product)))


def shift_row(difference: Floats, base: Floats, groups: NDArray[np.int64], seed: int) -> dict[str, float]:
    """Length of the mean difference over the reference's root-mean-square length around its mean."""
    half = halves(groups, seed)
    scale = np.sqrt(np.mean(np.sum((base - base.mean(axis=0)) ** 2, axis=1)))

    def length(mask: NDArray[np.bool_]) -> float:
        means = np.stack([difference[mask & side].mean(axis=0) for side in (half, ~half)])
        return crossfit_norm(means) / scale if scale > 0 else float("nan")

    return triple("mean_shift", group_jackknife(length, codes(groups), seed=seed))


def halves(groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """True for a random half of the groups."""
    of_group = codes(groups)
    n = int(of_group.max()) + 1
    return np.isin(of_group, np.random.default_rng(seed).permutation(n)[: n // 2])


def did_rows(
    differences: list[tuple[dict[str, Any], Floats, Floats]],
    labels: NDArray[np.bool_],
    groups: NDArray[np.int64],
    n_permutations: int,
    seed: int,
    permute: str = "auto",
) -> Iterator[dict[str, Any]]:
    """Difference-in-differences of class means: (μ₁ − μ₀ of the model) − (μ₁ − μ₀ of the reference).

    The estimate is its cross-fitted length over the length of the reference's own class difference; p comes
    from exchanging labels by groups, family-wise (max-T) over the layers given.

    Args:
        differences: per layer: row fields, [rows, width] model − reference, [rows, width] reference.
        labels: [rows] class 1.
        groups: [rows] codes.
        n_permutations: relabellings.
        seed: of halves and relabellings.
        permute: as `group_permutations` has `how`.
    """
    half = halves(groups, seed)
    null_labels = np.concatenate(
        [labels[None], group_permutations(labels, groups, n_permutations, seed, how=permute)]
    )
    contrast = null_labels / null_labels.sum(axis=1, keepdims=True) - ~null_labels / (~null_labels).sum(
        axis=1, keepdims=True
    )
    lengths = np.stack(
        [np.linalg.norm(contrast @ difference, axis=1) for _, difference, _ in differences], axis=1
    )
    seen, null = lengths[0], lengths[1:]
    p, family = permutation_p(seen, null), max_t(seen, null)
    for number, (fields, difference, base) in enumerate(differences):
        scale = float(np.linalg.norm(base[labels].mean(axis=0) - base[~labels].mean(axis=0))) or float("nan")

        def ratio(mask: NDArray[np.bool_], difference: Floats = difference, scale: float = scale) -> float:
            means = np.stack(
                [
                    difference[mask & side & labels].mean(axis=0)
                    - difference[mask & side & ~labels].mean(axis=0)
                    for side in (half, ~half)
                ]
            )
            return crossfit_norm(means) / scale

        yield {
            **fields,
            "metric": "class_difference_change",
            "space": "raw",
            "ci_method": JACKKNIFE,
            "seed": seed,
            "n": len(labels),
            "n_groups": int(groups.max()) + 1,
            **triple("class_difference_change", group_jackknife(ratio, groups, seed=seed)),
            "p": float(p[number]),
            "p_familywise": float(family[number]),
            **null_fields(null[:, number] / scale, ddof=0),
        }
