"""What is to be predicted: the task that a label makes, its rows in canonical order, who is held out."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..statistics.held_out_split import held_out_rows
from ..statistics.resampling import given_groups, group_codes, grouped_folds, label_structure, resolve_groups
from ..statistics.row_order import canonical_order
from .labels import GRADES, encode, kind_of, label_values, left_out_note, missing, read_kind


@dataclass(frozen=True)
class Task:
    """A label on the rows of a store, and how they are split."""

    name: str
    """The label's column."""
    kind: str
    """`binary`, `multinomial` or `regression`."""
    rows: NDArray[np.int64]
    """Store rows used, in the order of their ids, so that nothing depends on the order in the store."""
    y: NDArray[Any]
    """[rows] class codes, or values."""
    classes: tuple[str, ...]
    """Names of the classes; the second is the positive one of two."""
    groups: NDArray[np.int64]
    """[rows] group of each."""
    test: NDArray[np.bool_]
    """[rows] True for rows of held-out groups, which no fit, no choice and no scaling sees."""
    fold: NDArray[np.int64]
    """[rows] inner fold of training rows; −1 for held-out ones."""
    structure: str
    """`between`, `within` or `mixed`: how the label lies in the groups."""
    dropped: int
    """Rows left out because they have no label."""
    notes: tuple[str, ...] = ()
    """What was taken for granted in reading the label, for the reader of the result."""

    @property
    def train(self) -> NDArray[np.bool_]:
        """[rows] True for the rows that fits see."""
        return ~self.test

    def keep(self, rows: NDArray[np.bool_]) -> "Task":
        """The same task on some of its rows; folds are renumbered so that none is empty."""
        fold = self.fold[rows].copy()
        if (fold >= 0).any():
            fold[fold >= 0] = np.unique(fold[fold >= 0], return_inverse=True)[1]
        return replace(
            self,
            rows=self.rows[rows],
            y=self.y[rows],
            groups=self.groups[rows],
            test=self.test[rows],
            fold=fold,
        )

    @property
    def n_classes(self) -> int:
        """Number of classes; 0 for regression."""
        return len(self.classes)


def make_task(
    store: ActivationStore,
    label: str | ArrayLike,
    *,
    groups: Any,
    held_out: float | str | ArrayLike | None,
    n_folds: int,
    seed: int,
    positive: str | None = None,
    kind: str | dict[str, str] | None = None,
) -> Task:
    """Read a label from a store and split its rows.

    Args:
        store: an activation store.
        label: name of a label column, or one value per row.
        groups: as `resolve_groups`.
        held_out: share of the groups that is held out, the name of a value of the store's split column, or a
            boolean per row; `None` holds nothing out and divides nothing (for analyses that draw folds of
            their own, `n_folds` of them).
        n_folds: inner folds over the other groups.
        seed: of the splits.
        positive: which of two classes is the positive one; default: the second in sorted order.
        kind: `binary`, `multinomial` or `regression`; default: read off the values.

    Raises:
        LayerprobeError: unknown column, one class, too few groups, a group on both sides of the split.
    """
    kind = kind_of(kind, label, [label])
    name, values = label_values(store, label)
    codes = resolve_groups(store, groups)
    joined = int(given_groups(store, groups).max(initial=0)) - int(codes.max(initial=0))
    rows = np.flatnonzero(~missing(values))
    rows = rows[canonical_order(store, rows)]
    kind, notes = (kind, ()) if kind else read_kind(name, values[rows])
    y, classes = encode(name, values[rows], kind, positive)
    if len(rows) < len(values):
        notes = (*notes, left_out_note(len(values) - len(rows), name))
    said = f"{joined} groups hold the same prompts as others and count as one with them."
    notes = (*notes, said) if joined else notes
    g = group_codes(codes[rows])
    test, fold = np.zeros(len(rows), dtype=bool), np.full(len(rows), -1)
    try:
        if held_out is None:
            what = f"each of {n_folds} folds needs one (n_folds= may be as low as 4)"
            _check_classes(name, y, classes, g, n_folds, what)
        else:
            test = _held_out(store, rows, g, y, classes, name, held_out, n_folds, seed)
            fold[~test] = grouped_folds(g[~test], y[~test], n_folds=n_folds, seed=seed + 1)
    except LayerprobeError as error:
        if not joined:
            raise
        raise LayerprobeError(f"{error} ({said})") from error
    return Task(
        name=name,
        kind=kind,
        rows=rows,
        y=y,
        classes=classes,
        groups=g,
        test=test,
        fold=fold,
        structure=label_structure(y, g),
        dropped=len(values) - len(rows),
        notes=notes,
    )


