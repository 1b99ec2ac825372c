"""What is to be predicted: the task that a label makes, its rows in canonical order, who is held out."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..hooks.errors import LayerprobeError
from .resampling import group_codes, grouped_folds, label_structure, resolve_groups


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
    store: Any,
    label: str | ArrayLike,
    *,
    groups: Any,
    held_out: float | str | ArrayLike,
    n_folds: int,
    seed: int,
    positive: str | None = None,
    kind: str | None = None,
) -> Task:
    """Read a label from a store and split its rows.

    Args:
        store: an activation store.
        label: name of a label column, or one value per row.
        groups: as `resolve_groups`.
        held_out: share of the groups that is held out, the name of a value of the store's split column, or a
            boolean per row.
        n_folds: inner folds over the other groups.
        seed: of the splits.
        positive: which of two classes is the positive one; default: the second in sorted order.
        kind: `binary`, `multinomial` or `regression`; default: read off the values.

    Raises:
        LayerprobeError: unknown column, one class, too few groups, a group on both sides of the split.
    """
    name, values = _label_values(store, label)
    codes = resolve_groups(store, groups)
    rows = np.flatnonzero(~pd.isna(values))
    rows = rows[_canonical_order(store, rows)]
    kind = kind or _kind(values[rows])
    y, classes = _encode(name, values[rows], kind, positive)
    g = group_codes(codes[rows])
    test = _held_out(store, rows, g, y if kind != "regression" else None, held_out, n_folds, seed)
    fold = np.full(len(rows), -1)
    fold[~test] = grouped_folds(g[~test], y[~test], n_folds=n_folds, seed=seed + 1)
    if kind != "regression":
        _check_classes(name, y, classes, test)
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
    )


def _label_values(store: Any, label: str | ArrayLike) -> tuple[str, NDArray[Any]]:
    if isinstance(label, str):
        if label not in store.label_names:
            known = ", ".join(store.label_names) or "none"
            raise LayerprobeError(
                f"label={label!r} is not a column of this store; its label columns: {known}"
            )
        return label, np.asarray(store.labels(label))
    values = np.asarray(label)
    if values.shape != (store.n_rows,):
        raise LayerprobeError(
            f"label has shape {values.shape}, expected one value for each of the {store.n_rows} rows of "
            "the store; pass an array of that length or the name of a label column"
        )
    return "label", values


def _canonical_order(store: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    ids = np.asarray(store.examples if store.ids is None else store.ids)[rows]
    return np.lexsort((np.asarray(store.positions)[rows], group_codes(ids)))


def _kind(values: NDArray[Any]) -> str:
    n_classes = len(pd.unique(values))
    if values.dtype.kind == "f" and (n_classes > 10 or not np.all(values == np.round(values))):
        return "regression"
    return "binary" if n_classes <= 2 else "multinomial"


def _encode(
    name: str, values: NDArray[Any], kind: str, positive: str | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    if not len(values):
        raise LayerprobeError(
            f"0 rows selected: no row of the store is left with a value of {name!r}; select others"
        )
    if kind == "regression":
        try:
            y = values.astype(np.float64)
        except ValueError:
            raise LayerprobeError(
                f"label {name!r} has values that are no numbers; regression needs numbers"
            ) from None
        if len(y) < 3 or np.ptp(y) == 0:
            raise LayerprobeError(
                f"label {name!r} has the same value in every row; there is nothing to predict"
            )
        return y, ()
    texts = np.array([str(value) for value in values], dtype=object)
    classes = sorted(
        set(texts), key=lambda text: (not _is_number(text), float(text) if _is_number(text) else text)
    )
    if len(classes) < 2:
        raise LayerprobeError(
            f"label {name!r} has one class only ({classes[0]!r}); a probe needs two: pass another label"
        )
    if len(classes) > max(20, len(texts) // 5):
        raise LayerprobeError(
            f"label {name!r} has {len(classes)} classes in {len(texts)} rows; pass a coarser label, "
            "or kind='regression' if it is a number"
        )
    if kind == "binary" and len(classes) > 2:
        raise LayerprobeError(f"label {name!r} has {len(classes)} classes; pass kind='multinomial'")
    if positive is not None:
        if str(positive) not in classes or len(classes) > 2:
            raise LayerprobeError(
                f"positive={positive!r} is not one of the two classes of {name!r}: {classes}"
            )
        classes = [*(c for c in classes if c != str(positive)), str(positive)]
    code = {text: index for index, text in enumerate(classes)}
    return np.array([code[text] for text in texts], dtype=np.int64), tuple(classes)


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False


def _held_out(store, rows, groups, y, held_out, n_folds, seed):  # type: ignore[no-untyped-def]
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
        return _random_share(groups, y, share, n_folds, seed)
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
    return test


def _random_share(groups, y, share, n_folds, seed):  # type: ignore[no-untyped-def]
    n_groups = int(groups.max()) + 1
    # many small folds, of which a share is held out: classes stay balanced as in any grouped fold
    parts = int(np.clip(min(20, n_groups // 2), 2, 20))
    if n_groups < n_folds + 2:
        raise LayerprobeError(
            f"{n_groups} groups cannot fill {n_folds} folds and a held-out set; pass "
            f"n_folds={max(2, n_groups - 2)} or fewer, or a finer groups column"
        )
    part = grouped_folds(groups, y, n_folds=parts, seed=seed)
    return part < max(1, round(share * parts))


def _check_classes(name: str, y: NDArray[Any], classes: tuple[str, ...], test: NDArray[np.bool_]) -> None:
    for code, text in enumerate(classes):
        for side, where in (("held-out", test), ("training", ~test)):
            if not (y[where] == code).any():
                raise LayerprobeError(
                    f"class {text!r} of label {name!r} does not occur in the {side} rows; add groups "
                    "with that class, drop it, or pass another held_out= or seed="
                )
