"""Are labelled groups of prompts separate clusters in activation space, layer by layer?

Every index is given with what it would be had the labels nothing to do with the rows (a group-wise
permutation null), because indices move with width, sample size and a single inflated dimension: under the
null Dunn is 0.44, 0.81 and 0.91 at width 64, 1,024 and 4,096.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.selections import select_held
from ..reading.device import find_device
from ..reading.labels import read_classes
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Label, Permute
from ..result.registry import analysis
from ..statistics.bounded import bounded, null_fields
from ..statistics.resampling import (
    STORED,
    benjamini_hochberg,
    check_finite,
    group_codes,
    max_t,
    permutation_p,
    resolve_groups,
)
from .clusters_view import draw, found
from .design import Design, design
from .dominant_dimensions import leave_out
from .draws import WEIGHTED, drawn_indices
from .indices import DEFAULT_INDICES, INDICES, cluster_indices
from .spaces import SPACES, to_space

NO_INTERVAL = (
    "no interval: the index rests on single pairs of rows, where a bootstrap does not cover; compare with "
    "the null"
)
CI_METHOD = "cluster bootstrap, centred"


@analysis(
    command="separate",
    title="Do the classes of “{label}” form clusters?",
    group="shape",
    guide="separation",
    findings=found,
    picture=draw,
)
def separation(
    store: ActivationStore,
    *,
    label: Label,
    indices: Sequence[str] = DEFAULT_INDICES,
    spaces: Sequence[str] = ("raw", "zscored"),
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    groups: Any = STORED,
    permute: Permute = "auto",
    n_permutations: int = 300,
    n_bootstrap: int = 200,
    level: float = 0.95,
    seed: int = 0,
    device: str = "cpu",
    progress: bool = False,
) -> AnalysisResult:
    """Cluster-separation indices per site, layer and space, each with null, z-score, p and interval.

    The null permutes labels between groups (or within them where they vary there); family-wise p-values are
    max-T over everything in the call. Ratios (all but the silhouette) are compared with their null on the log
    scale, and `z` is signed so that positive means better separated. Intervals are for the value expected at
    this number of rows.

    Args:
        store: activations with a label column.
        label: that column; every distinct value is a cluster.
        indices: keys of `analyses.indices.INDICES`.
        spaces: any of `raw`, `zscored`, `whitened`.
        sites: default: every site of activations in the store.
        layers: default: all.
        groups: rows that belong together; `STORED`, a column, an array, or `None` said aloud.
        permute: what the null exchanges: whole groups (`between`), rows in each (`within`), or by the label
            (`auto`), which refuses one that is constant in some groups and varies in others.
        n_permutations: draws of the null; 0 leaves it out.
        n_bootstrap: draws of the interval; 0 leaves it out.
        level: of the intervals.
        seed: of all draws; the same seed and groups give paired draws across stores.
        device: where to compute: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU where there is one.
        progress: show a bar.

    Returns:
        kind `separation`; `frames["left_out"]` lists dominant dimensions and sink rows with the indices
        without them.

    Raises:
        LayerprobeError: unknown column, index, space, site or layer; one cluster; no groups; NaN rows.

    Source: Davies & Bouldin 1979; Dunn 1974; Xie & Beni 1991; Caliński & Harabasz 1974; Rousseeuw 1987.

    >>> from layerprobe.cache.store.memory import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> x = rng.normal(size=(2, 60, 8)); x[1, :, 0] += 6 * y
    >>> store = from_arrays({"resid_post": x}, labels={"safe": y})
    >>> result = separation(store, label="safe", groups=None, n_permutations=99, n_bootstrap=50)
    >>> t = result.table.query("space == 'raw' and metric == 'silhouette'")
    >>> [(int(layer), bool(p < 0.05)) for layer, p in zip(t.layer, t.p_familywise)]
    [(0, False), (1, True)]
    """
    check_names(indices, spaces)
    where = find_device(device) or torch.device("cpu")
    places = site_layers(store, sites, layers)
    labelled = read_classes(store, label)
    plan = design(
        labelled.codes,
        group_codes(resolve_groups(store, groups)[labelled.rows]),
        names=labelled.classes,
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        seed=seed,
        device=where,
        permute=permute,
    )
    rows: list[dict[str, Any]] = []
    nulls: list[NDArray[np.float64]] = []
    dropped: list[dict[str, Any]] = []
    for site, layer in _bar(places, progress):
        x = layer_rows(store, site, layer, where, labelled.rows)
        for space in spaces:
            found, null = layer_separation(to_space(x, space), plan, indices, level=level)
            place = {"site": site, "layer": layer, "space": space}
            rows += [{**place, **row} for row in found]
            nulls += null
        dropped += [
            {"site": site, "layer": layer, **row} for row in leave_out(x, plan.codes, indices, labelled.rows)
        ]
    _add_p(rows, nulls)
    about = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "target": labelled.name,
        "n": len(plan.codes),
        "n_groups": plan.n_groups,
        "seed": seed,
    }
    return AnalysisResult(
        kind="separation",
        table=tidy({**about, **row} for row in rows),
        frames={"left_out": tidy({**about, **row} for row in dropped)} if dropped else {},
        provenance={
            "store": store.provenance,
            "classes": [str(name) for name in plan.classes],
            "n_permutations": n_permutations,
            "n_bootstrap": n_bootstrap,
            "label": labelled.name,
        },
        notes=labelled.notes,
    )


def check_names(indices: Sequence[str], spaces: Sequence[str]) -> None:
    """Refuse unknown names before any work.

    Raises:
        LayerprobeError: with the names that exist.
    """
    for kind, given, known in (("index", indices, tuple(INDICES)), ("space", spaces, SPACES)):
        if isinstance(given, str) or not given:
            raise LayerprobeError(
                f"{kind} names given as {given!r}, expected a list such as {list(known[:2])}"
            )
        for name in given:
            if name not in known:
                raise LayerprobeError(f"no {kind} {name!r}; use one of {', '.join(known)}")


def site_layers(
    store: ActivationStore, sites: str | Sequence[str] | None, layers: int | Sequence[int] | None
) -> list[tuple[str, int | None]]:
    """Every (site, layer) asked for; layer None for sites without layers."""
    found = select_held({site: store.layers(site) for site in store.sites}, sites, layers)
    return [(at.site, at.layer) for at in found]


def layer_rows(
    store: ActivationStore,
    site: str,
    layer: int | None,
    device: str | torch.device,
    rows: NDArray[np.int64],
) -> Tensor:
    """[rows, width] of some rows of one layer, checked to be finite; heads are laid side by side."""
    values = np.asarray(store.activations(site, layer))[rows]
    check_finite(values, site=site, layer=layer, ids=store.ids[rows], rows=rows)
    return torch.from_numpy(np.array(values).reshape(len(values), -1)).to(device)


def layer_separation(
    x: Tensor, plan: Design, indices: Sequence[str], *, level: float
) -> tuple[list[dict[str, Any]], list[NDArray[np.float64]]]:
    """All indices of one set of rows: table rows, and for each the signed test statistics, observed first.

    Args:
        x: [rows, width] in the space wanted.
        plan: labels and draws.
        indices: names.
        level: of the intervals.
    """
    exact = cluster_indices(x, plan.codes, names=indices)
    sets = [draws for draws in (plan.permutations, plan.bootstrap) if draws is not None]
    drawn = drawn_indices(x, sets, indices)
    null = drawn.pop(0) if plan.permutations is not None else None
    boot = drawn.pop(0) if plan.bootstrap is not None else None
    rows, statistics = [], []
    for name in indices:
        row: dict[str, Any] = {"metric": name, "estimate": exact[name]}
        if null is not None:
            values = null[name].cpu().numpy()
            signed = signed_statistic(name, values)
            statistics.append(signed)
            row |= {**null_fields(values[1:]), "z": _z(signed)}
        if boot is not None and name in WEIGHTED:
            lo, hi = centred_interval(name, exact[name], boot[name].cpu().numpy(), level)
            row |= bounded(name, exact[name], lo, hi)
            row["ci_method"] = CI_METHOD
        elif name not in WEIGHTED:
            row["note"] = NO_INTERVAL
        rows.append(row)
    return rows, statistics


def signed_statistic(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed so that larger means better separated; logarithms of ratios."""
    index = INDICES[name]
    if index.scale == "log":
        values = np.log(np.clip(values, 1e-300, 1e300))
    return values if index.better == "higher" else -values


