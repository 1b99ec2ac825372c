"""Several graded scores read off frozen states (MULTI-TAP, 2510.00766), nothing chosen on what scores it."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.linear import linear_probe
from ..probes.loop import probe_task
from ..probes.methods import Method, find_method
from ..probes.option_checks import ProbePlan
from ..probes.picture import draw
from ..probes.readable import found
from ..reading.task import Task
from ..result.analysis import AnalysisResult
from ..result.options import Numbers, Positive
from ..result.registry import analysis
from ..statistics.resampling import STORED


@analysis(
    title="Which scores can be read off?",
    group="read",
    guide="probes",
    passes_on=linear_probe,
    findings=found,
    picture=draw,
    without=("method", "positive"),
)
def score_heads(
    store: ActivationStore,
    *,
    scores: Numbers,
    targets: pd.DataFrame | None = None,
    tolerance: Positive = 0.5,
    groups: Any = STORED,
    seed: int = 0,
    **options: Any,
) -> AnalysisResult:
    """One ridge head per score at every site and layer; penalties are chosen inside the training groups.

    The published code chooses alpha by training error and joins features to targets by the sorted order of
    file names (in which `chunk_10000_` precedes `chunk_1000_`); here targets are joined by the rows' ids.

    Args:
        store: an activation store.
        scores: names of the scores: label columns, or columns of `targets`.
        targets: a table indexed by the store's ids. Ids without a target are left out and counted.
        tolerance: a prediction within it counts as right.
        groups: as `linear_probe`.
        seed: as `linear_probe`.
        **options: as `linear_probe`.

    Returns:
        As `linear_probe` for each score, with R², Pearson, Spearman, Kendall and
        `accuracy_within_<tolerance>`.

    Raises:
        LayerprobeError: unknown scores, or targets whose ids do not match the store's.

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> grade = rng.uniform(1, 5, size=160)
    >>> x = rng.normal(size=(1, 160, 8)); x[0, :, 0] += 3 * grade
    >>> store = from_arrays({"resid_post": x}, labels={"grade": grade})
    >>> few = {"n_permutations": 0, "n_bootstrap": 20}
    >>> result = score_heads(store, scores=["grade"], groups=None, **few)
    >>> "accuracy_within_0.5" in set(result.table["metric"])
    True
    """
    view = store if targets is None else WithTargets(store, targets, scores)
    unknown = [name for name in scores if name not in view.label_names]
    if unknown:
        raise LayerprobeError(f"scores {unknown} are not label columns; have {', '.join(view.label_names)}")

    def build(task: Task) -> tuple[Method, None]:
        return find_method("ridge", task.kind), None

    metrics = ["r2", "pearson", "spearman", "kendall", f"accuracy_within_{tolerance:g}"]
    chosen: dict[str, Any] = {"kind": "regression", "metrics": metrics, **options}
    plan = ProbePlan(groups=groups, seed=seed, **chosen)
    seen = cast(ActivationStore, view)  # with further labels, and all else the store's
    return probe_task(seen, list(scores), "ridge", build, plan)


class WithTargets:
    """A store with further label columns, joined by id."""

    def __init__(self, store: ActivationStore, targets: pd.DataFrame, columns: Sequence[str]) -> None:
        if targets.index.has_duplicates:
            twice = targets.index[targets.index.duplicated()][0]
            raise LayerprobeError(f"targets has id {twice!r} more than once; give one row per id")
        missing = [name for name in columns if name not in targets]
        if missing:
            raise LayerprobeError(
                f"targets lacks columns {missing}; it has {', '.join(map(str, targets.columns))}"
            )
        ids = np.asarray(store.ids)
        keyed = targets.set_index(targets.index.astype(str))
        found = np.isin(ids.astype(str), keyed.index.to_numpy(dtype=str))
        if not found.any():
            raise LayerprobeError(
                f"no id of targets (such as {targets.index[0]!r}) is an id of the store (such as "
                f"{ids[0]!r}); index targets by the ids that the prompts were captured with"
            )
        joined = keyed.reindex(ids.astype(str))
        self._store = store
        self._joined: dict[str, NDArray[Any]] = {name: joined[name].to_numpy() for name in columns}
        self.label_names = (*store.label_names, *self._joined)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def labels(self, name: str) -> NDArray[Any]:
        """[rows]."""
        return self._joined[name] if name in self._joined else self._store.labels(name)