def _held_out(
    store: ActivationStore,
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    y: NDArray[Any],
    classes: Any,
    name: str,
    held_out: Any,
    n_folds: int,
    seed: int,
) -> NDArray[np.bool_]:
    """[rows] True where held out."""
    if isinstance(held_out, str):
        if store.splits is None:
            raise LayerprobeError(
                f"held_out={held_out!r} needs a split column, and this store has none; "
                "pass a share such as held_out=0.3, or capture with split="
            )
        names = np.asarray(store.splits)[rows]
        test = names == held_out
        if not test.any() or test.all():
            raise LayerprobeError(
                f"held_out={held_out!r} is not one of several splits: {sorted(set(map(str, names)))}"
            )
    elif np.ndim(held_out) == 0:
        share = float(held_out)
        if not 0 < share < 1:
            raise LayerprobeError(
                f"held_out={held_out!r}, expected a share between 0 and 1, a split's name or an array"
            )
        what = "one of them must be held out and two be trained on"
        _check_classes(name, y, classes, groups, 3, what)
        return _random_share(groups, y if classes else None, share, n_folds, seed)
    else:
        values = np.asarray(held_out)
        if values.shape != (store.n_rows,) or values.dtype != bool:
            raise LayerprobeError(
                f"held_out has shape {values.shape} and type {values.dtype}, expected one boolean for "
                f"each of the {store.n_rows} rows"
            )
        test = values[rows]
    both = np.intersect1d(groups[test], groups[~test])
    if len(both):
        raise LayerprobeError(
            f"{len(both)} groups have rows on both sides of the held-out split, so what is learnt from "
            "one half leaks into the other; move whole groups, or pass a groups column that follows the "
            "split"
        )
    _check_sides(name, y, classes, groups, test)
    return test


def _random_share(
    groups: NDArray[np.int64], y: NDArray[Any] | None, share: float, n_folds: int, seed: int
) -> NDArray[np.bool_]:
    n_groups = int(groups.max()) + 1
    if n_groups < n_folds + 2:
        raise LayerprobeError(
            f"{n_groups} groups cannot fill {n_folds} folds and a held-out set; pass "
            f"n_folds={max(2, n_groups - 2)} or fewer, or a finer groups column"
        )
    test = held_out_rows(groups, y, share, seed)
    left = len(np.unique(groups[~test]))
    if left < n_folds:
        raise LayerprobeError(
            f"held_out={share:g} of {n_groups} groups leaves {left} to train on, which cannot fill "
            f"n_folds={n_folds}; pass a smaller held_out= (0.3 is usual)"
        )
    return test


def _check_classes(
    name: str, y: NDArray[Any], classes: tuple[str, ...], groups: NDArray[np.int64], least: int, what: str
) -> None:
    """Refuse a class that too few groups have, before anything is split."""
    for code, text in enumerate(classes):
        have = len(np.unique(groups[y == code]))
        if have < least:
            raise LayerprobeError(
                f"class {text!r} of label {name!r} lives in {_groups(have)} of {int(groups.max()) + 1}, and "
                f"{what}; add groups with that class, leave its rows out (rows without a value are left "
                "out), or pass a finer groups column" + _graded_advice(classes)
            )


def _check_sides(
    name: str, y: NDArray[Any], classes: tuple[str, ...], groups: NDArray[np.int64], test: NDArray[np.bool_]
) -> None:
    """Refuse a split that leaves a class nothing to be scored on, or too little to be learnt from."""
    for code, text in enumerate(classes):
        all_of_it, held_out = (len(np.unique(groups[rows & (y == code)])) for rows in (test | True, test))
        for side, have, least in (("held out", held_out, 1), ("in training", all_of_it - held_out, 2)):
            if have < least:
                raise LayerprobeError(
                    f"of {_groups(all_of_it)} with class {text!r} of label {name!r} {have} "
                    f"{'is' if have == 1 else 'are'} {side}, where {least} must be; move groups with that "
                    "class, or pass another held_out="
                )


def _groups(n: int) -> str:
    return f"{n} group" if n == 1 else f"{n} groups"


def _graded_advice(classes: tuple[str, ...]) -> str:
    numbers = len(classes) >= GRADES and all(text.lstrip("-").isdigit() for text in classes)
    return "; if the numbers are grades, pass kind='regression'" if numbers else ""
