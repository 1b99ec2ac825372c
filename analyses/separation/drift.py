"""Where a third set of prompts lies between two reference clusters, layer by layer.

Jailbroken versions of unsafe prompts, say, against plainly safe and plainly unsafe ones: position 0 is the
safe centroid, 1 the unsafe one. The axis is found on half of the groups and read on the other, so
that a position is not pulled towards 0 or 1 by the noise of the axis itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.labels import class_name, read_classes
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Label, Value
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.resampling import (
    STORED,
    check_finite,
    cluster_bootstrap_weights,
    group_codes,
    resolve_groups,
    split_half,
)
from ..statistics.shares import share_interval
from .drift_view import draw, found


@analysis(
    title="Where does “{third}” lie between “{start}” and “{end}”?",
    group="shape",
    guide="separation",
    findings=found,
    picture=draw,
)
def drift(
    store: ActivationStore,
    *,
    label: Label,
    start: Value,
    end: Value,
    third: Value,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    groups: Any = STORED,
    n_bootstrap: int = 300,
    level: float = 0.95,
    seed: int = 0,
) -> AnalysisResult:
    """Position of one class of prompts on the line from one cluster to another.

    Args:
        store: activations with a label column that holds all three values.
        label: that column.
        start: value at position 0.
        end: value at position 1.
        third: value whose rows are placed.
        sites: default: all.
        layers: default: all.
        groups: rows that belong together.
        n_bootstrap: draws of the interval.
        level: of the interval.
        seed: of the split and the draws.

    Returns:
        kind `drift`, metrics per layer: `drift_position` (0 at start, 1 at end), `drift_share_end` (share of
        third rows nearer to the end on the axis) and `drift_off_axis` (distance of the third centroid from
        the axis over the distance between the clusters; large: it lies somewhere else altogether).

    Raises:
        LayerprobeError: a value without rows, or too few groups of it to split.

    Source: drift of jailbroken prompts after Borah et al. 2025 (2506.13901); the axis is cross-fitted here.

    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 3
    >>> x = rng.normal(size=(1, 60, 8)); x[0, :, 0] += np.array([0.0, 10.0, 8.0])[y]
    >>> store = from_arrays({"resid_post": x}, labels={"kind": np.array(["safe", "unsafe", "jailbroken"])[y]})
    >>> where = {"start": "safe", "end": "unsafe", "third": "jailbroken"}
    >>> result = drift(store, label="kind", groups=None, n_bootstrap=20, **where)
    >>> round(float(result.table.query("metric == 'drift_position'")["estimate"].iloc[0]), 1)
    0.8
    """
    from .clusters import site_layers

    labelled = read_classes(store, label, least=1)
    values = np.array(labelled.classes, dtype=object)[labelled.codes]
    names = [class_name(start), class_name(end), class_name(third)]
    if len(set(names)) < 3:
        raise LayerprobeError(
            f"drift needs three different values of {label!r}, got start={names[0]!r}, end={names[1]!r}, "
            f"third={names[2]!r}"
        )
    for name in names:
        if not (values == name).any():
            raise LayerprobeError(f"{label!r} has no rows {name!r}; it holds {', '.join(labelled.classes)}")
    chosen = np.isin(values, names)
    rows = labelled.rows[chosen]
    keys = group_codes(resolve_groups(store, groups)[rows])
    codes = np.array([names.index(value) for value in values[chosen]])
    fit = split_half(keys, seed, labels=codes)
    weights = cluster_bootstrap_weights(keys, n_bootstrap, seed).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(codes))), weights])
    table = []
    for site, layer in site_layers(store, sites, layers):
        x = np.asarray(store.activations(site, layer))[rows]
        check_finite(x, site=site, layer=layer, ids=store.ids[rows], rows=rows)
        draws, nearer = _place(x.reshape(len(x), -1).astype(np.float64), codes, fit, weights)
        share = share_interval(nearer, keys[codes == 2], level=level)
        for metric, values in draws.items():
            spread = values[1:][np.isfinite(values[1:])]
            lo, hi = (
                np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
                if len(spread) > 9
                else (np.nan, np.nan)
            )
            if metric == "drift_share_end":  # draws of few rows that agree do not vary
                lo, hi = np.nanmin([lo, share.lo]), np.nanmax([hi, share.hi])
            table.append(
                {
                    "model": store.model_name,
                    "dataset": store.dataset_name,
                    "subset": f"{names[2]} between {names[0]} and {names[1]}",
                    "site": site,
                    "layer": layer,
                    "tokens": store.tokens,
                    "target": labelled.name,
                    "metric": metric,
                    **bounded(metric, values[0], lo, hi),
                    "ci_method": "cluster bootstrap, percentile",
                    "n": int((codes == 2).sum()),
                    "n_groups": len(np.unique(keys[codes == 2])),
                    "seed": seed,
                }
            )
    return AnalysisResult(
        kind="drift",
        table=tidy(table),
        frames={"closest": closest_layers(table)},
        provenance={"label": labelled.name, "values": names},
        notes=labelled.notes,
    )


def closest_layers(table: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per site: the layer at which the third set lies closest to the end.

    Closest is the least distance of its position from 1, on either side: a set that overshoots lies far away.
    """
    positions = pd.DataFrame([row for row in table if row["metric"] == "drift_position"])
    positions["distance"] = (positions["estimate"] - 1).abs()
    known = positions[positions["distance"].notna()]
    best = known.loc[known.groupby("site", sort=False)["distance"].idxmin()]
    return best[["model", "site", "layer", "estimate", "lo", "hi", "distance"]].reset_index(drop=True)


def _place(
    x: NDArray[np.float64], codes: NDArray[np.int64], fit: NDArray[np.bool_], weights: NDArray[np.float64]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.bool_]]:
    """[draws] of each metric, and [third rows] whether each is nearer to the end.

    The two halves take turns as the one that finds the axis.
    """
    nearer = np.zeros(len(x), dtype=bool)
    found: dict[str, list[NDArray[np.float64]]] = {
        "drift_position": [],
        "drift_share_end": [],
        "drift_off_axis": [],
    }
    for half in (fit, ~fit):
        axis_means = [_means(x, weights, half & (codes == k)) for k in (0, 1)]
        axis = axis_means[1] - axis_means[0]
        start, end, third = (_means(x, weights, ~half & (codes == k)) for k in (0, 1, 2))
        span = ((end - start) * axis).sum(axis=1)
        position = ((third - start) * axis).sum(axis=1) / span
        rows = ~half & (codes == 2)
        along = (x[rows] @ axis.T - (start * axis).sum(axis=1)) / span
        nearer[rows] = along[:, 0] > 0.5
        with np.errstate(invalid="ignore"):  # a draw may hold none of the third rows
            share = ((along > 0.5) * weights[:, rows].T).sum(axis=0) / weights[:, rows].sum(axis=1)
        # off the axis: what of third − start the step along end − start does not explain
        off = third - start - position[:, None] * (end - start)
        for name, value in zip(
            found,
            (position, share, np.linalg.norm(off, axis=1) / np.linalg.norm(end - start, axis=1)),
            strict=True,
        ):
            found[name].append(value)
    return {name: np.mean(parts, axis=0) for name, parts in found.items()}, nearer[codes == 2]


def _means(
    x: NDArray[np.float64], weights: NDArray[np.float64], rows: NDArray[np.bool_]
) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights[:, rows] @ x[rows]) / weights[:, rows].sum(axis=1, keepdims=True)
