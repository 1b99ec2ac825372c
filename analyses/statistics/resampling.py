"""Who may be split from whom: groups, grouped folds, cluster bootstrap, group-wise permutation.

Rows that belong together (paraphrases of one item, both members of a contrastive pair, tokens of one prompt)
are one *group*. Every fold, bootstrap draw and permutation below moves whole groups, because with 200 prompts
in five paraphrases and *random* labels, shuffled folds report an AUROC of 0.998.

All functions depend on group *codes*, and those that `resolve_groups` gives on neither the order of the rows
nor the groups' names, so that shuffling a store or renaming its groups changes nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from .group_codes import group_codes
from .intervals import (
    benjamini_hochberg,
    bootstrap_interval,
    exact_binomial_bound,
    max_t,
    permutation_p,
)
from .relabelling import group_permutations, label_structure, permute_unit
from .row_order import by_first_row, canonical_order
from .same_prompts import join_same, same_prompts

__all__ = [
    "STORED",
    "benjamini_hochberg",
    "bootstrap_interval",
    "check_finite",
    "cluster_bootstrap_weights",
    "exact_binomial_bound",
    "group_codes",
    "group_permutations",
    "grouped_folds",
    "label_structure",
    "max_t",
    "permutation_p",
    "permute_unit",
    "resolve_groups",
    "split_half",
]


class _Stored:
    """The default of every `groups=`: the groups that the store was captured with."""

    def __repr__(self) -> str:
        return "STORED"


STORED: Any = _Stored()


def resolve_groups(store: ActivationStore, groups: Any = STORED) -> NDArray[np.int64]:
    """One integer per row saying which rows must stay together.

    Args:
        store: an activation store.
        groups: `STORED` (what the store was captured with), the name of a label column, an array with one
            entry per row, or `None`, said aloud: every prompt is a group of its own.

    Returns:
        [rows] codes 0 … n_groups − 1, in the order of the groups' first ids, so that neither the order of the
        rows nor the groups' names decide who is drawn. Groups that hold the same prompt are one, whatever was
        given (`same_prompts`).

    Raises:
        LayerprobeError: the store has no groups, no such column, or the array has another length.
    """
    joined = join_same(given_groups(store, groups), same_prompts(store))
    return by_first_row(joined, canonical_order(store))


def given_groups(store: ActivationStore, groups: Any = STORED) -> NDArray[np.int64]:
    """The same as they were given, rows of one prompt in as many groups as they were put."""
    return group_codes(group_values(store, groups))


def group_values(store: ActivationStore, groups: Any = STORED) -> NDArray[Any]:
    """[rows] what tells the groups apart, as `resolve_groups` takes it."""
    values = np.asarray(_named_groups(store, groups))
    without = int(pd.isna(values).sum()) if values.shape == (store.n_rows,) else 0
    if without:
        raise LayerprobeError(
            f"{without} of {store.n_rows} rows have no group, the first in row "
            f"{int(np.flatnonzero(pd.isna(values))[0])}; give every row one, leave those rows out "
            "(store.select), or pass groups=None to treat each prompt as its own group"
        )
    if values.shape != (store.n_rows,):
        raise LayerprobeError(
            f"groups has shape {values.shape}, expected one entry for each of the {store.n_rows} rows; "
            "pass an array of that length or the name of a label column"
        )
    return values


def _named_groups(store: ActivationStore, groups: Any) -> Any:
    if groups is STORED:
        if store.groups is None:
            raise LayerprobeError(
                "this store has no groups, and without them paraphrases of one item may sit on both sides "
                'of a split; pass groups="COLUMN" (rows that belong together), or groups=None to treat '
                "each prompt as its own group"
            )
        return store.groups
    if groups is None:
        return store.examples if store.ids is None else store.ids
    if isinstance(groups, str):
        if groups not in store.label_names:
            known = ", ".join(store.label_names) or "none"
            raise LayerprobeError(
                f"groups={groups!r} is not a column of this store (it has {known}); name one of them, "
                "pass an array with one entry per row, or groups=None"
            )
        return store.labels(groups)
    return groups


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
    [0, 0, 1, 1, 1, 1, 0, 0]
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
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_groups)
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    share = counts / counts.sum(axis=0)
    filled = np.zeros((n_folds, counts.shape[1]))
    sizes = np.zeros(n_folds)
    fold_of_group = np.empty(n_groups, dtype=np.int64)
    for group in order:
        # sum of squares is smallest where the group's classes are rarest; ties go to the smaller fold, and
        # else to any: rare classes must not pile up in the folds of low number
        cost = 2 * filled @ share[group]
        fold = int(np.lexsort((rng.permutation(n_folds), sizes, np.round(cost, 9)))[0])
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
    rows: Sequence[int] | NDArray[np.int64] | None = None,
) -> None:
    """Stop at NaN or infinity, naming site, layer and the first example.

    Args:
        values: [rows, …] activations.
        site: named in the error.
        layer: named in the error.
        ids: [rows] names of the examples.
        rows: [rows] where they lie in the store; default: in this order.

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
    row = first if rows is None else int(rows[first])
    name = f"row {row}" if ids is None else f"example {str(ids[first])!r} (row {row})"
    place = site if layer is None else f"{site}[{layer}]"
    raise LayerprobeError(
        f"{place} has NaN or infinite values in {int(bad.sum())} of {len(values)} rows, first in {name}; "
        "capture in float32 or bfloat16 (float16 overflows at 65,504), or leave those prompts out"
    )
