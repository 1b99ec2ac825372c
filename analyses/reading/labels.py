"""Reading a label: which rows have it, whether it makes classes or values, what its classes are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..statistics.row_order import canonical_order

KINDS = ("binary", "multinomial", "regression")
GRADES = 5
"""From so many whole numbers on a label is more likely graded than a name for classes."""


def label_list(store: ActivationStore, label: Any) -> list[Any]:
    """The labels of one call: a list of names is several, everything else is one.

    Raises:
        LayerprobeError: no label, or names among which some are no columns.
    """
    if not isinstance(label, (list, tuple)) or not all(isinstance(one, str) for one in label):
        return [label]
    if not label:
        raise LayerprobeError(f"label={label!r} names nothing; pass one of: {_columns(store)}")
    unknown = [one for one in label if one not in store.label_names]
    if len(unknown) == len(label) == store.n_rows:
        return [label]  # one value per row, none of which happens to be a column
    if unknown:
        raise LayerprobeError(
            f"label={list(label)!r}: {', '.join(map(repr, unknown))} "
            f"{'is not a column' if len(unknown) == 1 else 'are no columns'} of this store; its label "
            f"columns: {_columns(store)}"
        )
    return list(dict.fromkeys(label))


def kind_of(kind: Any, label: Any, labels: Sequence[Any]) -> str | None:
    """What `kind=` says of one label: one word for all of them, or a word by label.

    Raises:
        LayerprobeError: neither, or labels that are not in this call.
    """
    if not isinstance(kind, dict):
        _check_kind(kind)
        return kind
    strangers = [name for name in kind if not any(isinstance(one, str) and one == name for one in labels)]
    if strangers:
        raise LayerprobeError(
            f"kind={kind!r} speaks of {', '.join(map(repr, strangers))}, not among the labels of this call: "
            f"{', '.join(str(one) for one in labels if isinstance(one, str)) or 'an array'}"
        )
    found = kind.get(label) if isinstance(label, str) else None
    _check_kind(found)
    return found


def _check_kind(kind: Any) -> None:
    if kind is not None and kind not in KINDS:
        raise LayerprobeError(
            f"kind={kind!r}, expected {', '.join(map(repr, KINDS))}, a dict {{label: kind}}, or None to read "
            "it off the values"
        )


def label_values(store: ActivationStore, label: str | ArrayLike) -> tuple[str, NDArray[Any]]:
    """Name and [rows] values of a label."""
    if isinstance(label, str):
        if label not in store.label_names:
            raise LayerprobeError(
                f"label={label!r} is not a column of this store; its label columns: {_columns(store)}"
            )
        return label, np.asarray(store.labels(label))
    values = np.asarray(label)
    if values.shape != (store.n_rows,):
        raise LayerprobeError(
            f"label has shape {values.shape}, expected one value for each of the {store.n_rows} rows of "
            f"the store; pass an array of that length or the name of a label column: {_columns(store)}"
        )
    return "label", values


def _columns(store: ActivationStore) -> str:
    return ", ".join(store.label_names) or "none"


def read_kind(name: str, values: NDArray[Any]) -> tuple[str, tuple[str, ...]]:
    """The task that values make, and a note where they could be meant otherwise."""
    distinct = pd.unique(values)
    n_classes = len(distinct)
    if values.dtype.kind == "f" and (n_classes > 10 or not np.all(values == np.round(values))):
        return "regression", ()
    if graded(values) and n_classes >= GRADES:
        return "multinomial", (
            f"{name!r} has {n_classes} whole numbers, taken as names of classes; if they are grades, pass "
            "kind='regression'.",
        )
    return "binary" if n_classes <= 2 else "multinomial", ()


def graded(values: NDArray[Any]) -> bool:
    """Whether values are numbers, not words or truth values."""
    return values.dtype.kind in "iuf" or (
        values.dtype.kind == "O" and all(isinstance(value, (int, float, np.number)) for value in values)
    )


def encode(name: str, values: NDArray[Any], kind: str, positive: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
    """[rows] class codes and the names of the classes, or values and none.

    Raises:
        LayerprobeError: nothing to tell apart, infinite values, or too many classes for the kind.
    """
    if not len(values):
        raise LayerprobeError(
            f"0 rows selected: no row of the store is left with a value of {name!r}; select others"
        )
    _check_infinite(name, values)
    if kind == "regression":
        return _numbers(name, values, positive), ()
    texts, classes = _class_names(values)
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
    if kind == "multinomial" and len(classes) == 2:
        raise LayerprobeError(
            f"label {name!r} has two classes ({', '.join(map(repr, classes))}) and kind='multinomial' is for "
            "three or more; leave kind= out, or pass kind='binary'"
        )
    if positive is not None:
        wanted = class_name(positive)
        if isinstance(positive, (bool, np.bool_)) and wanted not in classes:
            wanted = str(int(positive))  # truth values with gaps are stored as 1, 0 and NaN
        if wanted not in classes or len(classes) > 2:
            raise LayerprobeError(
                f"positive={positive!r} is not one of the two classes of {name!r}: {classes}"
            )
        classes = [*(c for c in classes if c != wanted), wanted]
    return _codes(texts, classes), tuple(classes)


def _class_names(values: NDArray[Any]) -> tuple[NDArray[Any], list[str]]:
    """[rows] name of each row's class, and the classes: numbers first, in their order, then words.

    "1" and "1.0" are two names of one number; their spelling, not a process's hash seed, says which is first.
    """
    texts = np.array([class_name(value) for value in values], dtype=object)
    return texts, sorted(
        set(texts), key=lambda text: (not _is_number(text), float(text) if _is_number(text) else 0.0, text)
    )


def _codes(texts: NDArray[Any], classes: Sequence[str]) -> NDArray[np.int64]:
    code = {text: index for index, text in enumerate(classes)}
    return np.array([code[text] for text in texts], dtype=np.int64)


def missing(values: ArrayLike) -> NDArray[np.bool_]:
    """[rows] where a label has no value: None, NaN or pandas' NA, in columns of words as of numbers."""
    return np.asarray(pd.isna(np.asarray(values)), dtype=bool)


