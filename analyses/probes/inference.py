"""What held-out groups say: estimates, intervals, a permutation null, the lead over the baselines."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..reading.task import Task
from ..statistics.bounded import bounded, null_fields
from ..statistics.intervals import benjamini_hochberg, max_t, permutation_p
from ..statistics.metrics import LOWER_IS_BETTER, Predicted, check_metric, score, stratified_auroc
from ..statistics.relabelling import free_groups
from ..statistics.resampling import cluster_bootstrap_weights, group_permutations
from ..statistics.score_intervals import deciding_groups, interval
from .baselines import Baselines
from .fit import LayerFit

if TYPE_CHECKING:
    from ..reading.places import Place

Floats = NDArray[np.float64]
CI_METHOD = "cluster bootstrap over held-out groups"
FEWEST_LENGTHS = 3
"""Lengths at which the label must differ for length to count as held fixed."""


@dataclass(frozen=True)
class Inference:
    """Draws over the held-out groups, shared by every site and layer, so that differences are paired."""

    metrics: tuple[str, ...]
    """The first is the one that is tested and chosen by."""
    test: NDArray[np.int64]
    """Held-out rows of the task."""
    weights: NDArray[np.float32]
    """[draws, held-out rows] multiplicities."""
    null_labels: NDArray[Any] | None
    """[relabellings, held-out rows]."""
    n_groups: int
    notes: tuple[str, ...]
    groups: NDArray[np.int64]
    """[held-out rows] group of each."""
    strata: NDArray[Any] | None
    """[held-out rows] the same for prompts of the same length; `None` where lengths are unknown."""

    def units(self, metric: str, truth: NDArray[Any], n_classes: int) -> tuple[int, ...]:
        """Independent units behind a metric: held-out groups, or those that hold each class."""
        return deciding_groups(metric, truth, self.groups, n_classes)


def make_inference(
    task: Task,
    metrics: Sequence[str],
    *,
    n_bootstrap: int,
    n_permutations: int,
    permute: str,
    seed: int,
    lengths: NDArray[Any] | None = None,
) -> Inference:
    """Draw bootstrap weights and relabellings of the held-out groups.

    Relabelling only groups that no fit has seen is exact for any method: fits, chosen strengths and chosen
    layers do not depend on held-out labels, which are exchangeable if the label has nothing to do with the
    activations.
    """
    for name in metrics:
        check_metric(name)
    test = np.flatnonzero(task.test)
    groups = task.groups[test]
    notes: list[str] = []
    null = None
    if n_permutations:
        if task.structure == "mixed" and permute == "auto":
            notes.append(
                f"No p-values: {task.name!r} is constant within some groups and varies within others, so "
                "no relabelling is a fair null; pass permute='within' (--permute within), or a groups column "
                "in which it behaves one way."
            )
        else:
            how = task.structure if permute == "auto" else permute
            null = group_permutations(task.y[test], groups, n_permutations, seed + 2, how=how)
            free, among = free_groups(task.y[test], groups)
            if how == "within" and free < among:
                notes.append(
                    f"p-values of {task.name!r} exchange labels within {free} of {among} held-out groups; in "
                    "the others it is constant and stays as it is."
                )
    return Inference(
        tuple(metrics),
        test,
        cluster_bootstrap_weights(groups, n_bootstrap, seed + 3),
        null,
        len(np.unique(groups)),
        tuple(notes),
        groups,
        None if lengths is None else same_length(np.asarray(lengths, dtype=np.float64)[test]),
    )


def same_length(lengths: Floats) -> NDArray[np.int64]:
    """[rows] one code for prompts of the same length, up to 2 % of it (long prompts are rarely equal)."""
    return np.floor(np.log(np.maximum(lengths, 1)) / np.log(1.02) + 1e-9).astype(np.int64)


def null_scores(metric: str, labels: NDArray[Any], predicted: Predicted) -> Floats:
    """[relabellings] the metric of fixed predictions under other labels."""
    if metric == "auroc" and predicted.margin.ndim == 1:
        from scipy.stats import rankdata

        ranks = rankdata(predicted.margin)
        positive = (labels == 1).astype(np.float64)
        n = positive.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (positive @ ranks - n * (n + 1) / 2) / (n * (labels.shape[1] - n))
    return np.array([float(score(metric, relabelled, predicted)[0]) for relabelled in labels])


def infer(
    task: Task, places: "Sequence[Place]", fits: Sequence[LayerFit], inference: Inference, base: Baselines
) -> list[dict[str, Any]]:
    """Rows of the table: every place × metric."""
    truth = task.y[inference.test]
    baseline = {name: predicted.rows(inference.test) for name, predicted in base.predicted.items()}
    flat = {
        metric: {f"baseline_{name}": float(score(metric, truth, p)[0]) for name, p in baseline.items()}
        for metric in inference.metrics
    }
    rows = []
    for place, fit in zip(places, fits, strict=True):
        predicted = fit.predicted.rows(inference.test)
        for metric in inference.metrics:
            estimate = float(score(metric, truth, predicted)[0])
            draws = score(metric, truth, predicted, inference.weights)
            units = inference.units(metric, truth, task.n_classes)
            lo, hi, why = interval(estimate, draws, units, metric)
            row: dict[str, Any] = {
                "site": place.site,
                "layer": place.layer,
                "head": place.head,
                "metric": metric,
                "estimate": estimate,
                "lo": lo,
                "hi": hi,
                "ci_method": CI_METHOD if why is None else None,
                "n": len(truth),
                "n_groups": inference.n_groups,
                **flat[metric],
                "strength": fit.strength,
                "converged": fit.converged,
                "gradient": fit.gradient,
                "fold_cosine": fit.fold_cosine,
                "note": why,
            }
            if metric == inference.metrics[0] and inference.null_labels is not None:
                row["_null"] = null_scores(metric, inference.null_labels, predicted)
            rows.append(row)
        if inference.strata is not None and "auroc" in inference.metrics and task.kind == "binary":
            rows.append(_within_length(rows[-len(inference.metrics)], inference, truth, predicted))
    return rows


def _within_length(
    like: dict[str, Any], inference: Inference, truth: NDArray[Any], predicted: Predicted
) -> dict[str, Any]:
    """The row of AUROC among prompts of the same length: what length cannot have told."""
    strata = inference.strata
    assert strata is not None
    mixed = [code for code in np.unique(strata) if len(np.unique(truth[strata == code])) == 2]
    rows = np.isin(strata, mixed)
    pairs = sum(
        int((truth[strata == code] == 1).sum() * (truth[strata == code] == 0).sum()) for code in mixed
    )
    kept = ("site", "layer", "head", "n_groups", "strength", "converged", "gradient", "fold_cosine")
    row = {name: like[name] for name in kept} | {
        "metric": "auroc_within_length",
        "n": int(rows.sum()),
        "pairs_share": pairs / max(1, int((truth == 1).sum() * (truth == 0).sum())),
    }
    if len(mixed) < FEWEST_LENGTHS:
        few = f"not defined: prompts of the same length differ in the label at {len(mixed)} lengths only"
        return row | {"estimate": np.nan, "lo": np.nan, "hi": np.nan, "ci_method": None, "note": few}
    margin, weights = predicted.margin[rows], inference.weights[:200, rows]
    estimate = float(stratified_auroc(truth[rows], margin, strata[rows])[0])
    draws = stratified_auroc(truth[rows], margin, strata[rows], weights)
    units = deciding_groups("auroc", truth[rows], inference.groups[rows], 2)
    lo, hi, why = interval(estimate, draws, units, "auroc")
    return row | {
        "estimate": estimate,
        "lo": lo,
        "hi": hi,
        "ci_method": None if why else CI_METHOD,
        "note": why,
    }


def add_p_values(table: list[dict[str, Any]]) -> None:
    """P-values of the rows that were tested, family-wise over all labels, sites, layers and heads."""
    rows = [row for row in table if "_null" in row]
    if not rows:
        return
    sign = np.array([-1 if row["metric"] in LOWER_IS_BETTER else 1 for row in rows])
    null = np.stack([row.pop("_null") for row in rows], axis=1)
    observed = np.array([row["estimate"] for row in rows])
    p = permutation_p(sign * observed, sign * null)
    corrections = zip(p, max_t(sign * observed, sign * null), benjamini_hochberg(p), strict=True)
    for index, (row, (own, familywise, q)) in enumerate(zip(rows, corrections, strict=True)):
        row |= {
            **null_fields(null[:, index]),
            "p": float(own),
            "p_familywise": float(familywise),
            "q": float(q),
        }


def best_layers(
    task: Task, places: "Sequence[Place]", fits: Sequence[LayerFit], inference: Inference, base: Baselines
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Per site the layer best on training folds, scored on held-out groups, and its lead over baselines."""
    metric = inference.metrics[0]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    truth = task.y[inference.test]
    best, leads = [], []
    for site in dict.fromkeys(place.site for place in places):
        mine = [index for index, place in enumerate(places) if place.site == site]
        index = max(mine, key=lambda i: np.nan_to_num(fits[i].inner, nan=-np.inf))
        place, predicted = places[index], fits[index].predicted.rows(inference.test)
        estimate = float(score(metric, truth, predicted)[0])
        draws = score(metric, truth, predicted, inference.weights)
        units = inference.units(metric, truth, task.n_classes)
        lo, hi, why = interval(estimate, draws, units, metric)
        where = {"site": site, "layer": place.layer, "head": place.head, "metric": metric}
        row = {
            **where,
            "estimate": estimate,
            "lo": lo,
            "hi": hi,
            "ci_method": None if why else CI_METHOD,
            "note": why,
        }
        row |= {"n": len(truth), "n_groups": inference.n_groups, "inner_estimate": sign * fits[index].inner}
        if inference.null_labels is not None:
            null = null_scores(metric, inference.null_labels, predicted)
            row["p"] = float(permutation_p(np.array([sign * estimate]), sign * null[:, None])[0])
        best.append(row)
        for name, other in base.predicted.items():
            theirs = other.rows(inference.test)
            gap = sign * (draws - score(metric, truth, theirs, inference.weights))
            lead = sign * (estimate - float(score(metric, truth, theirs)[0]))
            lo, hi, why = interval(lead, gap, units, "difference")
            leads.append(
                {
                    **where,
                    "reference": name,
                    **bounded(metric, lead, lo, hi, difference=True),
                    "n": len(truth),
                    "note": why,
                }
            )
    return best, leads
