"""Who may be split from whom: groups, grouped folds, cluster bootstrap, group-wise permutation.

Rows that belong together (paraphrases of one item, both members of a contrastive pair, tokens of one prompt)
are one *group*. Every fold, bootstrap draw and permutation below moves whole groups, because with 200 prompts
in five paraphrases and *random* labels, shuffled folds report an AUROC of 0.998.

All functions depend on the group *names*, not on the order of the rows, so that shuffling a store changes
nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..hooks.errors import LayerprobeError
from .intervals import (
    benjamini_hochberg,
    bootstrap_interval,
    exact_binomial_bound,
    max_t,
    permutation_p,
)

__all__ = [
    "STORED",
    "benjamini_hochberg",
    "bootstrap_interval",
    "check_finite",
    "cluster_bootstrap_weights",
    "exact_binomial_bound",
    "group_permutations",
    "grouped_folds",
    "max_t",
    "permutation_p",
    "resolve_groups",
    "split_half",
]


class _Stored:
    """The default of every `groups=`: the groups that the store was captured with."""

    def __repr__(self) -> str:
        return "STORED"


STORED: Any = _Stored()


def resolve_groups(store: Any, groups: Any = STORED) -> NDArray[np.int64]:
    """One integer per row saying which rows must stay together.

    Args:
        store: an activation store.
        groups: `STORED` (what the store was captured with), the name of a label column, an array with one
            entry per row, or `None`, said aloud: every prompt is a group of its own.

    Returns:
        [rows] codes 0 … n_groups − 1, in the sorted order of the groups' names.

    Raises:
        LayerprobeError: the store has no groups, no such column, or the array has another length.
    """
    if groups is STORED:
        groups = store.groups
        if groups is None:
            raise LayerprobeError(
                "this store has no groups, and without them paraphrases of one item may sit on both sides "
                'of a split; pass groups="COLUMN" (rows that belong together), or groups=None to treat '
                "each prompt as its own group"
            )
    elif groups is None:
        groups = store.examples if store.ids is None else store.ids
    elif isinstance(groups, str):
        if groups not in store.label_names:
            known = ", ".join(store.label_names) or "none"
            raise LayerprobeError(
                f"groups={groups!r} is not a column of this store (it has {known}); name one of them, "
                "pass an array with one entry per row, or groups=None"
            )
        groups = store.labels(groups)
    values = np.asarray(groups)
    if values.shape != (store.n_rows,):
        raise LayerprobeError(
            f"groups has shape {values.shape}, expected one entry for each of the {store.n_rows} rows; "
            "pass an array of that length or the name of a label column"
        )
    return group_codes(values)


def group_codes(groups: ArrayLike) -> NDArray[np.int64]:
    """Integer codes 0 … n − 1 of any array of names, in sorted order."""
    values = np.asarray(groups)
    if values.dtype == object:
        values = np.array([str(value) for value in values])
    return np.unique(values, return_inverse=True)[1].reshape(len(values)).astype(np.int64)


def grouped_folds(
    groups: ArrayLike, labels: ArrayLike | None, n_folds: int = 5, seed: int = 0
) -> NDArray[np.int64]:
    """Fold of every row, whole groups kept together and classes spread evenly.

    Groups are visited in random order, those with the most uneven classes first, each going to the fold that
    keeps class counts closest to equal (as scikit-learn's StratifiedGroupKFold does).

    Args:
        groups: [rows] group of each row.
        labels: [rows] classes to balance; `None` or floating-point values balance fold sizes only.
        n_folds: number of folds.
        seed: of the visiting order.

    Returns:
        [rows] fold index 0 … n_folds − 1. Rows with fold f are scored by what was fitted on all others.

    Raises:
        LayerprobeError: fewer groups than folds, or a class that lives in a single group.

    >>> grouped_folds([0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 0, 0, 1, 1, 1, 1], n_folds=2).tolist()
    [1, 1, 0, 0, 0, 0, 1, 1]
    """
    codes = group_codes(groups)
    n_groups = int(codes.max()) + 1 if len(codes) else 0
    if n_folds < 2:
        raise LayerprobeError(f"n_folds={n_folds}, expected 2 or more")
    if n_groups < n_folds:
        raise LayerprobeError(
            f"{n_groups} groups cannot fill {n_folds} folds; pass n_folds={max(2, n_groups)} or fewer, "
            "or a finer groups column"
        )
    classes = np.zeros(len(codes), dtype=np.int64)
    if labels is not None and np.asarray(labels).dtype.kind != "f":
        classes = group_codes(labels)
        _check_classes_span_groups(np.asarray(labels), classes, codes)
    counts = np.zeros((n_groups, int(classes.max()) + 1))
    np.add.at(counts, (codes, classes), 1)
    order = np.random.default_rng(seed).permutation(n_groups)
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    share = counts / counts.sum(axis=0)
    filled = np.zeros((n_folds, counts.shape[1]))
    sizes = np.zeros(n_folds)
    fold_of_group = np.empty(n_groups, dtype=np.int64)
    for group in order:
        # sum of squares is smallest where the group's classes are rarest; ties go to the smaller fold
        cost = 2 * filled @ share[group]
        fold = int(np.lexsort((sizes, np.round(cost, 9)))[0])
        fold_of_group[group] = fold
        filled[fold] += share[group]
        sizes[fold] += counts[group].sum()
    return fold_of_group[codes]


def _check_classes_span_groups(
    labels: NDArray[Any], classes: NDArray[np.int64], codes: NDArray[np.int64]
) -> None:
    for value in range(int(classes.max()) + 1):
        where = classes == value
        if len(np.unique(codes[where])) < 2:
            raise LayerprobeError(
                f"class {str(labels[where][0])!r} occurs in a single group, so a fold that holds it out "
                "has none to learn from; add groups with that class, drop the class, or pass a finer "
                "groups column"
            )


def cluster_bootstrap_weights(groups: ArrayLike, n_boot: int = 1000, seed: int = 0) -> NDArray[np.float32]:
    """How often each row is drawn when whole groups are resampled with replacement.

    The same seed and groups give the same weights, so layers, sites and models scored with them are paired
    draw by draw.

    Args:
        groups: [rows] group of each row.
        n_boot: number of draws.
        seed: of the draws.

    Returns:
        [n_boot, rows] multiplicities, constant within a group.
    """
    codes = group_codes(groups)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_boot)
    return drawn.astype(np.float32)[:, codes]


def label_structure(labels: ArrayLike, groups: ArrayLike) -> str:
    """`between` (constant in every group), `within` (varying in every group) or `mixed`."""
    codes = group_codes(groups)
    values = np.asarray(labels)
    values = values.reshape(len(codes), -1)
    varies = np.zeros(int(codes.max()) + 1, dtype=bool)
    first = np.full(int(codes.max()) + 1, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    np.logical_or.at(varies, codes, (values != values[first[codes]]).any(axis=1))
    if not varies.any():
        return "between"
    return "within" if varies.all() else "mixed"


def group_permutations(
    labels: ArrayLike, groups: ArrayLike, n: int = 1000, seed: int = 0, *, how: str = "auto"
) -> NDArray[Any]:
    """Labels as they might have fallen had they nothing to do with the rows.

    Labels constant within each group are exchanged between groups; labels varying within each group are
    exchanged within them. A mixture has no single exchangeable unit and is refused, unless `how` says which
    null is meant.

    Args:
        labels: [rows] or [rows, targets].
        groups: [rows] group of each row.
        n: number of permutations.
        seed: of the permutations.
        how: `auto`, `between` or `within`.

    Returns:
        [n, rows] or [n, rows, targets], of the labels' dtype.

    Raises:
        LayerprobeError: labels constant in some groups and varying in others under `auto`, or varying under
            `between`.
    """
    values, codes = np.asarray(labels), group_codes(groups)
    structure = label_structure(values, codes)
    if how not in ("auto", "between", "within"):
        raise LayerprobeError(f"how={how!r}, expected 'auto', 'between' or 'within'")
    if structure == "mixed" and how == "auto":
        raise LayerprobeError(
            "the label is constant within some groups and varies within others, so neither exchanging "
            "whole groups nor exchanging within groups is a fair null; leave out the groups of one "
            "kind, pass a groups column in which the label behaves one way, or name the null you mean with "
            "permute='within' (--permute within; constant groups then stay put)"
        )
    if structure != "between" and how == "between":
        raise LayerprobeError(
            "permute='between' needs a label that is constant within every group; pass permute='within' "
            "(--permute within)"
        )
    rng = np.random.default_rng(seed)
    if structure == "between" and how != "within":
        first = np.unique(codes, return_index=True)[1]
        of_group = values[first]
        return np.stack([of_group[rng.permutation(len(first))][codes] for _ in range(n)])
    order = np.argsort(codes, kind="stable")
    out = np.empty((n, *values.shape), dtype=values.dtype)
    for draw in range(n):
        # sorting random keys within each group is a uniform permutation of its members
        shuffled = np.lexsort((rng.random(len(codes)), codes))
        out[draw, order] = values[shuffled]
    return out


def split_half(groups: ArrayLike, seed: int = 0, *, labels: ArrayLike | None = None) -> NDArray[np.bool_]:
    """True for the rows of a random half of the groups; whatever is chosen on one half is scored on the
    other.

    >>> split_half(["a", "a", "b", "b"], seed=0).tolist()
    [True, True, False, False]
    """
    codes = group_codes(groups)
    if codes.max() < 1:
        raise LayerprobeError("one group cannot be split in halves; pass a finer groups column")
    if labels is not None:
        return grouped_folds(codes, labels, n_folds=2, seed=seed) == 0
    n_groups = int(codes.max()) + 1
    chosen = np.random.default_rng(seed).permutation(n_groups)[: n_groups // 2]
    return np.isin(codes, chosen)


def check_finite(
    values: NDArray[Any],
    *,
    site: str = "activations",
    layer: int | None = None,
    ids: Sequence[str] | NDArray[Any] | None = None,
) -> None:
    """Stop at NaN or infinity, naming site, layer and the first example.

    Args:
        values: [rows, …] activations.
        site: named in the error.
        layer: named in the error.
        ids: [rows] names of the examples.

    Raises:
        LayerprobeError: some value is not finite.
    """
    # one pass without an array of booleans: a sum is finite unless something in it is not (or it overflows)
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(values, dtype=np.float64)):
            return
    bad = ~np.isfinite(np.asarray(values, dtype=np.float64).reshape(len(values), -1)).all(axis=1)
    if not bad.any():
        return
    first = int(np.flatnonzero(bad)[0])
    name = f"row {first}" if ids is None else f"example {ids[first]!r} (row {first})"
    place = site if layer is None else f"{site}[{layer}]"
    raise LayerprobeError(
        f"{place} has NaN or infinite values in {int(bad.sum())} of {len(values)} rows, first in {name}; "
        "capture in float32 or bfloat16 (float16 overflows at 65,504), or leave those prompts out"
    )
