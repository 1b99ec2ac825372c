"""How much data a probe needs: learning curves, and the online codelength of the labels given the
activations.

A probe that reaches its score on a tenth of the data has found something simpler than one that needs all of
it. The codelength puts that in bits: what it costs to transmit the labels to somebody who holds the
activations.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.baselines import length_features, majority, word_features
from ..probes.duplicates import near_duplicate_notes
from ..probes.fit import fit_layer
from ..probes.inference import CI_METHOD
from ..probes.methods import Method, MethodName, find_method, fitted_method
from ..probes.problem import Floats
from ..reading.device import find_device, on_device
from ..reading.places import Place, check_places, list_places, rows_at
from ..reading.task import Task, make_task
from ..reading.threads import one_blas_thread, over_layers
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Count, Device, Label
from ..result.registry import analysis
from ..statistics.metrics import DEFAULT_METRICS, score
from ..statistics.resampling import STORED, cluster_bootstrap_weights
from ..statistics.score_intervals import deciding_groups, interval
from .codelength import Features, enough_rows, online_codelength, repaired_folds
from .curves_view import draw, found

__all__ = ["learning_curve", "online_codelength"]

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)


@analysis(
    title="How much data does a probe of “{label}” need?",
    group="read",
    guide="probes",
    findings=found,
    aliases=("linear_probe_curves",),
    picture=draw,
)
def learning_curve(
    store: ActivationStore,
    *,
    label: Label,
    method: MethodName = "logistic",
    sites: str | list[str] | None = None,
    layers: list[int] | None = None,
    groups: Any = STORED,
    shares: Sequence[float] = SHARES,
    n_draws: Count = 3,
    codelength: bool = True,
    n_bootstrap: int = 1000,
    baselines: bool = True,
    seed: int = 0,
    device: Device = None,
    threads: int | None = None,
) -> AnalysisResult:
    """Held-out score against the share of training groups used, and the online codelength in bits.

    Args:
        store: an activation store.
        label: as `linear_probe`.
        method: as `linear_probe`; the codelength needs a probabilistic one.
        sites: as `linear_probe`.
        layers: as `linear_probe`.
        groups: as `linear_probe`.
        shares: of the training groups, above 0 to 1; those that come to the same number of groups (at least
            ten) are one row.
        n_draws: random subsets of groups per share; the spread over them is in column `sd`.
        codelength: whether to compute it too.
        n_bootstrap: cluster-bootstrap draws over held-out groups.
        baselines: whether to fit a bag of words and prompt lengths on the same subsets.
        seed: of splits, subsets and the order of transmission.
        device: as `linear_probe`; one layer after another.
        threads: layers at a time on the CPU.

    Returns:
        Rows of the task's first metric with `share` and `n_train`, the interval being of the mean of its
        draws over new groups; rows of metric `codelength` (bits for all labels, Voita & Titov 2003.12298)
        with `uniform` and `compression`. `baseline_*` are the same without activations: class frequencies, a
        bag of words and prompt length, fitted on the same subsets and in the same game.

    Raises:
        LayerprobeError: a share that is none, or what `linear_probe` refuses.

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(120) % 2
    >>> x = rng.normal(size=(1, 120, 6)); x[0, :, 0] += 4 * y
    >>> store = from_arrays({"resid_post": x}, labels={"y": y})
    >>> few = {"shares": (0.3, 1.0), "n_draws": 1, "n_bootstrap": 20}
    >>> result = learning_curve(store, label="y", groups=None, **few)
    >>> set(result.table["metric"]) >= {"auroc", "codelength"}
    True
    """
    wrong = [share for share in shares if not 0 < share <= 1]
    if wrong or not len(shares):
        raise LayerprobeError(f"shares={tuple(shares)}, expected shares of the training groups, above 0 to 1")
    if n_draws < 1:
        raise LayerprobeError(f"n_draws={n_draws}, expected 1 or more")
    where = find_device(device)
    task = make_task(store, label, groups=groups, held_out=0.3, n_folds=5, seed=seed)
    found = find_method(method, task.kind)
    if codelength and task.kind == "regression":
        raise LayerprobeError("codelength needs classes; pass codelength=False for a regression label")
    metric = DEFAULT_METRICS[task.kind][0]
    subsets = _subsets(task, shares, n_draws, seed)
    places = list_places(store, sites, layers)
    check_places(store, places, [task])
    weights = cluster_bootstrap_weights(task.groups[task.test], n_bootstrap, seed + 3)

    def curve(features: Features, fitted_by: Method, over: Any) -> tuple[Scores, dict[str, float]]:
        """By share the scores of its draws and their mean under bootstrap weights; and the codelength."""
        scores: Scores = {}
        for share, draws in subsets.items():
            found_by = [_held_out(features, task, kept, fitted_by, metric, over) for kept in draws]
            drawn = (
                None if over is None else np.mean([boot for _, boot in found_by if boot is not None], axis=0)
            )
            scores[share] = np.array([value for value, _ in found_by]), drawn
        bits = online_codelength(features, task, fitted_by, seed=seed) if codelength else {}
        return scores, bits

    def work(place: Place) -> list[dict[str, Any]]:
        x = on_device(rows_at(store, place, task), where)
        scores, bits = curve(lambda _: x, found, weights)
        at = {"site": place.site, "layer": place.layer, "head": place.head}
        rows = [{**at, **_row(metric, share, subsets[share], scores[share], task)} for share in scores]
        return [*rows, {**at, "metric": "codelength", **bits}] if codelength else rows

    alone = {}
    plain = find_method("ridge" if task.kind == "regression" else "logistic", task.kind)
    with one_blas_thread():
        for name, features in _prompts_alone(store, task, where, baselines).items():
            alone[name] = curve(features, plain, None)
    per_place = over_layers(work, places, threads=threads if where is None else 1)
    common = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "method": fitted_method(method, task.kind),
        "target": task.name,
        "seed": seed,
    }
    flat = {"baseline_majority": float(score(metric, task.y[task.test], majority(task).rows(task.test))[0])}
    rows = []
    for row in (row for rows_of in per_place for row in rows_of):
        if row["metric"] == "codelength":
            others = {f"baseline_{name}": bits["estimate"] for name, (_, bits) in alone.items()}
        else:
            others = flat | {
                f"baseline_{name}": means[row["share"]][0].mean() for name, (means, _) in alone.items()
            }
        rows.append({**common, **others, **row})
    return AnalysisResult(
        kind="learning_curve",
        table=tidy(rows),
        provenance={"label": task.name},
        notes=(*near_duplicate_notes(store, [task]), *task.notes),
    )


Scores = dict[float, tuple[Floats, Floats | None]]
"""By share: [draws] held-out scores, and [bootstrap] draws of their mean."""


def _row(metric: str, share: float, draws: list[NDArray[Any]], scores: Any, task: Task) -> dict[str, Any]:
    y, groups = task.y[task.test], task.groups[task.test]
    values, boot = scores
    estimate = float(values.mean())
    lo, hi, why = interval(estimate, boot, deciding_groups(metric, y, groups, task.n_classes), metric)
    return {
        "metric": metric,
        "share": share,
        "n_train": float(np.mean([(kept & task.train).sum() for kept in draws])),
        "estimate": estimate,
        "lo": lo,
        "hi": hi,
        "ci_method": None if why else CI_METHOD,
        "n": len(y),
        "n_groups": len(np.unique(groups)),
        "sd": float(values.std()),
        "note": why,
    }


def _prompts_alone(store: ActivationStore, task: Task, device: Any, wanted: bool) -> dict[str, Features]:
    """Features of the prompts themselves; the words are those of the rows learnt from."""
    found: dict[str, Features] = {}
    if wanted and store.texts is not None:
        texts = [store.texts[example] for example in np.asarray(store.examples)[task.rows]]
        found["text"] = lambda seen: on_device(word_features(texts, seen), device)
    if wanted and store.lengths is not None:
        lengths = length_features(np.asarray(store.lengths)[task.rows])
        found["length"] = lambda _: lengths
    return found


def _subsets(task: Task, shares: Sequence[float], n_draws: int, seed: int) -> dict[float, list[NDArray[Any]]]:
    names = np.unique(task.groups[task.train])
    rng = np.random.default_rng(seed + 7)
    orders = [rng.permutation(names) for _ in range(n_draws)]
    out: dict[float, list[NDArray[Any]]] = {}
    counts = set()
    for share in sorted(set(shares), reverse=True):  # of shares that are the same groups the largest stays
        count = min(len(names), max(10, round(share * len(names))))
        if count in counts:
            continue
        counts.add(count)
        draws = [
            np.isin(task.groups, order[:count]) | task.test
            for order in orders[: 1 if count == len(names) else None]
        ]
        usable = [kept for kept in draws if enough_rows(task.y[kept & task.train], task)]
        if usable:
            out[share] = usable
    return dict(sorted(out.items()))


def _held_out(
    features: Features, task: Task, kept: NDArray[np.bool_], method: Method, metric: str, weights: Any
) -> tuple[float, Floats | None]:
    """Score of a probe fitted on some of the training rows, and its bootstrap draws if weights are given."""
    x = features(kept & task.train)
    part = task.keep(kept)
    fold = np.full(len(part.y), -1)
    train = part.train
    fold[train] = np.random.default_rng(0).permutation(int(task.groups.max()) + 1)[part.groups[train]] % 3
    part = replace(part, fold=repaired_folds(part, fold))
    predicted = fit_layer(x[kept], part, method, strengths=method.strengths).predicted.rows(part.test)
    truth = part.y[part.test]
    draws = None if weights is None else score(metric, truth, predicted, weights)
    return float(score(metric, truth, predicted)[0]), draws