def centred_interval(
    name: str, estimate: float, draws: NDArray[np.float64], level: float
) -> tuple[float, float]:
    """Bootstrap spread placed around the estimate.

    Resampling adds the noise of the centroids a second time, so draws are shifted against the estimate (a
    Calinski-Harabasz of noise is 1 on the data and about 2 in draws); only their spread is used.
    """
    log = INDICES[name].scale == "log" if name in INDICES else False
    values = draws[np.isfinite(draws)]
    if len(values) < 2 or not np.isfinite(estimate) or (log and estimate <= 0):
        return np.nan, np.nan
    values = np.log(np.clip(values, 1e-300, None)) if log else values
    lo, hi = np.quantile(values - values.mean(), [(1 - level) / 2, (1 + level) / 2])
    return (estimate * np.exp(lo), estimate * np.exp(hi)) if log else (estimate + lo, estimate + hi)


def _z(signed: NDArray[np.float64]) -> float:
    spread = _sd(signed[1:])
    return (signed[0] - _mean(signed[1:])) / spread if spread > 0 else np.nan


def _mean(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _sd(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else np.nan


def _add_p(rows: list[dict[str, Any]], statistics: list[NDArray[np.float64]]) -> None:
    if not statistics:
        return
    table = np.stack(statistics, axis=1)
    p = permutation_p(table[0], table[1:])
    familywise = max_t(table[0], table[1:])
    q = benjamini_hochberg(p)
    for i, row in enumerate(rows):
        row |= {"p": p[i], "p_familywise": familywise[i], "q": q[i]}


def _bar(places: list[tuple[str, int | None]], progress: bool) -> Any:
    if not progress:
        return places
    from tqdm.auto import tqdm

    return tqdm(places, desc="separation", unit="layer")
