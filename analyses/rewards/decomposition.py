"""Inference-time probing (MRMBench, 2511.12464): how far a reward can be put together from dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.problem import Floats
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Classes
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.metrics import r2
from ..statistics.resampling import (
    STORED,
    check_finite,
    cluster_bootstrap_weights,
    resolve_groups,
    split_half,
)
from .class_distances import cluster_distances
from .decomposition_view import draw, found
from .preferences import preference_dimensions
from .scalar_head import reward_head

if TYPE_CHECKING:
    from ...hooks.model import Model

CI_METHOD = "cluster bootstrap over groups that the regression has not seen"
GEOMETRY = "geometry of the directions at hand: no sampling, no interval"
READ_ELSEWHERE = ("mean", "first")
"""Ends of token rules whose rows are no state that a head reads."""
CLOSE = 0.05
"""Standard deviations of the rewards by which a rounded state may miss them."""


@dataclass(frozen=True)
class Axis:
    """One direction of a dimension: its probe's, or with several classes that from one to the next."""

    dimension: str
    contrast: str
    """`yes over no`, or `grade`."""
    unit: Floats
    """[width] of length 1."""


def of_reward_model(
    store: ActivationStore,
    *,
    model: "Model",
    dimensions: Classes,
    site: str = "final_norm",
    layer: int | None = None,
    groups: Any = STORED,
    n_permutations: int = 1000,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> AnalysisResult:
    """`reward_decomposition` of the model's own reward head; probes of the dimensions are fitted first.

    Args:
        dimensions: label columns, one per dimension: two or more classes, or grades.
        n_permutations: relabellings for the p-values of the dimensions' probes.
    """
    reward, _ = reward_head(model)
    draws: dict[str, Any] = {"groups": groups, "seed": seed, "n_bootstrap": n_bootstrap}
    where: dict[str, Any] = {"sites": site, "layers": None if layer is None else [layer]}
    where["n_permutations"] = n_permutations
    # one at a time, so that classes and grades may be mixed
    probes = [preference_dimensions(store, dimensions=[name], **where, **draws) for name in dimensions]
    return reward_decomposition(store, probes, reward=reward, site=site, layer=layer, **draws)


@analysis(
    call=of_reward_model,
    title="What does the reward rest on?",
    group="read",
    guide="probes",
    findings=found,
    picture=draw,
)
def reward_decomposition(
    store: ActivationStore,
    probes: AnalysisResult | Sequence[AnalysisResult],
    *,
    reward: ArrayLike | tuple[ArrayLike, float],
    site: str,
    layer: int | None = None,
    rewards: str | ArrayLike | None = None,
    groups: Any = STORED,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> AnalysisResult:
    """Which dimensions a scalar reward rests on: its prediction from dimension scores, and what is left.

    Two views. *Geometric*: the reward direction as a least-squares combination of the dimension directions,
    with the share of its length they do not span. *On data*: reward predictions regressed on dimension scores
    on one half of the groups and judged on the other; a dimension's `unique` is the R² lost without it.
    Dimensions overlap, so shares need not add up. A dimension of two classes has its probe's direction, a
    graded one its ridge direction, one of k classes the k − 1 directions from each class to the next.

    Args:
        store: the states that the head reads: `final_norm` of the last token.
        probes: from `preference_dimensions` on the same site, or a list of such results.
        reward: [width] the head's direction, or the direction with its bias, as `reward_head` gives them.
        site: where.
        layer: where.
        rewards: the model's own reward of every row (or the column that holds it): the direction is checked
            against them. Needed at every site but `final_norm`, where no head of a reward model reads.
        groups: as `linear_probe`.
        n_bootstrap: cluster-bootstrap draws for the interval of R².
        seed: of the halves and draws.

    Returns:
        One row per dimension (`estimate` = R² lost without it, `coefficient` where it has one direction,
        `cosine` with it, or with the plane of several) and rows of metric `r2` and `unexplained_norm`; frame
        `axes`: coefficient and cosine of every direction; frame `cluster_distances`: for each row the
        distance to each dimension's class means (thirds of a graded one), in standard deviations.

    Raises:
        LayerprobeError: a site that the head does not read, states that are not finite, or directions of
            another width.

    >>> from layerprobe import from_arrays
    >>> from layerprobe.analyses.rewards.preferences import preference_dimensions
    >>> rng = np.random.default_rng(0)
    >>> helpful = rng.integers(2, size=200)
    >>> x = rng.normal(size=(200, 6)); x[:, 0] += 4 * helpful
    >>> store = from_arrays({"final_norm": x}, labels={"helpful": helpful})
    >>> few = {"groups": None, "n_bootstrap": 20}
    >>> probes = preference_dimensions(store, dimensions=["helpful"], n_permutations=0, **few)
    >>> result = reward_decomposition(store, probes, reward=np.eye(6)[0], site="final_norm", **few)
    >>> float(result.table.query("metric == 'r2'")["estimate"].iloc[0]) > 0.7
    True
    """
    if n_bootstrap < 1:
        raise LayerprobeError(f"n_bootstrap={n_bootstrap}, expected 1 or more (500 is usual)")
    axes = [
        axis
        for result in ([probes] if isinstance(probes, AnalysisResult) else probes)
        for axis in axes_of(result, site, layer)
    ]
    x = np.asarray(store.activations(site, layer), dtype=np.float64)
    head, bias = _head(reward)
    widths = {axis.unit.shape[0] for axis in axes}
    if x.ndim != 2 or {head.shape[0], *widths} != {x.shape[1]}:
        raise LayerprobeError(
            f"the reward direction has width {head.shape[0]}, the probes {sorted(widths)} and {site} "
            f"{x.shape[1:]}; all three must be of one model and site"
        )
    check_finite(x, site=site, layer=layer, ids=store.ids)
    predicted = x @ head
    _check_reads(store, site, layer, predicted + bias, rewards)
    codes = resolve_groups(store, groups)
    fit = split_half(codes, seed)
    weights = cluster_bootstrap_weights(codes[~fit], n_bootstrap, seed + 1)
    common = {
        "model": store.model_name,
        "site": site,
        "layer": layer,
        "method": "least squares",
        "seed": seed,
        "n": int((~fit).sum()),
        "n_groups": len(np.unique(codes[~fit])),
    }
    rows, frame = _decomposed(axes, head, x, predicted, fit, weights)
    names = list(dict.fromkeys(axis.dimension for axis in axes))
    return AnalysisResult(
        kind="reward_decomposition",
        table=tidy({**common, **row} for row in rows),
        frames={"axes": frame, "cluster_distances": cluster_distances(store, names, x, fit)},
        provenance={"dimensions": names},
    )


def axes_of(probes: AnalysisResult, site: str, layer: int | None) -> list[Axis]:
    """The directions of every dimension of a probe result at one place.

    Raises:
        LayerprobeError: no directions, or one without length.
    """
    names, kinds = probes.provenance.get("labels", []), probes.provenance.get("tasks", [])
    directions = probes.directions
    if directions is None or not names:
        raise LayerprobeError(
            f"this {probes.kind} result keeps no directions of dimensions; pass what "
            "preference_dimensions(store, dimensions=[...]) gave"
        )
    found = []
    for name, kind in zip(names, kinds, strict=True):
        own = (directions if len(names) == 1 else directions.of(name))[site, layer]
        classes = probes.provenance["classes"][name]
        if own.ndim == 2:
            steps = zip(classes[1:], classes, strict=False)
            vectors = list(np.diff(own, axis=0))
            contrasts = [f"{one} over {other}" for one, other in steps]
        else:
            vectors = [own]
            contrasts = ["grade" if kind == "regression" else f"{classes[1]} over {classes[0]}"]
        for contrast, vector in zip(contrasts, vectors, strict=True):
            length = np.linalg.norm(vector)
            if not np.isfinite(length) or length == 0:
                raise LayerprobeError(
                    f"the probe of {name!r} has no direction at {site}[{layer}] (its weights are 0): leave "
                    "that dimension out, or fit it with weaker regularisation (strengths=)"
                )
            found.append(Axis(name, contrast, vector / length))
    return found


def _head(reward: Any) -> tuple[Floats, float]:
    bias = 0.0
    if isinstance(reward, tuple) and len(reward) == 2 and np.ndim(reward[0]) == 1:
        reward, bias = reward[0], float(reward[1])
    head = np.asarray(reward, dtype=np.float64).ravel()
    if not np.isfinite(head).all() or not head.any():
        raise LayerprobeError(
            "the reward direction is all 0 or not finite; pass the head's weight, such as "
            'reward_head("FOLDER")[0]'
        )
    return head, bias


def _check_reads(store: ActivationStore, site: str, layer: int | None, read: Floats, rewards: Any) -> None:
    """Refuse a site whose product with the head is not the reward."""
    place = site if layer is None else f"{site}[{layer}]"
    if rewards is None:
        if site != "final_norm":
            raise LayerprobeError(
                f"a reward head reads final_norm, and its product with {place} is not the reward; capture "
                "final_norm and pass site='final_norm', or pass rewards= (the model's own reward of every "
                "row), against which the direction is then checked"
            )
        if store.tokens.rsplit(":", 1)[-1] in READ_ELSEWHERE:
            raise LayerprobeError(
                f"these rows are tokens={store.tokens!r}, and a reward head reads the last token; capture "
                "with tokens='last', or pass rewards= to have the direction checked"
            )
        return
    if isinstance(rewards, str) and rewards not in store.label_names:
        raise LayerprobeError(
            f"rewards={rewards!r} is not a label column; have {', '.join(store.label_names)}"
        )
    own = np.asarray(store.labels(rewards) if isinstance(rewards, str) else rewards, dtype=np.float64)
    if own.shape != read.shape:
        raise LayerprobeError(f"rewards has shape {own.shape}, expected one for each of {len(read)} rows")
    known = np.isfinite(own)
    if known.sum() < 3 or own[known].std() == 0:
        raise LayerprobeError("rewards are the same in every row, or known in fewer than 3: nothing to check")
    gap = float((read - own)[known].std() / own[known].std())
    if gap > CLOSE:
        raise LayerprobeError(
            f"the direction's product with {place} misses the given rewards by {gap:.2f} of their standard "
            f"deviations (correlation {np.corrcoef(read[known], own[known])[0, 1]:.2f}), so it is not what "
            "the head reads there; try site='final_norm' of tokens='last', and check that rows are in order"
        )


def _decomposed(
    axes: Sequence[Axis], head: Floats, x: Floats, predicted: Floats, fit: NDArray[np.bool_], weights: Any
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Rows of the table, and the frame of every direction."""
    unit = np.stack([axis.unit for axis in axes])
    of = np.array([axis.dimension for axis in axes])
    length = np.linalg.norm(head)
    coefficient = np.linalg.lstsq(unit.T, head, rcond=None)[0]
    cosine = unit @ head / length
    scores = x @ unit.T
    whole, draws = _explained(scores, predicted, fit, weights)
    lo, hi = (float(bound) for bound in np.quantile(draws, [0.025, 0.975]))
    left = float(np.linalg.norm(head - unit.T @ coefficient) / length)
    rows: list[dict[str, Any]] = [
        {"metric": "r2", **bounded("r2", whole, lo, hi), "ci_method": CI_METHOD},
        {
            "metric": "unexplained_norm",
            "estimate": left,
            "note": GEOMETRY,
        },
        {"metric": "unexplained_share", "estimate": left**2, "note": GEOMETRY},
    ]
    for name in dict.fromkeys(of.tolist()):
        mine = of == name
        without, other_draws = _explained(scores[:, ~mine], predicted, fit, weights)
        lo, hi = (float(bound) for bound in np.quantile(draws - other_draws, [0.025, 0.975]))
        row = {"target": name, "metric": "unique_r2", **bounded("unique_r2", whole - without, lo, hi)}
        if mine.sum() == 1:
            row |= {"coefficient": float(coefficient[mine][0]), "cosine": float(cosine[mine][0])}
        else:
            plane = np.linalg.svd(unit[mine], full_matrices=False)[2]
            row |= {"coefficient": None, "cosine": float(np.linalg.norm(plane @ head) / length)}
        rows.append(
            row | {"ci_method": CI_METHOD, "share": float((coefficient * cosine)[mine].sum() / length)}
        )
    frame = pd.DataFrame(
        {
            "target": of,
            "contrast": [axis.contrast for axis in axes],
            "coefficient": coefficient,
            "cosine": cosine,
        }
    )
    return rows, frame


def _explained(scores: Floats, target: Floats, fit: NDArray[np.bool_], weights: Any) -> tuple[float, Floats]:
    design = np.concatenate([scores, np.ones((len(scores), 1))], axis=1)
    beta = np.linalg.lstsq(design[fit], target[fit], rcond=None)[0]
    predicted = design[~fit] @ beta
    return float(r2(target[~fit], predicted)[0]), r2(target[~fit], predicted, weights)
