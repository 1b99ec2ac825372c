"""Models side by side through the lens: suppression of each, paired differences, how far the lenses part."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..lens.suppression_index import (
    CI,
    Draws,
    SubsetReading,
    gap_null,
    read_subset,
    sign_flip_null,
    weighted_mean,
)
from ..lens.suppression_rows import add_index_p, contrast_rows, gap_p, paired_rows, subset_rows, verdict
from ..lens.trajectories import Trajectory
from ..reading.pairing import Paired, matched_layers
from ..statistics.bounded import from_draws
from .geometry import where_of

Floats = NDArray[np.float64]


def lens_rows(
    trajectories: Mapping[str, Trajectory],
    paired: Paired,
    subsets: Mapping[str, NDArray[np.bool_]],
    draws: Draws,
    *,
    by: str | None,
    contrast: str | None,
    n_permutations: int,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Suppression rows of every model and of every model minus the reference, and all verdicts.

    Bootstrap weights, halves and sign flips are one set for all models, so every difference is paired over
    prompts.
    """
    rows: list[dict[str, Any]] = []
    verdicts, readings = [], {}
    for name, trajectory in trajectories.items():
        readings[name] = {subset: read_subset(trajectory, mask, draws) for subset, mask in subsets.items()}
        own = [
            row
            for subset, reading in readings[name].items()
            for row in subset_rows(trajectory, subset, reading, draws)
        ]
        add_index_p(own, readings[name], draws, n_permutations)
        own += contrast_rows(trajectory, readings[name], draws, by, contrast, n_permutations)
        table = pd.DataFrame(own)
        verdicts += [
            {"model": name, **verdict(subset, table, trajectory, readings[name][subset])}
            for subset in subsets
        ]
        rows += [{"model": name, **row} for row in own]
    for name, trajectory in trajectories.items():
        if name != paired.reference:
            rows += _model_minus_reference(
                name,
                paired.reference,
                trajectory,
                trajectories[paired.reference],
                readings,
                draws,
                n_permutations,
            )
    return rows, pd.DataFrame(verdicts)


def _model_minus_reference(
    name: str,
    reference: str,
    trajectory: Trajectory,
    theirs: Trajectory,
    readings: Mapping[str, Mapping[str, SubsetReading]],
    draws: Draws,
    n: int,
) -> list[dict[str, Any]]:
    rows = []
    subsets, met = list(readings[name]), met_layers(trajectory, theirs)
    for subset in subsets:
        one, two = readings[name][subset], readings[reference][subset]
        common = {
            "model": name,
            "reference": reference,
            "subset": subset,
            "n": int(one.rows.sum()),
            "n_groups": draws.n_groups(one.rows),
            "ci_method": CI,
        }
        found = paired_rows(trajectory, one, two, common, met=met)
        null = sign_flip_null(one.scores - two.scores, draws.groups, n, draws.seed)
        found[0].update(gap_p(*null))
        rows += found
    for number, subset in enumerate(subsets):
        for other in subsets[number + 1 :] if len(subsets) > 1 else []:
            rows.append(_interaction(name, reference, subset, other, readings, draws, n))
    return rows


def met_layers(own: Trajectory, other: Trajectory) -> tuple[int, ...] | None:
    """The other's layer that each of ours meets by relative depth; `None` where layers are the same."""
    if own.layers == other.layers and own.n_layers == other.n_layers:
        return None
    return matched_layers(own.layers, own.n_layers, other.layers, other.n_layers)


def _interaction(
    name: str,
    reference: str,
    subset: str,
    other: str,
    readings: Mapping[str, Mapping[str, SubsetReading]],
    draws: Draws,
    n: int,
) -> dict[str, Any]:
    """(index of the model − of the reference) in one subset, minus the same in another."""
    mine, theirs = readings[name], readings[reference]
    values = (mine[subset].index - theirs[subset].index) - (mine[other].index - theirs[other].index)
    first, second = mine[subset].rows, mine[other].rows
    both = first | second
    row = {
        "model": name,
        "reference": reference,
        "subset": subset,
        "minus": other,
        "metric": "suppression_index",
        **from_draws("suppression_index", values, difference=True),
        "n": int(both.sum()),
        "n_groups": draws.n_groups(both),
        "ci_method": CI,
    }
    scores = np.where(
        first, mine[subset].scores - theirs[subset].scores, mine[other].scores - theirs[other].scores
    )
    try:
        row.update(gap_p(*gap_null(scores[both], first[both], draws.groups[both], n, draws.seed)))
    except LayerprobeError as error:
        row["note"] = f"no permutation p: {error}"
    return row


def lens_kl_rows(
    paired: Paired, subsets: Mapping[str, NDArray[np.bool_]], draws: Draws
) -> Iterator[dict[str, Any]]:
    """KL(reference ‖ model) of the lens distributions per layer, over the candidate answers and all the rest.

    A store keeps the probabilities of the candidates, not the vocabulary's; merging the rest into one outcome
    can only lower a KL, so this is a lower bound of the full one.
    """
    reference = paired.stores[paired.reference].lens
    order = paired.order[paired.reference]
    for name, store in paired.stores.items():
        if name == paired.reference:
            continue
        ids, theirs = (
            np.asarray(store.lens.candidate_ids)[paired.order[name]],
            np.asarray(reference.candidate_ids)[order],
        )
        if ids.shape != theirs.shape or (ids != theirs).any():
            continue  # different tokenizers: there is no common set of outcomes
        one, two = outcomes(store.lens, paired.order[name]), outcomes(reference, order)
        met = lens_places(paired, name)
        two = two[[list(reference.layers).index(layer) for layer in met]]
        kl = np.sum(two * (np.log(np.maximum(two, 1e-30)) - np.log(np.maximum(one, 1e-30))), axis=-1)
        for subset, mask in subsets.items():
            means = weighted_mean(kl.T, draws.weights * mask)
            for position, layer in enumerate(store.lens.layers):
                yield {
                    "model": name,
                    "reference": paired.reference,
                    "subset": subset,
                    **where_of(paired, name, {name: int(layer), paired.reference: met[position]}),
                    "metric": "lens_kl",
                    **from_draws("lens_kl", means[:, position]),
                    "ci_method": CI,
                    "n": int(mask.sum()),
                    "n_groups": draws.n_groups(mask),
                    "note": "nats, over the candidates and all other tokens as one: a lower bound",
                }


def lens_places(paired: Paired, name: str) -> tuple[int, ...]:
    """The reference's lens layer that each of a model's lens layers meets."""
    own, other = (tuple(map(int, paired.stores[one].lens.layers)) for one in (name, paired.reference))
    return matched_layers(own, paired.depth(name), other, paired.depth(paired.reference))


def outcomes(lens: Any, order: NDArray[np.int64]) -> Floats:
    """[layers, rows, candidates + 1] probabilities of every candidate token (each id once) and the rest."""
    logits = np.asarray(lens.candidate_logits, dtype=np.float64)[:, order]
    ids = np.asarray(lens.candidate_ids)[order].reshape(len(order), -1)
    share = np.exp(
        logits.reshape(*logits.shape[:2], -1) - np.asarray(lens.logsumexp, dtype=np.float64)[:, order, None]
    )
    repeated = np.array([[value in row[:place] for place, value in enumerate(row)] for row in ids.tolist()])
    share = np.where(np.isnan(share) | repeated, 0.0, share)
    return np.concatenate([share, np.maximum(1 - share.sum(axis=-1, keepdims=True), 0.0)], axis=-1)
