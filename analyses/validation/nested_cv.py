"""Probe scores from all rows by nested cross-validation, with intervals that cover what they say.

`linear_probe` holds groups out once, and its interval is of *that* probe on new groups. Here every group is
scored and trained on in turn, and the interval is of the score that *such a probe, trained on this many
groups*, is to be expected to have: the way to go where groups are few.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.duplicates import near_duplicate_notes
from ..probes.methods import MethodName, find_method, fitted_method
from ..probes.option_checks import check_options, strength_grid
from ..reading.device import find_device, on_device
from ..reading.places import Place, check_places, list_places, rows_at
from ..reading.task import Task, make_task
from ..reading.threads import one_blas_thread, over_layers
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Count, Device, Label, Layers, Sites, Value
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.resampling import STORED, grouped_folds
from .nested_baselines import nested_baselines
from .nested_cv_view import draw, found
from .nested_variance import METRICS, NestedScore, nested_score

BEYOND = "the correction for smaller training sets passed the range, and is cut to it"
CI_METHOD = "nested cross-validation (Bates, Hastie & Tibshirani 2104.00673)"
DEFAULTS = {"binary": "auroc", "multinomial": "balanced_accuracy", "regression": "mse"}


@analysis(
    title="How well can “{label}” be read off, by cross-validation?",
    group="read",
    guide="probes",
    findings=found,
    picture=draw,
)
def nested_cv(
    store: ActivationStore,
    *,
    label: Label,
    method: MethodName = "logistic",
    metric: str | None = None,
    sites: Sites = None,
    layers: Layers = None,
    groups: Any = STORED,
    n_folds: int = 5,
    repeats: Count = 10,
    strengths: ArrayLike | None = None,
    positive: Value | None = None,
    kind: str | None = None,
    level: float = 0.95,
    baselines: bool = True,
    seed: int = 0,
    device: Device = None,
    threads: int | None = None,
    progress: bool = False,
) -> AnalysisResult:
    """Cross-validate a probe at every site and layer, with nested-cross-validation intervals.

    The strength is chosen anew inside every training set. AUROC compares only pairs scored by one fit; its
    sampling variance comes from placements (DeLong), summed by group.

    Args:
        store: an activation store.
        label: name of a label column, or one value per row.
        method: as `linear_probe`.
        metric: `auroc`, `balanced_accuracy`, `accuracy`, `log_loss`, `brier` or `mse`; default by task.
        sites: which sites; default: all.
        layers: which layers; default: all.
        groups: as `linear_probe`.
        n_folds: folds, 4 or more.
        repeats: random divisions into folds that are averaged; fewer make the interval itself noisy.
        strengths: as `linear_probe`.
        positive: as `linear_probe`.
        kind: as `linear_probe`.
        level: nominal coverage.
        baselines: whether to fit the bag of words too (majority and length are always there).
        seed: of the divisions.
        device: as `linear_probe`; every division's fits run together there, one layer after another.
        threads: layers at a time.
        progress: show a bar.

    Returns:
        One row per place: `estimate`, `lo`, `hi`, and `naive_error` beside `standard_error` (what pooling
        cross-validated rows as if they were independent would have claimed), and `baseline_*`: what class
        frequencies, a bag of words and prompt length score through the same divisions. No layer is chosen and
        no hypothesis tested: for those use `linear_probe`.

    Raises:
        LayerprobeError: what was asked cannot be done, with the next step.

    Source: Bates, Hastie & Tibshirani (2104.00673).

    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.tile([0, 1], 40)
    >>> store = from_arrays({"resid_post": rng.normal(size=(1, 80, 3)) + y[:, None]}, labels={"y": y})
    >>> row = nested_cv(store, label="y", groups=None, repeats=2, strengths=[0.1]).table.iloc[0]
    >>> bool(row["lo"] < row["estimate"] < row["hi"])
    True
    """
    check_options(seed=seed, n_folds=n_folds)
    if n_folds < 4:
        raise LayerprobeError(f"n_folds={n_folds}: a fit leaves out up to three folds; pass 4 or more")
    where = find_device(device)
    if repeats < 1:
        raise LayerprobeError(f"repeats={repeats}, expected 1 or more (10 is a start)")
    if not 0 < level < 1:
        raise LayerprobeError(f"level={level!r}, expected a coverage between 0 and 1, such as 0.95")
    task = make_task(
        store, label, groups=groups, held_out=None, n_folds=n_folds, seed=seed, positive=positive, kind=kind
    )
    chosen = metric or DEFAULTS[task.kind]
    _check_metric(chosen, task)
    found = find_method(method, task.kind)
    if chosen in ("log_loss", "brier") and not found.probabilistic:
        raise LayerprobeError(
            f"metric={chosen!r} needs probabilities, which {method!r} has not: use logistic"
        )
    grid = strength_grid(strengths, found.strengths)
    places = list_places(store, sites, layers)
    folds = np.stack([_folds(task, n_folds, seed + repeat) for repeat in range(repeats)])
    check_places(store, places, [task])

    def work(place: Place) -> NestedScore:
        x = on_device(rows_at(store, place, task), where)
        return nested_score(x, task, found, grid, chosen, folds)

    with one_blas_thread():
        alone, missing = nested_baselines(store, task, folds, chosen, words=baselines, device=where)
    one = threads if where is None else 1
    scores = over_layers(work, places, threads=one, progress=progress, description=f"nested: {task.name}")
    undivided = replace(task, test=np.zeros(len(task.y), dtype=bool), fold=np.full(len(task.y), -1))
    n_groups = len(np.unique(task.groups))
    common = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "method": fitted_method(method, task.kind),
        "target": task.name,
        "metric": chosen,
        "split": "nested_cv",
        "seed": seed,
        "n": len(task.y),
        "n_groups": n_groups,
    }
    rows = [
        {**common, **_row(place, score, chosen, n_groups, level), **alone}
        for place, score in zip(places, scores, strict=True)
    ]
    return AnalysisResult(
        kind="nested_cv",
        table=tidy(rows),
        notes=(*near_duplicate_notes(store, [undivided]), *task.notes, *missing),
        provenance={"label": task.name, "n_folds": n_folds, "repeats": repeats, "level": level},
    )


def _folds(task: Task, n_folds: int, seed: int) -> NDArray[np.int64]:
    """[rows] folds, each with every class, since each is scored by itself."""
    fold = grouped_folds(task.groups, task.y if task.n_classes else None, n_folds, seed)
    for code, text in enumerate(task.classes):
        here = len(np.unique(fold[task.y == code]))
        if here < n_folds:
            raise LayerprobeError(
                f"class {text!r} of {task.name!r} is in {here} of {n_folds} folds however groups are put "
                "together: pass n_folds= that low (4 or more), or a finer groups column"
            )
    return fold


def _check_metric(metric: str, task: Task) -> None:
    fitting = {
        "binary": METRICS[:-1],
        "multinomial": METRICS[1:-1],
        "regression": ("mse",),
    }[task.kind]
    if metric not in fitting:
        raise LayerprobeError(
            f"metric={metric!r} is not one that nested_cv has for a {task.kind} label: {', '.join(fitting)}"
        )


def _row(place: Place, score: NestedScore, metric: str, n_groups: int, level: float) -> dict[str, Any]:
    from scipy.special import stdtrit

    half = float(stdtrit(n_groups - 1, (1 + level) / 2)) * score.error
    lo, hi = score.estimate - half, score.estimate + half
    if not score.error > 0:
        lo = hi = np.nan
    found = bounded(metric, score.estimate, lo, hi)
    beyond = found["estimate"] != score.estimate and np.isfinite(score.estimate)
    return {
        "site": place.site,
        "layer": place.layer,
        "head": place.head,
        **found,
        "ci_method": CI_METHOD if score.error > 0 else None,
        "standard_error": score.error,
        "naive_error": score.naive_error,
        "converged": score.converged,
        "note": BEYOND if beyond and score.error > 0 else _why(score),
    }


def _why(score: NestedScore) -> str | None:
    """Why there is no interval, where there is none."""
    if not np.isfinite(score.estimate):
        return "not defined on these rows"
    return None if score.error > 0 else "no interval: every row is scored alike"
