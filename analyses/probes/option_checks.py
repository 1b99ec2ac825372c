"""The options of a probe analysis, checked before anything is read or fitted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.metrics import DEFAULT_METRICS, check_metric
from ..statistics.quantities import WITHIN
from ..statistics.relabelling import permute_unit
from ..statistics.resampling import STORED

CLASS_METRICS = ("auroc", "accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
OF_KIND = {
    "binary": (*CLASS_METRICS, "average_precision", "tpr_at_fpr_0.01"),
    "multinomial": CLASS_METRICS,
    "regression": ("r2", "pearson", "spearman", "kendall", "mse"),
}
"""Which metrics say something of which task."""

Metrics = str | Sequence[str] | Mapping[str, Sequence[str]] | None


@dataclass(frozen=True, kw_only=True)
class ProbePlan:
    """How a label is probed: what every probe analysis shares, checked when it is made, carried whole.

    What the fields mean is said in `linear_probe`, whose defaults are these.

    >>> ProbePlan(n_folds=1)
    Traceback (most recent call last):
    layerprobe.hooks.errors.LayerprobeError: n_folds=1, expected a whole number of 2 or more (5 is usual)
    """

    groups: Any = STORED
    sites: str | Sequence[str] | None = None
    layers: int | Sequence[int] | None = None
    held_out: Any = 0.3
    n_folds: int = 5
    strengths: ArrayLike | None = None
    metrics: Metrics = None
    class_weight: str | None = None
    positive: str | None = None
    kind: str | dict[str, str] | None = None
    permute: Literal["auto", "between", "within"] = "auto"
    n_permutations: int = 1000
    n_bootstrap: int = 1000
    baselines: bool = True
    seed: int = 0
    device: Any = None
    threads: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        check_options(
            seed=self.seed,
            n_folds=self.n_folds,
            n_permutations=self.n_permutations,
            n_bootstrap=self.n_bootstrap,
            permute=self.permute,
            class_weight=self.class_weight,
        )


def check_options(
    *,
    seed: Any,
    n_folds: Any = 5,
    n_permutations: Any = 0,
    n_bootstrap: Any = 1000,
    permute: str = "auto",
    class_weight: Any = None,
) -> None:
    """Refuse numbers out of range and words that mean nothing.

    Raises:
        LayerprobeError: names the option, what was given and what is expected.
    """
    for name, value, least, usual in (
        ("seed", seed, 0, "0 is the default"),
        ("n_folds", n_folds, 2, "5 is usual"),
        ("n_permutations", n_permutations, 0, "1000 is usual, 0 computes no p-values"),
        ("n_bootstrap", n_bootstrap, 2, "1000 is usual"),
    ):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least:
            raise LayerprobeError(f"{name}={value!r}, expected a whole number of {least} or more ({usual})")
    if class_weight not in (None, "balanced"):
        raise LayerprobeError(f"class_weight={class_weight!r}, expected None or 'balanced'")
    permute_unit(permute)


def strength_grid(strengths: ArrayLike | None, default: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strengths to choose from, strong regularisation (small values) first, whatever order they came in.

    >>> strength_grid([10, 0.1, 1, 1], np.ones(1)).tolist()
    [0.1, 1.0, 10.0]
    """
    if strengths is None:
        return default
    try:
        grid = np.atleast_1d(np.asarray(strengths, dtype=np.float64))
    except (TypeError, ValueError):
        grid = np.empty(0)
    if grid.ndim != 1 or not len(grid) or not (np.isfinite(grid) & (grid > 0)).all():
        raise LayerprobeError(
            f"strengths={strengths!r}, expected one or more finite numbers above 0 (C for logistic, 1 / "
            "alpha for ridge), such as [0.01, 0.1, 1]"
        )
    return np.unique(grid)


def metrics_for(kind: str, metrics: Metrics, *, label: str = "label") -> list[str]:
    """Names of the metrics of a task.

    Args:
        kind: of the task.
        metrics: one name, several, a list by kind of task, or `None` for the defaults.
        label: named in the error.

    Raises:
        LayerprobeError: an unknown metric, or one that says nothing of such a label.
    """
    if isinstance(metrics, Mapping):
        strangers = [name for name in metrics if name not in OF_KIND]
        if strangers:
            raise LayerprobeError(
                f"metrics= by task has {', '.join(map(repr, strangers))}, expected {', '.join(OF_KIND)}"
            )
        metrics = metrics.get(kind)
    if metrics is None:
        return list(DEFAULT_METRICS[kind])
    names = [metrics] if isinstance(metrics, str) else list(dict.fromkeys(metrics))
    if not names:
        raise LayerprobeError(f"metrics=[] names nothing; for {label!r} there are {', '.join(OF_KIND[kind])}")
    for name in names:
        check_metric(name)
        if name not in OF_KIND[kind] and not (kind == "regression" and name.startswith(WITHIN)):
            raise LayerprobeError(
                f"metric {name!r} says nothing of {label!r}, which is {kind}; choose from "
                f"{', '.join(OF_KIND[kind])}, or give metrics by task: "
                f"metrics={{{kind!r}: [{OF_KIND[kind][0]!r}]}}"
            )
    return names
