"""The loop of a probe analysis: labels × places, one split, shared draws, one correction over all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...cache.store.activations import ActivationStore
from ..reading.device import alike, bytes_per_layer, find_device, how_many_fit, over_batches
from ..reading.labels import kind_of, label_list
from ..reading.places import Place, check_places, list_places, rows_at, width_at
from ..reading.task import Task, make_task
from ..reading.threads import one_blas_thread, over_layers, threads_within_memory
from ..result.analysis import AnalysisResult, tidy
from ..result.directions import Directions
from .baselines import Baselines, fit_baselines
from .duplicates import near_duplicate_notes
from .fit import LayerFit, fit_layer, fit_layers
from .inference import Inference, add_p_values, best_layers, infer, make_inference
from .methods import Method, fitted_method
from .option_checks import ProbePlan, metrics_for, strength_grid
from .outputs import directions_of, join_scores, scores_frame, stack_directions, texts_frame
from .problem import Floats

Build = Callable[[Task], tuple[Method, Callable[[Floats], Floats] | None]]
"""Chooses the method for a task, and what to do to its rows first (None: nothing)."""


@dataclass(frozen=True)
class Probed:
    """One label, probed everywhere."""

    task: Task
    fits: list[LayerFit]
    inference: Inference
    base: Baselines


def probe_task(
    store: ActivationStore, label: Any, name: str, build: Build, plan: ProbePlan, *, drop_last: bool = False
) -> AnalysisResult:
    """Probe one label or several with the method that `build` gives.

    Args:
        store: an activation store.
        label: as `linear_probe`.
        name: of the method, for the table.
        build: called with each task.
        plan: everything else.
        drop_last: the last feature is not the model's, and is taken off the directions.
    """
    where = find_device(plan.device)
    labels = label_list(store, label)
    places = list_places(store, plan.sites, plan.layers)
    planned = []
    for one in labels:
        task = make_task(
            store,
            one,
            groups=plan.groups,
            held_out=plan.held_out,
            n_folds=plan.n_folds,
            seed=plan.seed,
            positive=plan.positive,
            kind=kind_of(plan.kind, one, labels),
        )
        found, prepare = build(task)
        inference = make_inference(
            task,
            metrics_for(task.kind, plan.metrics, label=task.name),
            n_bootstrap=plan.n_bootstrap,
            n_permutations=plan.n_permutations,
            permute=plan.permute,
            seed=plan.seed,
            lengths=None if store.lengths is None else np.asarray(store.lengths)[task.rows],
        )
        grid = strength_grid(plan.strengths, found.strengths)
        planned.append((task, inference, found, prepare, grid))
    check_places(store, places, [task for task, *_ in planned])
    probed = []
    for task, inference, found, prepare, grid in planned:
        weight = plan.class_weight
        with one_blas_thread():
            base = fit_baselines(store, task, words=plan.baselines, class_weight=weight, device=where)
        work = _Work(store, task, found, prepare, grid, weight, inference.metrics[0], drop_last)
        bar: dict[str, Any] = {"progress": plan.progress, "description": f"{name}: {task.name}"}
        if where is None:
            fits = over_layers(work, places, threads=plan.threads or work.threads(places), **bar)
        else:
            fits = _side_by_side(work, places, where, bar)
        probed.append(Probed(task, fits, inference, base))
    return _result(store, name, places, probed, plan.seed)


@dataclass(frozen=True)
class _Work:
    store: ActivationStore
    task: Task
    method: Method
    prepare: Callable[[Floats], Floats] | None
    strengths: Floats
    class_weight: str | None
    metric: str
    drop_last: bool

    def threads(self, places: Sequence[Place]) -> int:
        """As many layers at a time as there are cores, and memory for."""
        return threads_within_memory(max(self.bytes_at(width_at(self.store, place)) for place in places))

    def bytes_at(self, width: int) -> int:
        """About what a layer of this width takes while it is fitted."""
        columns = (int(self.task.fold.max()) + 1) * len(self.strengths) * max(1, self.task.n_classes)
        return bytes_per_layer(len(self.task.rows), width, columns)

    def __call__(self, place: Place) -> LayerFit:
        return self._finished(
            fit_layer(
                self._rows(place),
                self.task,
                self.method,
                strengths=self.strengths,
                class_weight=self.class_weight,
                metric=self.metric,
            )
        )

    def together(self, places: Sequence[Place], device: torch.device) -> list[LayerFit]:
        """The same at places of one width, side by side on a device."""
        x = torch.empty(0, device=device)
        for index, place in enumerate(places):
            rows = torch.from_numpy(self._rows(place))
            if index == 0:
                x = torch.empty(len(places), *rows.shape, dtype=rows.dtype, device=device)
            x[index] = rows
        fits = fit_layers(
            x,
            self.task,
            self.method,
            strengths=self.strengths,
            class_weight=self.class_weight,
            metric=self.metric,
        )
        return [self._finished(fit) for fit in fits]

    def _rows(self, place: Place) -> Floats:
        x = rows_at(self.store, place, self.task)
        return x if self.prepare is None else self.prepare(x)

    def _finished(self, fit: LayerFit) -> LayerFit:
        return fit.without_last() if self.drop_last else fit


def _side_by_side(
    work: _Work, places: list[Place], device: torch.device, bar: dict[str, Any]
) -> list[LayerFit]:
    """Fits of all places in their order, those of one width together."""
    found: dict[Place, LayerFit] = {}
    widths = [width_at(work.store, place) for place in places]
    for width, mine in alike(places, widths).items():
        fits = over_batches(
            lambda batch: work.together(batch, device),
            mine,
            at_a_time=how_many_fit(device, work.bytes_at(width)),
            **bar,
        )
        found |= dict(zip(mine, fits, strict=True))
    return [found[place] for place in places]


def _result(
    store: ActivationStore, name: str, places: list[Place], probed: list[Probed], seed: int
) -> AnalysisResult:
    rows: list[dict[str, Any]] = []
    best: list[dict[str, Any]] = []
    leads: list[dict[str, Any]] = []
    notes: list[str] = []
    for one in probed:
        common = {
            "model": store.model_name,
            "dataset": store.dataset_name,
            "tokens": store.tokens,
            "method": fitted_method(name, one.task.kind),
            "target": one.task.name,
            "split": "held_out",
            "seed": seed,
        }
        rows += [{**common, **row} for row in infer(one.task, places, one.fits, one.inference, one.base)]
        chosen, differences = best_layers(one.task, places, one.fits, one.inference, one.base)
        best += [{**common, **row} for row in chosen]
        leads += [{**common, **row} for row in differences]
        notes += [*one.base.missing, *one.inference.notes, *one.task.notes]
    add_p_values(rows)
    tasks = [one.task for one in probed]
    notes = [*near_duplicate_notes(store, tasks), *notes]
    frames = {"best_layer": tidy(best), "against_baselines": tidy(leads)}
    texts = texts_frame(store, tasks)
    if texts is not None:
        frames["texts"] = texts
    return AnalysisResult(
        kind="linear_probe",
        table=tidy(rows),
        scores=join_scores([scores_frame(store, one.task, places, one.fits) for one in probed]),
        directions=_directions(places, probed),
        frames=frames,
        provenance=_provenance(store, probed),
        notes=tuple(dict.fromkeys(notes)),
    )


def _directions(places: list[Place], probed: list[Probed]) -> Directions | None:
    if any(fit.weight.size == 0 for one in probed for fit in one.fits):
        return None
    parts = [directions_of(one.task, places, one.fits) for one in probed]
    return stack_directions(parts, [one.task.name for one in probed])


def _provenance(store: ActivationStore, probed: list[Probed]) -> dict[str, Any]:
    first = probed[0]
    return {
        "labels": [one.task.name for one in probed],
        "tasks": [one.task.kind for one in probed],
        "classes": {one.task.name: list(one.task.classes) for one in probed},
        "label_in_groups": {one.task.name: one.task.structure for one in probed},
        "store": dict(store.identity),
        "n_bootstrap": len(first.inference.weights),
        "n_permutations": 0 if first.inference.null_labels is None else len(first.inference.null_labels),
    }
