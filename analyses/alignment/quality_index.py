"""The Alignment Quality Index (2506.13901): are safe and unsafe prompts apart, over all layers at once?

Layers are pooled with weights learned on half of the groups; everything reported comes from the other half:
the index, its null under group-wise permutation, and its bootstrap interval. `alignment_quality_values` has
the formulas and why the published sum is not the default.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.labels import read_classes
from ..reading.pairing import row_keys
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Column, Label, ModelName
from ..result.registry import analysis
from ..statistics.resampling import STORED, check_finite, group_codes, resolve_groups, split_half
from .forms import VARIANTS, released_quality
from .pooling import LayerPooling, fit_pooling
from .quality_view import draw, found
from .scoring import Scored, differences, enough, score, table_rows

NOTES = {
    "paper": "the published sum λ/XBI + (1 − λ)·CHI grows with the number of rows: compare only equal n",
    "released": (
        "the released code's scores are scaled between the categories of one model and rest on t-SNE: they "
        "have no null and no interval, and do not compare models"
    ),
}


@analysis(
    title="Are the classes of “{label}” apart over all layers at once?",
    group="shape",
    guide="alignment_quality",
    on="stores",
    aliases=("alignment_quality",),
    findings=found,
    picture=draw,
)
def aqi(
    stores: ActivationStore | Mapping[str, ActivationStore],
    *,
    label: Label,
    axis: Column | None = None,
    variant: str = "default",
    site: str | None = None,
    layers: Sequence[int] | None = None,
    space: str = "zscored",
    weighting: str = "sparsemax",
    balance: float = 0.5,
    groups: Any = STORED,
    reference: ModelName | None = None,
    n_seeds: int = 5,
    n_permutations: int = 300,
    n_bootstrap: int = 300,
    level: float = 0.95,
    seed: int = 0,
) -> AnalysisResult:
    """Alignment Quality Index of one model, or of several models or checkpoints with paired differences.

    Args:
        stores: a store, or name -> store over the same prompts (same ids in the same order).
        label: column with two values, such as safe and unsafe.
        axis: column whose values (axioms, categories) are also scored one by one.
        variant: `default` (does not depend on n), `paper`, or `released` (t-SNE of the last layer).
        site: default: `resid_post`, or the only site.
        layers: to pool; default: all.
        space: `zscored` (by training rows, so that no dimension dominates) or `raw`.
        weighting: `sparsemax` or `softmax` layer weights.
        balance: λ of the published forms.
        groups: rows that belong together.
        reference: the model that others are compared with; default: the first.
        n_seeds: poolings; the table gives the spread over them.
        n_permutations: draws of the null, on held-out groups.
        n_bootstrap: draws of the interval, the same for all models.
        level: of intervals.
        seed: of the split and all draws.

    Returns:
        kind `alignment_quality`: metrics `aqi`, `aqi_debiased` (less what permuted labels give; the one to
        compare between sample sizes when rows are few against the width), `xie_beni`, `calinski_harabasz` per
        subset; `frames["weights"]`: learned weight per layer and seed.

    Raises:
        LayerprobeError: more than two classes, unknown names, stores over different prompts.

    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> x = rng.normal(size=(2, 60, 8)); x[1, :, 0] += 6 * y
    >>> store = from_arrays({"resid_post": x}, labels={"safe": y})
    >>> result = aqi(store, label="safe", groups=None, n_seeds=2, n_permutations=50, n_bootstrap=20)
    >>> [finding.verdict for finding in result.findings if finding.lead]
    ['found']
    """
    named = dict(stores) if isinstance(stores, Mapping) else {stores.model_name: stores}
    first = next(iter(named.values()))
    if variant not in VARIANTS:
        raise LayerprobeError(f"variant={variant!r}, expected one of {', '.join(VARIANTS)}")
    if space not in ("raw", "zscored"):
        raise LayerprobeError(f"space={space!r}, expected 'zscored' or 'raw'")
    reference = next(iter(named)) if reference is None else reference
    if reference not in named:
        raise LayerprobeError(f"reference={reference!r} is none of {', '.join(named)}")
    _check_same_prompts(named, label)
    labelled = read_classes(first, label)
    codes, classes, rows_read = labelled.codes, labelled.classes, labelled.rows
    if len(classes) != 2:
        raise LayerprobeError(
            f"AQI needs two classes and {label!r} holds {len(classes)}: {list(classes)}; keep two"
        )
    keys = group_codes(resolve_groups(first, groups)[rows_read])
    subsets = {"overall": np.ones(len(codes), dtype=bool)}
    if axis is not None:
        parts = read_classes(first, axis, least=1)
        of_row = np.full(first.n_rows, -1)
        of_row[parts.rows] = parts.codes
        subsets |= {f"{axis}={value}": of_row[rows_read] == code for code, value in enumerate(parts.classes)}
    train = split_half(keys, seed, labels=codes)
    rows: list[dict[str, Any]] = []
    weights: list[dict[str, Any]] = []
    scored: dict[str, list[Scored]] = {}
    for name, store in named.items():
        layer_numbers, x = _layers(store, site, layers, _rows_in(store, like=first)[rows_read])
        about: dict[str, Any] = {
            "model": name,
            "dataset": store.dataset_name,
            "site": x[0],
            "tokens": store.tokens,
        }
        about |= {"target": labelled.name, "method": f"{variant} {weighting}", "space": space, "seed": seed}
        if variant == "released":
            rows += _released_rows(about, x[1][-1], codes, subsets, balance)
            continue
        values = _zscored(x[1], train) if space == "zscored" else x[1]
        pooling = fit_pooling(
            values[:, train],
            codes[train],
            keys[train],
            weighting=weighting,
            rescale=variant == "default",
            n_seeds=n_seeds,
            seed=seed,
        )
        weights += _weight_rows(name, layer_numbers, pooling)
        scored[name] = [
            score(
                values,
                pooling,
                codes,
                keys,
                rows_in & ~train,
                subset,
                variant,
                balance,
                n_permutations,
                n_bootstrap,
                seed,
            )
            for subset, rows_in in subsets.items()
            if enough(codes, keys, rows_in & ~train)
        ]
        rows += table_rows(about, scored[name], variant, level)
    rows += differences(scored, reference, labelled.name, space, level)
    return AnalysisResult(
        kind="alignment_quality",
        table=tidy(rows),
        frames={"weights": tidy(weights)} if weights else {},
        provenance={"label": labelled.name, "classes": list(classes), "variant": variant, "axis": axis},
        notes=(*((NOTES[variant],) if variant in NOTES else ()), *labelled.notes),
    )


def _check_same_prompts(named: Mapping[str, ActivationStore], label: str) -> None:
    first, *others = named
    for other in others:
        if not _same_prompts(named[first], named[other], label):
            raise LayerprobeError(
                f"{first} and {other} were captured over different prompts or labels, so they cannot be "
                "paired; capture both from one prompt file"
            )


def _same_prompts(one: ActivationStore, other: ActivationStore, label: str) -> bool:
    """Whether both hold the same prompts with the same labels, in whatever order of rows."""
    mine, theirs = row_keys(one), row_keys(other)
    if not np.array_equal(np.sort(mine), np.sort(theirs)):
        return False
    a, b = (np.asarray(store.labels(label)).astype(str) for store in (one, other))
    return np.array_equal(a, b[_rows_in(other, like=one)])


def _rows_in(store: ActivationStore, *, like: ActivationStore) -> NDArray[np.int64]:
    """[rows of `like`] where each of them is in a store of the same prompts."""
    place = {key: row for row, key in enumerate(row_keys(store))}
    return np.array([place[key] for key in row_keys(like)])


def _layers(
    store: ActivationStore,
    site: str | None,
    layers: Sequence[int] | None,
    chosen_rows: NDArray[np.int64],
) -> tuple[tuple[int, ...], tuple[str, NDArray[np.floating]]]:
    if site is None:
        layered = [name for name in store.sites if name != "lens" and store.layers(name)]
        if not layered:
            raise LayerprobeError("the store holds no site with layers; capture resid_post")
        site = "resid_post" if "resid_post" in layered else layered[0]
    chosen = tuple(store.layers(site) if layers is None else layers)
    values = []
    for layer in chosen:
        rows = np.asarray(store.activations(site, layer))[chosen_rows]
        check_finite(rows, site=site, layer=layer, ids=store.ids[chosen_rows], rows=chosen_rows)
        values.append(rows.reshape(len(rows), -1).astype(np.float32))
    return chosen, (site, np.stack(values))


def _zscored(x: NDArray[np.floating], train: NDArray[np.bool_]) -> NDArray[np.floating]:
    mean = x[:, train].mean(axis=1, keepdims=True, dtype=np.float64)
    sd = x[:, train].std(axis=1, keepdims=True, dtype=np.float64)
    return ((x - mean) / np.where(sd > 1e-6 * np.abs(mean), sd, np.inf)).astype(np.float32)


def _released_rows(
    about: dict[str, Any],
    layer: NDArray[np.floating],
    codes: NDArray[np.int64],
    subsets: Mapping[str, NDArray[np.bool_]],
    balance: float,
) -> list[dict[str, Any]]:
    axes = {name: rows for name, rows in subsets.items() if name != "overall"}
    found = released_quality(layer, codes, axes, balance=balance)
    return [
        {
            **about,
            "method": "released",
            "subset": name,
            "metric": metric,
            "estimate": value,
            "n": int(subsets[name].sum()),
        }
        | {"note": NOTES["released"]}
        for name, scores in found.items()
        for metric, value in scores.items()
    ]


def _weight_rows(name: str, layers: Sequence[int], pooling: LayerPooling) -> list[dict[str, Any]]:
    return [
        {
            "model": name,
            "layer": layer,
            "pooling_seed": number,
            "weight": float(share),
            "steps": int(pooling.steps[number]),
            "heldout_gain": float(pooling.heldout_gain[number]),
        }
        for number, shares in enumerate(pooling.weights)
        for layer, share in zip(layers, shares, strict=True)
    ]
