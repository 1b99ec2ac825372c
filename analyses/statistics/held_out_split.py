"""Which groups are held out: a random share of them, and on average the same share of every class."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from .resampling import group_codes

TRAINING_GROUPS = 2
"""Groups of every class that training needs: one to be left out by an inner fold and one to learn from."""


def held_out_rows(
    groups: ArrayLike, classes: ArrayLike | None, share: float, seed: int = 0
) -> NDArray[np.bool_]:
    """Draw whole groups so that each has the probability `share` of being held out.

    Systematic sampling: groups are put in order of the class they matter to most, in random order among
    equals, and every (1 / share)-th is taken from a random start. Each class's held-out groups are then
    within one of its share, and exactly its share on average, however rare the class is. Only where that
    would leave a class without a held-out group, or with fewer than two to train on, is a group moved.

    Args:
        groups: [rows] group of each row.
        classes: [rows] class codes to balance; `None` for values.
        share: of the groups, between 0 and 1.
        seed: of the draw.

    Returns:
        [rows] True where held out.

    Raises:
        LayerprobeError: no draw can leave every class groups on both sides.

    >>> held_out_rows(range(10), [0] * 5 + [1] * 5, 0.4).reshape(2, 5).sum(axis=1).tolist()
    [2, 2]
    """
    codes = group_codes(groups)
    counts = _counts(codes, classes)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    relative = counts / counts.sum(axis=0)
    leading = relative.argmax(axis=1)
    weight = relative[np.arange(len(counts)), leading]
    order = order[np.lexsort((counts[order].sum(axis=1), -weight[order], leading[order]))]
    steps = np.floor(np.arange(len(counts) + 1) * share + rng.random())
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[order] = np.diff(steps) > 0
    _leave_both_sides(chosen, counts > 0, rng)
    return chosen[codes]


def _counts(codes: NDArray[np.int64], classes: ArrayLike | None) -> NDArray[np.float64]:
    """[groups, classes] rows, classes in an order that does not depend on their names."""
    of_row = np.zeros(len(codes), dtype=np.int64) if classes is None else group_codes(classes)
    counts = np.zeros((int(codes.max()) + 1, int(of_row.max()) + 1))
    np.add.at(counts, (codes, of_row), 1)
    return counts[:, np.lexsort(counts[::-1])]


def _leave_both_sides(chosen: NDArray[np.bool_], has: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Move groups, in place, until every class has one held out and enough to train on."""
    rarest_first = np.argsort(has.sum(axis=0), kind="stable")
    for _ in range(10):  # with groups that hold several classes one class's move may undo another's
        moved = False
        for mine in has.T[rarest_first]:
            if not (chosen & mine).any():
                chosen[rng.choice(np.flatnonzero(mine))] = moved = True
            elif (~chosen & mine).sum() < TRAINING_GROUPS and (chosen & mine).sum() > 1:
                chosen[rng.choice(np.flatnonzero(chosen & mine))] = False
                moved = True
        if not moved:
            break
    kept = (~chosen[:, None] & has).sum(axis=0)
    if (kept < TRAINING_GROUPS).any() or not (chosen[:, None] & has).any(axis=0).all():
        raise LayerprobeError(
            "no draw of groups leaves every class one group to hold out and two to train on; add groups of "
            "the rare classes, leave such a class out, or name the split yourself with held_out="
        )
