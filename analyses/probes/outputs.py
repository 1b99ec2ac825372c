"""Scores per example, directions and texts of fitted probes, gathered for the result."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ..reading.places import Place
from ..reading.task import Task
from ..result.directions import Directions
from .fit import LayerFit


def texts_frame(store: ActivationStore, tasks: Sequence[Task]) -> pd.DataFrame | None:
    """Prompts by id, to be read beside scores: of every row that some task has."""
    if store.texts is None:
        return None
    used = np.unique(np.asarray(store.examples)[np.concatenate([task.rows for task in tasks])])
    ids = used if store.ids is None else _ids_of_examples(store, used)
    return pd.DataFrame({"id": ids, "example": used, "text": [store.texts[example] for example in used]})


def _ids_of_examples(store: ActivationStore, examples: NDArray[np.int64]) -> list[str]:
    first = dict(zip(np.asarray(store.examples).tolist(), np.asarray(store.ids).tolist(), strict=True))
    return [first[example] for example in examples.tolist()]


def scores_frame(
    store: ActivationStore, task: Task, places: Sequence[Place], fits: Sequence[LayerFit]
) -> pd.DataFrame:
    """One row per example × place, by a fit that had not seen it.

    `score` is the probe's own; `margin` how far, in log-odds, the true class is ahead in the decision that
    `predicted` and the table are of: positive where right.
    """
    ids = np.asarray(store.examples if store.ids is None else store.ids)[task.rows]
    positions = np.asarray(store.positions)[task.rows]
    names = np.array(task.classes, dtype=object)[task.y] if task.classes else task.y
    tables = []
    for place, fit in zip(places, fits, strict=True):
        margin, probability = fit.predicted.margin, fit.predicted.probability
        columns: dict[str, Any] = {
            "id": ids,
            "example": np.asarray(store.examples)[task.rows],
            "position": positions,
            "target": task.name,
            "site": place.site,
            "layer": place.layer,
            "split": np.where(task.test, "held_out", "out_of_fold"),
            "label": names,
        }
        if place.head is not None:
            columns["head"] = place.head
        if task.kind == "binary":
            odds = margin if fit.predicted.decision is None else fit.predicted.decision
            columns |= {"score": margin, "probability": probability, "margin": odds * (2 * task.y - 1)}
            if probability is not None:
                columns["predicted"] = np.array(task.classes, dtype=object)[fit.predicted.decided()]
        elif task.kind == "regression":
            columns |= {"score": margin, "margin": -np.abs(margin - task.y), "value": task.y}
        else:
            odds = margin if fit.predicted.decision is None else fit.predicted.decision
            true = odds[np.arange(len(task.y)), task.y]
            others = np.where(np.eye(task.n_classes, dtype=bool)[task.y], -np.inf, odds).max(axis=1)
            given = probability[np.arange(len(task.y)), task.y] if probability is not None else np.nan
            columns |= {"predicted": np.array(task.classes, dtype=object)[odds.argmax(axis=1)]}
            columns |= {"probability": given, "margin": true - others}
        tables.append(pd.DataFrame(columns))
    scores = pd.concat(tables, ignore_index=True)
    scores["layer"] = scores["layer"].astype("Int64")
    return scores


def join_scores(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Scores of several labels as one table.

    Classes are names and grades are numbers, and no column of a file holds both: where there are both,
    `label` is the classes' alone. `value` has the grades in any case.
    """
    graded = ["value" in part for part in parts]
    if any(graded) and not all(graded):
        parts = [
            part.assign(label=pd.Series(None, index=part.index, dtype=object)) if values else part
            for part, values in zip(parts, graded, strict=True)
        ]
    return pd.concat(parts, ignore_index=True)


def directions_of(task: Task, places: Sequence[Place], fits: Sequence[LayerFit]) -> Directions:
    """Raw-space weights and biases by site and layer; heads stacked."""
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
            # double precision: at a large offset a rounded weight moves every score
            array = np.stack([np.asarray(value, dtype=np.float64) for value in values])
            store_in.setdefault(site, {})[layer] = array if by_head else array[0]
    several = task.kind == "multinomial"
    return Directions(
        weights,
        bias,
        task.classes if several else (),
        {"fold_cosine": cosine},
        "classes" if several else "targets",
    )


def stack_directions(parts: Sequence[Directions], names: Sequence[str]) -> Directions:
    """Directions of several labels as one, targets on the first axis; side by side if any has an axis of
    classes, for then they share no shape."""
    if len(parts) == 1:
        return parts[0]
    if any(part.axis == "classes" for part in parts):
        return Directions({}, {}, by_target=dict(zip(names, parts, strict=True)))

    def joined(pick: Any) -> Any:
        first = pick(parts[0])
        return {
            site: {
                layer: np.stack([np.asarray(pick(part)[site][layer]) for part in parts]) for layer in layers
            }
            for site, layers in first.items()
        }

    extra = {"fold_cosine": joined(lambda part: part.extra["fold_cosine"])}
    return Directions(joined(lambda part: part.weights), joined(lambda part: part.bias), tuple(names), extra)
