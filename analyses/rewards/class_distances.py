"""How far each row lies from the classes of each dimension."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ..probes.problem import Floats
from ..reading.labels import class_name, read_kind


def cluster_distances(
    store: ActivationStore, names: Sequence[str], x: Floats, fit: NDArray[np.bool_]
) -> pd.DataFrame:
    """[rows × dimensions × classes] distance to class means, in root-mean-square standard deviations.

    Means and spread come from the rows of `fit` that have a label; the nearest class and by how much it is
    nearer say which side of which dimension an example lies on. Grades count as thirds: low, middle, high.
    """
    scale = x[fit].std(axis=0)
    z = (x - x[fit].mean(axis=0)) / np.where(scale > 0, scale, 1)
    parts = []
    for name in names:
        labels = _as_classes(np.asarray(store.labels(name)), fit)
        for value in pd.unique(labels[fit & ~pd.isna(labels)]):
            centre = z[fit & (labels == value)].mean(axis=0)
            distance = np.sqrt(((z - centre) ** 2).mean(axis=1))
            parts.append(
                pd.DataFrame(
                    {
                        "id": store.ids,
                        "dimension": name,
                        "class": str(value),
                        "distance": distance,
                        "fitted": fit,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _as_classes(labels: NDArray[Any], fit: NDArray[np.bool_]) -> NDArray[Any]:
    """[rows] class names, `None` where there is no label."""
    known = ~pd.isna(labels)
    out = np.full(len(labels), None, dtype=object)
    if read_kind("", labels[known])[0] == "regression":
        values = labels.astype(np.float64)
        edges = np.quantile(values[fit & known], [1 / 3, 2 / 3])
        thirds = np.array(["low", "middle", "high"], dtype=object)
        out[known] = thirds[np.searchsorted(edges, values[known], side="right")]
    else:
        out[known] = [class_name(value) for value in labels[known]]
    return out
