"""Names of groups or classes as integers."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def group_codes(groups: ArrayLike) -> NDArray[np.int64]:
    """Integer codes 0 … n − 1 of any array of names, in sorted order."""
    values = np.asarray(groups)
    if values.dtype == object:
        values = np.array([str(value) for value in values])
    return np.unique(values, return_inverse=True)[1].reshape(len(values)).astype(np.int64)
