"""Base against instruct, or any number of checkpoints against one: the same prompts, paired, by layer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..lens.suppression import subsets_of, trajectory_of
from ..lens.suppression_index import Draws
from ..lens.trajectories import Variants
from ..reading.pairing import Paired, pair_stores
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Column, Label, ModelName, Permute, Sites
from ..result.registry import analysis
from ..statistics.resampling import STORED, cluster_bootstrap_weights, resolve_groups
from .geometry import did_rows, geometry_rows, where_of
from .models_view import draw, found
from .through_lens import lens_kl_rows, lens_rows
from .transfer_of_directions import direction_rows


@analysis(
    title="What differs between the models?",
    group="compare",
    guide="base_vs_instruct",
    on="stores",
    least=2,
    without=("models",),
    findings=found,
    picture=draw,
    aliases=("comparison",),
)
def compare(
    stores: Mapping[Any, Any],
    *,
    label: Label | None = None,
    target: Answer | None = None,
    foil: Answer | None = None,
    by: Column | None = None,
    contrast: str | None = None,
    reference: ModelName | None = None,
    groups: Any = STORED,
    sites: Sites = None,
    models: Mapping[Any, Any] | None = None,
    variants: Variants = "max",
    permute: Permute = "auto",
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    n_splits: int = 8,
    max_rows: int = 600,
    seed: int = 0,
    progress: bool = False,
) -> AnalysisResult:
    """What differs, per layer, between models that read the same prompts; differences are paired over them.

    Args:
        stores: model name -> store; keys may be tuples such as ("instruct", "chat"). Rows are matched by
            prompt id.
        label: label column with two values; adds class differences, directions and probe transfer (in a
            study, default: that of its first probe).
        target: lens column of the answer. With `foil`: suppression side by side. Left out, the first two lens
            columns are taken where every store has a lens.
        foil: lens column of the foil.
        by: a column splitting the prompts for suppression.
        contrast: a value of `by` that the others are compared with.
        reference: the key that all others are compared with; the first by default.
        groups: rows that belong together, in the reference's store.
        sites: sites for the geometry; default `resid_post` where all have it, else all that are shared.
        models: model name -> loaded model, to read a lens that was not captured.
        variants: surface variants by `max` or `logsumexp`.
        permute: what the null of class differences exchanges: whole groups (`between`), rows in each
            (`within`), or by the label (`auto`), which refuses one constant in some groups only.
        n_permutations: relabellings for p-values.
        n_bootstrap: cluster-bootstrap draws, shared by all models.
        n_splits: halvings for the suppression index.
        max_rows: CKA and RSA compare pairs of rows, and use at most this many, by whole groups.
        seed: of all of it.
        progress: show a progress bar over layers.

    Returns:
        kind `comparison`. `reference` is filled where a row is a difference (or similarity) to it. Metrics:
        `cka_debiased` (raw and zscored), `procrustes_r2`, `rsa_spearman`, `effective_rank`,
        `effective_rank_difference`, `mean_shift`, `class_difference_change`, `direction_cosine` with
        `_ceiling` and `_ratio`, `transfer_auroc`, `reference_auroc`, `own_auroc`, `transfer_accuracy`,
        `transfer_accuracy_recentred`, `lens_kl`, and all of `suppression`'s. Frame `verdicts` as in
        `suppression`, with one row per model and subset. A model with more or fewer blocks than the reference
        meets it at the nearest relative depth, l / (L − 1): `layer` is the model's own, `reference_layer`
        whom it met, `depth` where that is.

    Raises:
        LayerprobeError: stores that do not hold the same prompts, labels that differ, nothing to compare.

    Source: debiased CKA as in 1905.00414 and 2010.15327; the rest in `docs/base_vs_instruct.md`.

    >>> from layerprobe.cache.store.memory import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> kind = np.arange(80) // 2 % 2
    >>> x = rng.normal(size=(2, 80, 6)); x[:, :, 0] += 4 * kind
    >>> turned = x.copy(); turned[1, :, 0] -= 8 * kind  # tuning turns the class difference over in layer 1
    >>> stores = {
    ...     name: from_arrays({"resid_post": v}, labels={"kind": kind}, groups=np.arange(80) // 2)
    ...     for name, v in (("base", x), ("instruct", turned))
    ... }
    >>> result = compare(stores, label="kind", n_bootstrap=50, n_permutations=99)
    >>> [f.layers for f in result.findings if f.quantity == "class_difference_change"]
    [(1,)]
    """
    paired = pair_stores(stores, reference)
    codes = resolve_groups(paired.stores[paired.reference], groups)[paired.order[paired.reference]]
    rows = _geometry(
        paired, sites, label, codes, n_permutations, n_bootstrap, max_rows, seed, progress, permute
    )
    target, foil = lens_columns(paired, target, foil)
    frames: dict[str, pd.DataFrame] = {}
    if target is not None and foil is not None:
        named = (
            {}
            if models is None
            else {"/".join(k) if isinstance(k, tuple) else str(k): m for k, m in models.items()}
        )
        trajectories = {
            name: trajectory_of(store, target, foil, variants=variants, model=named.get(name)).select(
                paired.order[name]
            )
            for name, store in paired.stores.items()
        }
        draws = Draws.make(codes, n_bootstrap=n_bootstrap, n_splits=n_splits, seed=seed)
        mine = subsets_of(paired.stores[paired.reference], by)
        if by is not None:
            paired.labels(by)
        subsets = {name: mask[paired.order[paired.reference]] for name, mask in mine.items()}
        found, verdicts = lens_rows(
            trajectories, paired, subsets, draws, by=by, contrast=contrast, n_permutations=n_permutations
        )
        if all(store.lens is not None for store in paired.stores.values()):
            found += list(lens_kl_rows(paired, subsets, draws))
        shared = {
            "site": "lens",
            "method": "logit_lens",
            "space": "logits",
            "target": f"{target} − {foil}",
            "seed": seed,
        }
        rows += [{**row, **shared} for row in found]
        frames["verdicts"] = verdicts
    if not rows:
        raise LayerprobeError(
            "these stores share no site and no lens, so there is nothing to compare; capture both "
            'with sites=["resid_post"]'
        )
    store = paired.stores[paired.reference]
    table = tidy({**row, "dataset": store.dataset_name, "tokens": store.tokens} for row in rows)
    return AnalysisResult(
        kind="compare",
        table=table,
        frames=frames,
        provenance={
            "models": list(paired.stores),
            "reference": paired.reference,
            "label": label,
            "target": target,
            "foil": foil,
            "by": by,
            "n_bootstrap": n_bootstrap,
            "n_permutations": n_permutations,
            "seed": seed,
            "stores": {name: s.provenance for name, s in paired.stores.items()},
        },
    )


def lens_columns(paired: Paired, target: str | None, foil: str | None) -> tuple[str | None, str | None]:
    """Answer and foil as given, or the first two lens columns of all stores; (None, None) without a lens."""
    if (target is None) != (foil is None):
        raise LayerprobeError(f"target={target!r} and foil={foil!r}: give both, or neither")
    if target is not None:
        return target, foil
    lenses = [store.lens for store in paired.stores.values()]
    if any(lens is None or len(lens.columns) < 2 for lens in lenses):
        return None, None
    first = lenses[0].columns[:2]
    return (first[0], first[1]) if all(lens.columns[:2] == first for lens in lenses) else (None, None)


def two_valued(paired: Paired, label: str) -> NDArray[np.bool_]:
    """[rows] true for the second of a label's two values (in sorted order).

    Raises:
        LayerprobeError: the label has one value, or more than two.
    """
    values = paired.labels(label).astype(str)
    names = np.unique(values)
    if len(names) != 2:
        raise LayerprobeError(
            f"label={label!r} has {len(names)} values ({', '.join(names[:5])}); directions and transfer "
            "need two: filter the prompts, or leave label out"
        )
    return values == names[1]


def _geometry(
    paired: Paired,
    sites: Any,
    label: str | None,
    groups: NDArray[np.int64],
    n_permutations: int,
    n_bootstrap: int,
    max_rows: int,
    seed: int,
    progress: bool,
    permute: str,
) -> list[dict[str, Any]]:
    shared = paired.shared_sites()
    wanted = (
        (("resid_post",) if "resid_post" in shared else shared)
        if sites is None
        else ((sites,) if isinstance(sites, str) else tuple(sites))
    )
    for site in wanted:
        if site not in shared:
            raise LayerprobeError(
                f"site {site!r} is not in every store; they share {', '.join(shared) or 'none'}"
            )
    labels = None if label is None else two_valued(paired, label)
    weights = np.concatenate(
        [np.ones((1, len(groups))), cluster_bootstrap_weights(groups, n_bootstrap, seed)]
    )
    places = [(site, layers) for site in wanted for layers in paired.places(site)]
    if progress:
        from tqdm.auto import tqdm

        places = tqdm(places, desc="compare", unit="layer")
    rows: list[dict[str, Any]] = []
    changes: dict[str, list[Any]] = {name: [] for name in paired.stores if name != paired.reference}
    for site, layers in places:
        rows += geometry_rows(
            paired, site, layers, groups, max_rows=max_rows, n_permutations=n_permutations, seed=seed
        )
        if labels is None:
            continue
        base = paired.activations(paired.reference, site, layers[paired.reference])
        for name in (name for name in layers if name != paired.reference):
            fields = {
                "model": name,
                "reference": paired.reference,
                "site": site,
                **where_of(paired, name, layers),
                "target": label,
            }
            mine = paired.activations(name, site, layers[name])
            rows += direction_rows(fields, mine, base, labels, groups, weights, seed)
            if mine.shape == base.shape:
                changes[name].append((fields, mine - base, base))
    if labels is not None:
        for parts in changes.values():
            rows += did_rows(parts, labels, groups, n_permutations, seed, permute) if parts else []
    return rows
