"""One split for several stores: what is a group in one is the same group in all."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics.held_out_split import held_out_rows
from ..statistics.resampling import STORED, resolve_groups
from .task import Task


def group_names(store: Any, groups: Any) -> NDArray[np.str_]:
    """[rows] names of the groups, which mean the same in every store; as `resolve_groups` otherwise."""
    resolve_groups(store, groups)  # refuses what cannot be
    if groups is STORED:
        values = store.groups
    elif groups is None:
        values = store.examples if store.ids is None else store.ids
    else:
        values = store.labels(groups) if isinstance(groups, str) else groups
    return np.array([str(value) for value in np.asarray(values)])


def common_held_out(
    names: Mapping[str, NDArray[np.str_]], tasks: Mapping[str, Task], *, share: float, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """Which rows of every store are held out, no group being held out in one and trained on in another.

    Every class of every store has its share.

    Args:
        names: by store, [store rows] names of groups.
        tasks: by store, what is predicted from which rows.
        share: of the groups.
        seed: of the draw.
    """
    of_row = np.concatenate([names[name][task.rows] for name, task in tasks.items()])
    sort = [
        number * max(1, task.n_classes)
        + (task.y if task.n_classes else np.zeros(len(task.y), dtype=np.int64))
        for number, task in enumerate(tasks.values())
    ]
    chosen = set(of_row[held_out_rows(of_row, np.concatenate(sort), share, seed)])
    return {name: np.isin(values, sorted(chosen)) for name, values in names.items()}
