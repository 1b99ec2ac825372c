"""Linear probes at every site and layer: what can be read off the activations by a weighted sum, and how
surely.

Everything that is fitted or chosen (centre, scale, strength, layer) comes from training groups; every number
with an interval or a p-value comes from groups that no fit has seen.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..hooks.errors import LayerprobeError
from .baselines import Baselines, fit_baselines
from .directions import Directions
from .layer_threads import one_blas_thread, over_layers
from .linear_probe_fit import LayerFit, fit_layer
from .linear_probe_inference import Inference, best_layers, infer, make_inference
from .linear_probe_methods import Method, find_method
from .linear_probe_task import Task, make_task
from .metrics import DEFAULT_METRICS
from .resampling import STORED, check_finite
from .result import AnalysisResult, tidy


@dataclass(frozen=True, order=True)
class Place:
    """Where a probe reads: a site, its layer if it has layers, a head if it is read by heads."""

    site: str
    layer: int | None
    head: int | None = None


def linear_probe(
    store: Any,
    *,
    label: str | ArrayLike,
    method: str = "logistic",
    sites: str | list[str] | None = None,
    layers: list[int] | None = None,
    groups: Any = STORED,
    held_out: float | str | ArrayLike = 0.3,
    n_folds: int = 5,
    strengths: ArrayLike | None = None,
    metrics: list[str] | None = None,
    class_weight: str | None = None,
    positive: str | None = None,
    kind: str | None = None,
    permute: str = "auto",
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    baselines: bool = True,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> AnalysisResult:
    """Fit a linear probe for a label at every site and layer.

    The groups are split once: `held_out` of them are scored and never fitted on; on the others, grouped
    K-fold cross-validation chooses the strength (held-out log-loss, one-standard-error rule) and the best
    layer.

    Args:
        store: an activation store.
        label: name of a label column, or one value per row.
        method: `logistic`, `mass_mean`, … (see `linear_probe_methods.METHODS`).
        sites: which sites; default: all that hold activations.
        layers: which layers; default: all.
        groups: rows that must stay together: `STORED`, a label column, an array, or `None` (each prompt by
            itself).
        held_out: share of the groups to score on, the name of a split, or a boolean per row.
        n_folds: inner folds.
        strengths: to choose from, strong regularisation first (C for logistic).
        metrics: names; default: those of the task.
        class_weight: `balanced` to weigh classes equally in the fit.
        positive: the positive one of two classes; default: the second in sorted order.
        kind: `binary`, `multinomial` or `regression`; default: from the label's values.
        permute: unit of the permutation null, see `group_permutations`.
        n_permutations: relabellings of the held-out groups; 0 for none.
        n_bootstrap: cluster-bootstrap draws.
        baselines: whether to fit the bag of words (majority and length are always there).
        seed: of splits, draws and relabellings.
        threads: layers at a time.
        progress: show a bar.

    Returns:
        One row per site × layer × metric; `.scores` of every example by a fit that had not seen it;
        `.directions` in raw space; `.frames["best_layer"]` with the nested choice of layer.

    Raises:
        LayerprobeError: what was asked cannot be done, with the next step.

    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.tile(["no", "yes"], 60)
    >>> x = rng.normal(size=(2, 120, 4)).astype("float32")
    >>> x[1, y == "yes", 0] += 3
    >>> store = from_arrays({"resid_post": x}, labels={"likes": y})
    >>> result = linear_probe(store, label="likes", groups=None, n_permutations=100)
    >>> result.frames["best_layer"]["layer"].tolist()
    [1]
    """
    task = make_task(
        store,
        label,
        groups=groups,
        held_out=held_out,
        n_folds=n_folds,
        seed=seed,
        positive=positive,
        kind=kind,
    )
    found = find_method(method, task.kind)
    grid = found.strengths if strengths is None else np.atleast_1d(np.asarray(strengths, dtype=np.float64))
    names = list(metrics) if metrics else list(DEFAULT_METRICS[task.kind])
    places = list_places(store, sites, layers)
    inference = make_inference(
        task, names, n_bootstrap=n_bootstrap, n_permutations=n_permutations, permute=permute, seed=seed
    )
    with one_blas_thread():
        base = fit_baselines(store, task, words=baselines)

    def work(place: Place) -> LayerFit:
        return fit_layer(rows_at(store, place, task), task, found, strengths=grid, class_weight=class_weight)

    fits = over_layers(work, places, threads=threads, progress=progress, description=f"{method} probes")
    return _result(store, task, found, method, places, fits, inference, base, seed)


def list_places(store: Any, sites: str | list[str] | None, layers: list[int] | None) -> list[Place]:
    """Every site × layer × head that is to be read.

    Raises:
        LayerprobeError: the store has no such site or layer.
    """
    held = [site for site in store.sites if site != "lens"]
    wanted = held if sites is None else [sites] if isinstance(sites, str) else list(sites)
    places = []
    for site in wanted:
        if site not in held:
            raise LayerprobeError(
                f"site {site!r} is not in this store, which holds {', '.join(held) or 'none'}"
            )
        have = store.layers(site)
        chosen = [layer for layer in have if layers is None or layer in layers]
        if have and not chosen:
            raise LayerprobeError(
                f"layers={list(layers or [])} are not in this store's {site}, which has {list(have)}"
            )
        for layer in chosen or [None]:
            width = store.activations(site, layer, rows=slice(0, 1)).shape
            places += (
                [Place(site, layer, head) for head in range(width[1])]
                if len(width) == 3
                else [Place(site, layer)]
            )
    return places


def rows_at(store: Any, place: Place, task: Task) -> NDArray[np.float64]:
    """[rows, width] activations of a task's rows, in double precision, all finite."""
    x = np.asarray(store.activations(place.site, place.layer))
    x = x if place.head is None else x[:, place.head]
    x = x[task.rows].astype(np.float64)
    if x.ndim != 2:
        raise LayerprobeError(f"{place.site} has shape {x.shape[1:]} per row; a linear probe reads vectors")
    check_finite(
        x, site=place.site, layer=place.layer, ids=None if store.ids is None else store.ids[task.rows]
    )
    return x


