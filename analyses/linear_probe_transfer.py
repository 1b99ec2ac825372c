"""Does a probe mean the same elsewhere: fit on one dataset and score on another, or leave one domain out."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..hooks.errors import LayerprobeError
from .layer_threads import over_layers
from .linear_probe import linear_probe
from .linear_probe_fit import LayerFit, fit_layer
from .linear_probe_methods import find_method
from .linear_probe_places import Place, list_places, rows_at
from .linear_probe_task import Task, make_task
from .metrics import Predicted, score
from .resampling import STORED, cluster_bootstrap_weights
from .result import AnalysisResult, tidy
from .score_intervals import interval


def generalisation_matrix(
    stores: Mapping[str, Any],
    *,
    label: str,
    method: str = "logistic",
    sites: str | list[str] | None = None,
    layers: list[int] | None = None,
    groups: Any = STORED,
    n_bootstrap: int = 1000,
    seed: int = 0,
    threads: int | None = None,
) -> AnalysisResult:
    """Fit on each dataset's training groups, score on every dataset's held-out groups.

    Args:
        stores: name → store of the same model, each with the label column. Classes must have the same names.
        label: the label column; two classes.
        method: as `linear_probe`.
        sites: as `linear_probe`.
        layers: as `linear_probe`.
        groups: as `linear_probe`.
        n_bootstrap: cluster-bootstrap draws over the scored dataset's held-out groups.
        seed: of splits and draws.
        threads: layers at a time.

    Returns:
        One row per site × layer × `train_on` × `test_on`; AUROC, so that a threshold that moved between
        datasets is not counted against a direction that holds. Prompts that the fit has seen under another
        name are left out.

    Raises:
        LayerprobeError: stores of different width, or with other classes.
    """
    if len(stores) < 2:
        raise LayerprobeError(
            f"{len(stores)} store given, expected two or more: {{'cities': a, 'translations': b}}"
        )
    tasks = {
        name: make_task(store, label, groups=groups, held_out=0.3, n_folds=5, seed=seed)
        for name, store in stores.items()
    }
    first = next(iter(stores))
    places = list_places(stores[first], sites, layers)
    _check_alike(stores, tasks, places, first)
    found = find_method(method, tasks[first].kind)
    rows = []
    for source, store in stores.items():
        task = tasks[source]

        def work(place: Place, store: Any = store, task: Task = task) -> LayerFit:
            return fit_layer(rows_at(store, place, task), task, found, strengths=found.strengths)

        fits = over_layers(work, places, threads=threads)
        for target, other in stores.items():
            test = _unseen(store, task, other, tasks[target])
            y, g = tasks[target].y[test], tasks[target].groups[test]
            weights = cluster_bootstrap_weights(g, n_bootstrap, seed + 3)
            for place, fit in zip(places, fits, strict=True):
                margin = rows_at(other, place, tasks[target])[test] @ fit.weight.T + fit.bias
                estimate = float(score("auroc", y, Predicted(margin))[0])
                draws = score("auroc", y, Predicted(margin), weights)
                lo, hi, why = interval(estimate, draws, len(np.unique(g)), "auroc")
                rows.append(
                    {
                        "model": store.model_name,
                        "site": place.site,
                        "layer": place.layer,
                        "head": place.head,
                        "method": method,
                        "target": label,
                        "metric": "auroc",
                        "train_on": source,
                        "test_on": target,
                        "estimate": estimate,
                        "lo": lo,
                        "hi": hi,
                        "n": len(y),
                        "n_groups": len(np.unique(g)),
                        "note": why,
                        "seed": seed,
                    }
                )
    return AnalysisResult(kind="linear_probe_transfer", table=tidy(rows), provenance={"label": label})


def _check_alike(
    stores: Mapping[str, Any], tasks: Mapping[str, Task], places: list[Place], first: str
) -> None:
    for name, store in stores.items():
        if tasks[name].classes != tasks[first].classes:
            raise LayerprobeError(
                f"{name!r} has classes {tasks[name].classes} where {first!r} has {tasks[first].classes}; "
                "rename them so that they agree"
            )
        for place in places:
            if place.site not in store.sites or (
                place.layer is not None and place.layer not in store.layers(place.site)
            ):
                raise LayerprobeError(
                    f"{name!r} lacks {place.site}[{place.layer}]; pass sites= and layers= that all have"
                )
            mine = store.activations(place.site, place.layer, rows=slice(0, 1)).shape[1:]
            theirs = stores[first].activations(place.site, place.layer, rows=slice(0, 1)).shape[1:]
            if mine != theirs:
                raise LayerprobeError(
                    f"{name!r} is {mine} wide at {place.site} and {first!r} is {theirs}; a probe moves "
                    "only between stores of one model: capture both with the same one"
                )


def _unseen(store: Any, task: Task, other: Any, target: Task) -> np.ndarray:
    """Held-out rows of the target whose text no fit on the source has seen."""
    test = target.test.copy()
    if store is other or store.texts is None or other.texts is None:
        return test
    seen = {store.texts[example] for example in np.asarray(store.examples)[task.rows[task.train]]}
    texts = np.asarray(other.examples)[target.rows]
    return test & np.array([other.texts[example] not in seen for example in texts])


def leave_one_domain_out(
    store: Any, *, label: str, domain: str, method: str = "logistic", **options: Any
) -> AnalysisResult:
    """For each domain: fit on all others, score on it.

    Args:
        store: an activation store.
        label: as `linear_probe`.
        domain: label column naming each row's domain; groups must not straddle domains.
        method: as `linear_probe`.
        **options: as `linear_probe`, without `held_out`.

    Returns:
        A probe result whose `subset` says which domain was left out; family-wise p is over the layers of one
        domain.
    """
    if domain not in store.label_names:
        raise LayerprobeError(f"domain={domain!r} is not a label column; have {', '.join(store.label_names)}")
    domains = np.asarray(store.labels(domain))
    parts = {}
    for value in pd.unique(domains):
        result = linear_probe(store, label=label, method=method, held_out=domains == value, **options)
        parts[f"{domain}={value}"] = result
    last = result
    frames = {
        name: pd.concat(
            [part.frames[name].assign(subset=key) for key, part in parts.items()], ignore_index=True
        )
        for name in ("best_layer", "against_baselines")
    }
    table = pd.concat([part.table.assign(subset=key) for key, part in parts.items()], ignore_index=True)
    return AnalysisResult(
        kind="leave_one_domain_out",
        table=tidy(table),
        frames=frames,
        provenance=last.provenance | {"domain": domain},
    )
