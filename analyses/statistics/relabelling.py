"""Relabelling by group: the labels as they might have fallen had they nothing to do with the rows."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from .group_codes import group_codes


def label_structure(labels: ArrayLike, groups: ArrayLike) -> str:
    """`between` (constant in every group), `within` (varying in every group) or `mixed`."""
    codes = group_codes(groups)
    varies = _varies(np.asarray(labels), codes)
    if not varies.any():
        return "between"
    return "within" if varies.all() else "mixed"


def _varies(labels: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[groups] whether labels differ within a group."""
    values = labels.reshape(len(codes), -1)
    varies = np.zeros(int(codes.max()) + 1, dtype=bool)
    first = np.full(int(codes.max()) + 1, -1)
    first[codes[::-1]] = np.arange(len(codes))[::-1]
    np.logical_or.at(varies, codes, (values != values[first[codes]]).any(axis=1))
    return varies


def free_groups(labels: ArrayLike, groups: ArrayLike) -> tuple[int, int]:
    """How many groups hold labels that differ, so that exchanging within them changes something, and of how
    many.

    >>> free_groups([0, 1, 1, 1], ["a", "a", "b", "b"])
    (1, 2)
    """
    varies = _varies(np.asarray(labels), group_codes(groups))
    return int(varies.sum()), len(varies)


def permute_unit(permute: str) -> str:
    """`auto`, `between` or `within`, from what a user may call them.

    Raises:
        LayerprobeError: something else.
    """
    if permute not in ("auto", "groups", "between", "within"):
        raise LayerprobeError(
            f"permute={permute!r}, expected 'auto', 'groups' (exchange whole groups) or 'within'"
        )
    return "between" if permute == "groups" else permute


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
        how: `auto`, `groups` (exchange whole groups; also called `between`) or `within`.

    Returns:
        [n, rows] or [n, rows, targets], of the labels' dtype.

    Raises:
        LayerprobeError: labels constant in some groups and varying in others under `auto`, varying under
            `groups`, or constant in every group under `within`.
    """
    values, codes = np.asarray(labels), group_codes(groups)
    structure = label_structure(values, codes)
    how = permute_unit(how)
    if structure == "mixed" and how == "auto":
        raise LayerprobeError(
            "the label is constant within some groups and varies within others, so neither exchanging "
            "whole groups nor exchanging within groups is a fair null; leave out the groups of one "
            "kind, pass a groups column in which the label behaves one way, or name the null you mean with "
            "permute='within' (--permute within; constant groups then stay put)"
        )
    if structure != "between" and how == "between":
        raise LayerprobeError(
            "permute='groups' needs a label that is constant within every group; pass permute='within' "
            "(--permute within)"
        )
    if structure == "between" and how == "within":
        raise LayerprobeError(
            "permute='within' relabels nothing here: the label is constant within every group; pass "
            "permute='groups' (--permute groups), which exchanges whole groups"
        )
    rng = np.random.default_rng(seed)
    if structure == "between":
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