@dataclass(frozen=True)
class Labelled:
    """The rows of a store that have a label, and the class of each."""

    name: str
    """The label's column."""
    rows: NDArray[np.int64]
    """Store rows, in the order of their ids: nothing depends on the order in the store."""
    codes: NDArray[np.int64]
    """[rows] class of each, 0 … K − 1."""
    classes: tuple[str, ...]
    """Names of the classes."""
    dropped: int
    """Rows without a value."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a result should say of the rows without a value."""
        return (left_out_note(self.dropped, self.name),) if self.dropped else ()


def left_out_note(count: int, name: str) -> str:
    """For rows without a value of a label."""
    return f"{count} rows without a value of {name!r} were left out."


def read_classes(
    store: ActivationStore, label: str | ArrayLike, *, which: NDArray[np.bool_] | None = None, least: int = 2
) -> Labelled:
    """Read a label as names of classes; rows without a value are left out.

    Args:
        store: an activation store.
        label: name of a label column, or one value per row.
        which: [store rows] rows to look at; default: all.
        least: classes that there must be.

    Raises:
        LayerprobeError: unknown column, or fewer classes.
    """
    name, values = label_values(store, label)
    gaps = missing(values)
    have = ~gaps if which is None else ~gaps & which
    rows = np.flatnonzero(have)
    rows = rows[canonical_order(store, rows)]
    texts, classes = _class_names(values[rows])
    if len(classes) < least:
        raise LayerprobeError(
            f"label {name!r} has {len(classes)} classes ({', '.join(map(repr, classes)) or 'no values'}) in "
            f"{len(rows)} rows, expected {least} or more clusters; check the label column"
        )
    dropped = int((gaps if which is None else gaps & which).sum())
    return Labelled(name, rows, _codes(texts, classes), tuple(classes), dropped)


def _numbers(name: str, values: NDArray[Any], positive: Any) -> NDArray[np.float64]:
    try:
        y = values.astype(np.float64)
    except (TypeError, ValueError):
        raise LayerprobeError(
            f"label {name!r} has values that are no numbers; regression needs numbers"
        ) from None
    if positive is not None:
        raise LayerprobeError(f"positive={positive!r} names a class, and {name!r} is graded: leave it out")
    if len(y) < 3 or np.ptp(y) == 0:
        raise LayerprobeError(f"label {name!r} has the same value in every row; there is nothing to predict")
    return y


def _check_infinite(name: str, values: NDArray[Any]) -> None:
    if not graded(values):
        return
    bad = ~np.isfinite(values.astype(np.float64))
    if bad.any():
        raise LayerprobeError(
            f"label {name!r} is infinite in {int(bad.sum())} of {len(values)} rows; clip those values, or "
            "set them to None to leave the rows out"
        )


def class_name(value: Any) -> str:
    """Name of a class; whole numbers have no decimals, whether or not gaps made them floats."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text))
    except ValueError:
        return False
