"""Scoring pooled rows of one subset: the index with its null, its bootstrap and its spread over seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..separation.draws import Draws, drawn_indices
from ..separation.indices import cluster_indices
from ..statistics.bounded import bounded, null_fields
from ..statistics.resampling import (
    cluster_bootstrap_weights,
    group_codes,
    group_permutations,
    max_t,
    permutation_p,
)
from .forms import quality
from .pooling import LayerPooling


@dataclass(frozen=True)
class Scored:
    """One subset of held-out rows: the index, its draws, and what goes into the table."""

    subset: str
    estimate: float
    null: NDArray[np.float64]
    boot: NDArray[np.float64]
    per_seed: NDArray[np.float64]
    n: int
    n_groups: int
    indices: dict[str, float]


def enough(codes: NDArray[np.int64], keys: NDArray[np.int64], rows: NDArray[np.bool_]) -> bool:
    """Two groups of each class at least."""
    return all(len(np.unique(keys[rows & (codes == k)])) >= 2 for k in (0, 1))


def score(
    layers: NDArray[np.floating],
    pooling: LayerPooling,
    codes: NDArray[np.int64],
    keys: NDArray[np.int64],
    rows: NDArray[np.bool_],
    subset: str,
    variant: str,
    balance: float,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
) -> Scored:
    """AQI of held-out rows with its draws; weights of layers were fitted elsewhere and stay fixed."""
    y, g = codes[rows], group_codes(keys[rows])
    x = torch.from_numpy(pooling.pool(layers[:, rows]))
    permuted = np.concatenate([y[None], group_permutations(y, g, n_permutations, seed)])
    sets = [
        Draws(torch.from_numpy(permuted), 2),
        Draws(
            torch.from_numpy(y[None]),
            2,
            torch.from_numpy(cluster_bootstrap_weights(g, n_bootstrap, seed)),
            torch.from_numpy(g),
        ),
    ]
    values = [
        quality(
            found["xie_beni"].numpy(),
            draws.sizes.numpy().astype(np.float64),
            variant=variant,
            balance=balance,
        )
        for draws, found in zip(sets, drawn_indices(x, sets, ("xie_beni",)), strict=True)
    ]
    exact = cluster_indices(x, y, names=("xie_beni", "calinski_harabasz", "silhouette"))
    sizes = np.bincount(y, minlength=2).astype(np.float64)

    def one(weights: NDArray[np.float64]) -> float:
        found = cluster_indices(pooling.pool(layers[:, rows], weights), y, names=("xie_beni",))["xie_beni"]
        return float(quality(np.asarray(found), sizes, variant=variant, balance=balance))

    estimate = float(quality(np.asarray(exact["xie_beni"]), sizes, variant=variant, balance=balance))
    per_seed = np.array([one(weights) for weights in pooling.weights])
    return Scored(subset, estimate, values[0], values[1], per_seed, len(y), int(g.max()) + 1, exact)


def _interval(estimate: float, draws: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Spread of the draws about their mean, on the log scale, put around the estimate."""
    logs = np.log(draws[np.isfinite(draws) & (draws > 0)])
    if len(logs) < 10 or not estimate > 0:
        return np.nan, np.nan
    lo, hi = np.quantile(logs - logs.mean(), [(1 - level) / 2, (1 + level) / 2])
    return float(estimate * np.exp(lo)), float(estimate * np.exp(hi))


def table_rows(
    about: dict[str, Any], scored: list[Scored], variant: str, level: float
) -> list[dict[str, Any]]:
    if not scored:
        raise LayerprobeError("no subset has two groups of each class outside the training half; add prompts")
    null = np.log(np.stack([one.null for one in scored], axis=1))
    p, familywise = permutation_p(null[0], null[1:]), max_t(null[0], null[1:])
    rows = []
    for i, one in enumerate(scored):
        place: dict[str, Any] = {
            **about,
            "subset": one.subset,
            "split": "held-out groups",
            "n": one.n,
            "n_groups": one.n_groups,
        }
        lo, hi = _interval(one.estimate, one.boot, level)
        chance = float(one.null[1:].mean())
        spread = float(null[1:, i].std(ddof=1))
        tests: dict[str, Any] = {
            **null_fields(one.null[1:]),
            "z": float((null[0, i] - null[1:, i].mean()) / spread) if spread > 0 else np.nan,
            "p": p[i],
            "p_familywise": familywise[i],
        }
        how = {"ci_method": "cluster bootstrap of held-out groups, centred"}
        seeds = {"seed_sd": float(one.per_seed.std(ddof=1)) if len(one.per_seed) > 1 else np.nan}
        rows.append(
            {**place, "metric": "aqi", **bounded("aqi", one.estimate, lo, hi), **how, **tests, **seeds}
        )
        if variant == "default":
            rows.append(
                {
                    **place,
                    "metric": "aqi_debiased",
                    **bounded("aqi_debiased", one.estimate - chance, lo - chance, hi - chance),
                    **how,
                }
            )
        rows += [{**place, "metric": name, "estimate": value} for name, value in one.indices.items()]
    return rows


def differences(
    scored: Mapping[str, list[Scored]], reference: str, label: str, space: str, level: float
) -> list[dict[str, Any]]:
    """Model minus reference, draw by draw: both were resampled with the same weights."""
    rows = []
    for name, mine in scored.items():
        theirs = {one.subset: one for one in scored[reference]}
        for one in mine if name != reference else ():
            other = theirs[one.subset]
            draws = one.boot - other.boot
            draws = draws[np.isfinite(draws)]
            lo, hi = np.quantile(draws - draws.mean(), [(1 - level) / 2, (1 + level) / 2])
            difference = one.estimate - other.estimate
            rows.append(
                {
                    "model": name,
                    "reference": reference,
                    "subset": one.subset,
                    "target": label,
                    "space": space,
                    "metric": "aqi",
                    "split": "held-out groups",
                    **bounded("aqi", difference, difference + lo, difference + hi, difference=True),
                    "ci_method": "paired cluster bootstrap, centred",
                    "n": one.n,
                    "n_groups": one.n_groups,
                }
            )
    return rows
