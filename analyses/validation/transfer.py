"""Does a probe mean the same elsewhere: fit on one dataset and score on another."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.duplicates import near_duplicate_notes
from ..probes.fit import LayerFit, fit_layer
from ..probes.methods import MethodName, find_method, fitted_method
from ..probes.outputs import directions_of, stack_directions
from ..reading.common_split import common_groups, common_held_out
from ..reading.device import find_device, on_device
from ..reading.places import Place, check_places, list_places, rows_at
from ..reading.task import Task, make_task
from ..reading.threads import one_blas_thread, over_layers
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Column, Device, Label, Layers, Sites
from ..result.registry import analysis
from ..statistics.metrics import Predicted
from ..statistics.resampling import STORED
from .domains import leave_one_domain_out
from .transfer_targets import new_rows, prompts_alone
from .transfer_view import draw, found

__all__ = ["generalisation_matrix", "leave_one_domain_out"]

HELD_OUT, FOLDS = 0.3, 5


def across_domains(
    store: ActivationStore,
    *,
    label: Label,
    across: Column,
    method: MethodName = "logistic",
    sites: Sites = None,
    layers: Layers = None,
    groups: Any = STORED,
    n_bootstrap: int = 1000,
    seed: int = 0,
    device: Device = None,
) -> AnalysisResult:
    """`generalisation_matrix` between the domains of one store.

    Args:
        across: label column that names the domain (topic, data set) of a prompt.
    """
    return generalisation_matrix(
        by_value(store, across),
        label=label,
        method=method,
        sites=sites,
        layers=layers,
        groups=groups,
        n_bootstrap=n_bootstrap,
        seed=seed,
        device=device,
    )


@analysis(
    command="generalisation",
    call=across_domains,
    title="Does a probe of “{label}” hold across {across}?",
    group="read",
    guide="probes",
    findings=found,
    picture=draw,
    aliases=("linear_probe_transfer",),
)
def generalisation_matrix(
    stores: ActivationStore | Mapping[str, ActivationStore],
    *,
    label: str,
    across: str | None = None,
    method: MethodName = "logistic",
    sites: Sites = None,
    layers: Layers = None,
    groups: Any = STORED,
    n_bootstrap: int = 1000,
    baselines: bool = True,
    seed: int = 0,
    device: Device = None,
    threads: int | None = None,
    kind: str | None = None,
    held_out: float = HELD_OUT,
    n_folds: int = FOLDS,
) -> AnalysisResult:
    """Fit on each dataset's training groups, score on every dataset's held-out groups.

    All datasets are split by one grouping: a group's name means the same in each, and so does a prompt, so
    that an item whose wording in one dataset was trained on is scored in no other.

    Args:
        stores: name → store of the same model, each with the label column, whose classes must have the same
            names; or one store, with `across`.
        label: the label column, of classes or graded.
        across: label column of one store whose values name its datasets.
        method: as `linear_probe`.
        sites: as `linear_probe`.
        layers: as `linear_probe`.
        groups: as `linear_probe`.
        n_bootstrap: cluster-bootstrap draws over the scored dataset's held-out groups.
        baselines: whether to fit a bag of words and prompt lengths on each dataset and score them on all.
        seed: of splits and draws.
        device: as `linear_probe`; one layer after another.
        threads: layers at a time on the CPU.
        kind: of the label, as `linear_probe`.
        held_out: share of the groups to score on.
        n_folds: inner folds.

    Returns:
        One row per site × layer × `train_on` × `test_on`; AUROC (graded labels: Pearson's correlation), so
        that a threshold that moved between datasets is not counted against a direction that holds.
        `baseline_*` are the same for what the prompts alone tell, fitted and scored on the same rows.
        `left_out` counts held-out rows that are not scored because the fit has seen their text: none where
        a prompt is one group in all datasets. Directions are named by the dataset they were fitted on:
        `result.directions.of("cities")`.

    Raises:
        LayerprobeError: stores of different width, or with other classes.

    Source: fit on A, score on B, as in Marks & Tegmark (2310.06824), figure 5; one grouping for all splits.

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y, topic = np.tile([0, 1], 60), np.repeat(["cities", "numbers"], 60)
    >>> x = rng.normal(size=(1, 120, 4)); x[0, :, 0] += 4 * y
    >>> store = from_arrays({"resid_post": x}, labels={"true": y, "topic": topic})
    >>> result = generalisation_matrix(store, label="true", across="topic", groups=None, n_bootstrap=100)
    >>> result.findings[0].verdict
    'found'
    """
    if across is not None and not isinstance(stores, Mapping):
        stores = by_value(stores, across)
    if not isinstance(stores, Mapping) or len(stores) < 2:
        raise LayerprobeError(
            f"stores is a {type(stores).__name__}, expected a name for each of two or more: {{'cities': a, "
            "'translations': b}, or one store with across='COLUMN', which names the dataset of each row"
        )
    where = find_device(device)
    tasks = _tasks(stores, label, groups, seed, kind=kind, held_out=held_out, n_folds=n_folds)
    first = next(iter(stores))
    places = list_places(stores[first], sites, layers)
    _check_alike(stores, tasks, places, first)
    for name, store in stores.items():
        check_places(store, places, [tasks[name]])
    found = find_method(method, tasks[first].kind)
    metric = "auroc" if tasks[first].n_classes else "pearson"
    rows, notes, directions = [], [], []
    for source, store in stores.items():
        task = tasks[source]
        notes += [f"{source}: {note}" for note in (*near_duplicate_notes(store, [task]), *task.notes)]

        def work(place: Place, store: ActivationStore = store, task: Task = task) -> LayerFit:
            x = on_device(rows_at(store, place, task), where)
            return fit_layer(x, task, found, strengths=found.strengths)

        fits = over_layers(work, places, threads=threads if where is None else 1)
        directions.append(directions_of(task, places, fits))
        targets = {name: new_rows(store, task, stores[name], tasks[name]) for name in stores}
        alone: dict[str, dict[str, Predicted]] = {name: {} for name in stores}
        if baselines:
            with one_blas_thread():
                alone = prompts_alone(stores, tasks, source, targets, where)
        for name, target in targets.items():
            notes += target.notes(source, name)
            weights = target.draws(n_bootstrap, seed + 3)
            flat = {f"baseline_{key}": target.score(metric, one) for key, one in alone[name].items()}
            for place, fit in zip(places, fits, strict=True):
                x = rows_at(stores[name], place, tasks[name])[target.test]
                common = {
                    "model": store.model_name,
                    "tokens": store.tokens,
                    "site": place.site,
                    "layer": place.layer,
                    "head": place.head,
                    "method": fitted_method(method, tasks[first].kind),
                    "target": label,
                    "metric": metric,
                    "train_on": source,
                    "test_on": name,
                    "left_out": target.left_out,
                    "strength": fit.strength,
                    "converged": fit.converged,
                    "seed": seed,
                }
                scored = target.scored(metric, Predicted(x @ fit.weight.T + fit.bias), weights)
                rows.append({**common, **scored, **flat})
    return AnalysisResult(
        kind="generalisation_matrix",
        table=tidy(rows),
        directions=stack_directions(directions, list(stores)),
        provenance={"label": label},
        notes=tuple(dict.fromkeys(notes)),
    )


def by_value(store: ActivationStore, across: str) -> dict[str, ActivationStore]:
    """One store as several, by the values of a label column.

    Raises:
        LayerprobeError: no such column, or one value only.
    """
    if across not in store.label_names:
        raise LayerprobeError(f"across={across!r} is not a label column; have {', '.join(store.label_names)}")
    values = np.array([str(value) for value in store.labels(across)])
    names = list(dict.fromkeys(values.tolist()))
    if len(names) < 2:
        raise LayerprobeError(f"{across!r} has the one value {names[0]!r}; name a column with two or more")
    return {name: store.select(np.flatnonzero(values == name)) for name in names}


def _tasks(
    stores: Mapping[str, Any],
    label: str,
    groups: Any,
    seed: int,
    *,
    kind: str | None,
    held_out: float,
    n_folds: int,
) -> dict[str, Task]:
    """Every store's task, all split alike."""
    common = common_groups(stores, groups)

    def task(name: str, test: Any) -> Task:
        split = {"groups": common[name], "held_out": test, "n_folds": n_folds, "seed": seed}
        return make_task(stores[name], label, kind=kind, **split)

    whole = {name: task(name, None) for name in stores}
    tests = common_held_out(common, whole, share=held_out, seed=seed)
    return {name: task(name, tests[name]) for name in stores}


def _check_alike(
    stores: Mapping[str, Any], tasks: Mapping[str, Task], places: list[Place], first: str
) -> None:
    for name, store in stores.items():
        if tasks[name].classes != tasks[first].classes or tasks[name].kind != tasks[first].kind:
            raise LayerprobeError(
                f"{name!r} has classes {tasks[name].classes} where {first!r} has {tasks[first].classes} (a "
                "graded label has none); rename them so that they agree"
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
