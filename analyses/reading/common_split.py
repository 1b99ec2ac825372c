"""One split for several stores: what is a group in one is the same group in all."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics.held_out_split import held_out_rows
from ..statistics.resampling import group_codes, group_values
from ..statistics.row_order import by_first_row, canonical_order
from ..statistics.same_prompts import join_same, same_prompts
from .task import Task

MOST = 0.5
"""Share of the rows that one group may hold."""


def common_groups(stores: Mapping[str, Any], groups: Any) -> dict[str, NDArray[np.int64]]:
    """By store, [rows] groups that mean the same in every store, as `resolve_groups` otherwise.

    A name stands for one group wherever it occurs, and so does a prompt. Where both together tie most rows
    into one group, because the same names mean other prompts in each store, prompts tie rows of one store
    only; what a fit on one has seen of another is then left out there.
    """
    names = [group_values(store, groups).astype(str) for store in stores.values()]
    ends = np.cumsum([len(values) for values in names])[:-1]
    starts = [0, *ends]
    named = group_codes(np.concatenate(names))
    own = np.concatenate(
        [same_prompts(store) + start for start, store in zip(starts, stores.values(), strict=True)]
    )
    within, joined = join_same(named, own), join_same(named, same_prompts(*stores.values()))
    if _largest(joined) > MOST >= _largest(within):
        joined = within
    order = [start + canonical_order(store) for start, store in zip(starts, stores.values(), strict=True)]
    codes = by_first_row(joined, np.concatenate(order))
    return dict(zip(stores, np.split(codes, ends), strict=True))


def _largest(groups: NDArray[np.int64]) -> float:
    """Share of the rows that the largest group holds."""
    return float(np.bincount(groups).max() / len(groups))


def common_held_out(
    groups: Mapping[str, NDArray[np.int64]], tasks: Mapping[str, Task], *, share: float, seed: int
) -> dict[str, NDArray[np.bool_]]:
    """Which rows of every store are held out, no group being held out in one and trained on in another.

    Every class of every store has its share.

    Args:
        groups: by store, [store rows] as `common_groups`.
        tasks: by store, what is predicted from which rows.
        share: of the groups.
        seed: of the draw.
    """
    of_row = np.concatenate([groups[name][task.rows] for name, task in tasks.items()])
    sort = [
        number * max(1, task.n_classes)
        + (task.y if task.n_classes else np.zeros(len(task.y), dtype=np.int64))
        for number, task in enumerate(tasks.values())
    ]
    chosen = set(of_row[held_out_rows(of_row, np.concatenate(sort), share, seed)])
    return {name: np.isin(values, sorted(chosen)) for name, values in groups.items()}