def _result(  # one place where the parts meet
    store: Any,
    task: Task,
    found: Method,
    method: str,
    places: list[Place],
    fits: list[LayerFit],
    inference: Inference,
    base: Baselines,
    seed: int,
) -> AnalysisResult:
    common = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "method": method,
        "target": task.name,
        "split": "held_out",
        "seed": seed,
    }
    rows = infer(task, places, fits, inference, base)
    best, differences = best_layers(task, places, fits, inference, base)
    frames = {
        "best_layer": tidy({**common, **row} for row in best),
        "against_baselines": tidy({**common, **row} for row in differences),
    }
    if store.texts is not None:
        used = np.unique(np.asarray(store.examples)[task.rows])
        ids = used if store.ids is None else _ids_of_examples(store, used)
        frames["texts"] = pd.DataFrame({"id": ids, "text": [store.texts[example] for example in used]})
    notes = list(base.missing) + list(inference.notes)
    if task.dropped:
        notes.append(f"{task.dropped} rows without a value of {task.name!r} were left out.")
    return AnalysisResult(
        kind="linear_probe",
        table=tidy({**common, **row} for row in rows),
        scores=_scores(store, task, places, fits),
        directions=_directions(task, places, fits),
        frames=frames,
        provenance={
            "label": task.name,
            "task": task.kind,
            "classes": list(task.classes),
            "positive": task.classes[1] if task.kind == "binary" else None,
            "label_in_groups": task.structure,
            "store": store.identity,
            "n_bootstrap": inference.weights.shape[0],
            "n_permutations": 0 if inference.null_labels is None else len(inference.null_labels),
        },
        notes=tuple(notes),
    )


def _ids_of_examples(store: Any, examples: NDArray[np.int64]) -> list[str]:
    first = dict(zip(np.asarray(store.examples).tolist(), np.asarray(store.ids).tolist(), strict=True))
    return [first[example] for example in examples.tolist()]


def _scores(store: Any, task: Task, places: list[Place], fits: list[LayerFit]) -> pd.DataFrame:
    ids = np.asarray(store.examples if store.ids is None else store.ids)[task.rows]
    positions = np.asarray(store.positions)[task.rows]
    names = np.array(task.classes, dtype=object)[task.y] if task.classes else task.y
    tables = []
    for place, fit in zip(places, fits, strict=True):
        margin, probability = fit.predicted.margin, fit.predicted.probability
        columns: dict[str, Any] = {
            "id": ids,
            "position": positions,
            "site": place.site,
            "layer": place.layer,
            "split": np.where(task.test, "held_out", "out_of_fold"),
            "label": names,
        }
        if place.head is not None:
            columns["head"] = place.head
        if task.kind == "binary":
            columns |= {"score": margin, "probability": probability, "margin": margin * (2 * task.y - 1)}
        elif task.kind == "regression":
            columns |= {"score": margin, "margin": -np.abs(margin - task.y)}
        else:
            true = margin[np.arange(len(task.y)), task.y]
            others = np.where(np.eye(task.n_classes, dtype=bool)[task.y], -np.inf, margin).max(axis=1)
            given = probability[np.arange(len(task.y)), task.y] if probability is not None else np.nan
            columns |= {"predicted": np.array(task.classes, dtype=object)[margin.argmax(axis=1)]}
            columns |= {"probability": given, "margin": true - others}
        tables.append(pd.DataFrame(columns))
    scores = pd.concat(tables, ignore_index=True)
    scores["layer"] = scores["layer"].astype("Int64")
    return scores


def _directions(task: Task, places: list[Place], fits: list[LayerFit]) -> Directions:
    weights: dict[str, dict[int | None, Any]] = {}
    bias: dict[str, dict[int | None, Any]] = {}
    cosine: dict[str, dict[int | None, Any]] = {}
    for key in dict.fromkeys((place.site, place.layer) for place in places):
        mine = [fit for place, fit in zip(places, fits, strict=True) if (place.site, place.layer) == key]
        by_head = len(mine) > 1 or any(p.head is not None for p in places if (p.site, p.layer) == key)
        site, layer = key
        for store_in, values in (
            (weights, [fit.weight for fit in mine]),
            (bias, [fit.bias for fit in mine]),
            (cosine, [fit.fold_cosine for fit in mine]),
        ):
            array = np.stack([np.asarray(value, dtype=np.float32) for value in values])
            store_in.setdefault(site, {})[layer] = array if by_head else array[0]
    names = task.classes if task.kind == "multinomial" else ()
    return Directions(weights, bias, names, {"fold_cosine": cosine})
