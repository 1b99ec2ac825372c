"""What activations look like before anybody says which prompt is which.

Do clusters found without labels agree with them (ARI, AMI)? How many dimensions do the rows fill? A
projection on two principal axes is given for the eyes, with hover text; no number is computed from it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.labels import Labelled, read_classes
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Label, Permute
from ..result.registry import analysis
from ..statistics.bounded import null_fields
from ..statistics.resampling import (
    STORED,
    check_finite,
    group_codes,
    group_permutations,
    max_t,
    permutation_p,
    resolve_groups,
)
from .structure import (
    anisotropy,
    clusters,
    effective_rank,
    participation_ratio,
    principal_scores,
    two_nn,
)
from .unsupervised_view import draw, found

METHODS = ("kmeans", "gmm")


@analysis(
    title="What structure is there without labels?",
    group="shape",
    guide="separation",
    findings=found,
    picture=draw,
)
def unsupervised(
    store: ActivationStore,
    *,
    label: Label,
    sites: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    methods: Sequence[str] = METHODS,
    space: str = "zscored",
    groups: Any = STORED,
    permute: Permute = "auto",
    n_permutations: int = 200,
    seed: int = 0,
) -> AnalysisResult:
    """Cluster agreement with labels, intrinsic dimension, effective rank and anisotropy per layer.

    Args:
        store: activations with a label column.
        label: compared with the clusters found; their number is its number of values.
        sites: default: all.
        layers: default: all.
        methods: `kmeans`, `gmm`.
        space: in which clusters are sought: `zscored`, `raw`, `whitened`; the other measures are of raw rows.
        groups: rows that belong together (labels are permuted by group for the null of the agreement).
        permute: what the null exchanges: whole groups (`between`), rows in each (`within`), or by the label
            (`auto`), which refuses one that is constant in some groups and varies in others.
        n_permutations: of that null.
        seed: of clustering and permutations.

    Returns:
        kind `unsupervised`; metrics `adjusted_rand`, `adjusted_mutual_info` (with null, p and family-wise p),
        `two_nn`, `effective_rank`, `participation_ratio`, `anisotropy`; `frames["projection"]` for the eyes.

    Raises:
        LayerprobeError: unknown column, method, space, site or layer; one class; no groups; NaN rows.

    Source: ARI: Hubert & Arabie 1985; AMI: Vinh et al. 2010; TwoNN: Facco et al. 2017.

    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> x = rng.normal(size=(1, 60, 8)); x[0, :, 0] += 8 * y
    >>> store = from_arrays({"resid_post": x}, labels={"safe": y})
    >>> result = unsupervised(store, label="safe", groups=None, methods=("kmeans",), space="raw")
    >>> float(result.table.query("metric == 'adjusted_rand'")["estimate"].iloc[0])
    1.0
    """
    import torch

    from .clusters import site_layers
    from .spaces import to_space

    for method in methods:
        if method not in METHODS:
            raise LayerprobeError(f"no method {method!r}; use one of {', '.join(METHODS)}")
    labelled = read_classes(store, label)
    codes, classes = labelled.codes, labelled.classes
    keys = group_codes(resolve_groups(store, groups)[labelled.rows])
    permuted = group_permutations(codes, keys, n_permutations, seed, how=permute)
    about: dict[str, Any] = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "tokens": store.tokens,
        "target": labelled.name,
    }
    about |= {"n": len(codes), "n_groups": int(keys.max()) + 1, "seed": seed}
    rows: list[dict[str, Any]] = []
    nulls: list[NDArray[np.float64]] = []
    shown = []
    for site, layer in site_layers(store, sites, layers):
        x = np.asarray(store.activations(site, layer))[labelled.rows]
        check_finite(x, site=site, layer=layer, ids=store.ids[labelled.rows], rows=labelled.rows)
        x = x.reshape(len(x), -1)
        place = {"site": site, "layer": layer}
        for method in methods:
            rows_in = to_space(torch.from_numpy(np.array(x)), space).numpy()
            for metric, values in _agreement(
                clusters(rows_in, len(classes), method, seed), codes, permuted
            ).items():
                nulls.append(values)
                chance = null_fields(values[1:])
                rows.append(
                    {
                        **about,
                        **place,
                        "method": method,
                        "space": space,
                        "metric": metric,
                        "estimate": values[0],
                        **chance,
                    }
                )
        for metric, measure in _MEASURES.items():
            rows.append({**about, **place, "space": "raw", "metric": metric, "estimate": measure(x)})
        shown.append(_projection(store, x, place, labelled))
    if n_permutations and nulls:
        table = np.stack(nulls, axis=1)
        p, familywise = permutation_p(table[0], table[1:]), max_t(table[0], table[1:])
        tested = [row for row in rows if "null_mean" in row]
        for i, row in enumerate(tested):
            row |= {"p": p[i], "p_familywise": familywise[i]}
    import pandas as pd

    return AnalysisResult(
        kind="unsupervised",
        table=tidy(rows),
        frames={"projection": pd.concat(shown, ignore_index=True)},
        provenance={"label": labelled.name, "classes": list(classes)},
        notes=labelled.notes,
    )


_MEASURES = {
    "two_nn": two_nn,
    "effective_rank": effective_rank,
    "participation_ratio": participation_ratio,
    "anisotropy": anisotropy,
}


def _agreement(
    found: NDArray[np.int64], codes: NDArray[np.int64], permuted: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """ARI (Hubert & Arabie 1985) and AMI (Vinh et al. 2010) with the labels and each permutation of them.

    Permuting changes no cluster size, so what both subtract for chance is computed once.
    """
    from sklearn.metrics.cluster import expected_mutual_information

    everyone = np.concatenate([codes[None], permuted])
    k, n_found, n = int(codes.max()) + 1, int(found.max()) + 1, len(codes)
    cells = everyone * n_found + found
    table = np.stack([np.bincount(one, minlength=k * n_found) for one in cells]).reshape(-1, k, n_found)
    rows, columns = table[0].sum(axis=1), table[0].sum(axis=0)

    def pairs(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return counts * (counts - 1) / 2.0

    expected = pairs(rows).sum() * pairs(columns).sum() / pairs(np.array(n))
    most = (pairs(rows).sum() + pairs(columns).sum()) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = table / n * np.log(table * n / (rows[:, None] * columns[None, :]))
    information = np.nansum(terms, axis=(1, 2))
    chance = expected_mutual_information(table[0], n)
    entropies = [-(share[share > 0] * np.log(share[share > 0])).sum() for share in (rows / n, columns / n)]
    return {
        "adjusted_rand": (pairs(table).sum(axis=(1, 2)) - expected) / max(most - expected, 1e-12),
        "adjusted_mutual_info": (information - chance) / max(np.mean(entropies) - chance, 1e-12),
    }


def _projection(
    store: ActivationStore, x: NDArray[np.floating], place: dict[str, Any], labelled: Labelled
) -> Any:
    import pandas as pd

    scores, share = principal_scores(x, 2)
    if scores.shape[1] < 2:
        scores, share = np.pad(scores, ((0, 0), (0, 1))), np.pad(share, (0, 1))
    texts, examples = store.texts, np.asarray(store.examples)[labelled.rows]
    return pd.DataFrame(
        {
            **place,
            "id": store.ids[labelled.rows],
            "label": np.array(labelled.classes, dtype=object)[labelled.codes],
            "text": [""] * len(x) if texts is None else [texts[i][:300] for i in examples],
            "first": scores[:, 0],
            "second": scores[:, 1],
            "share_first": float(share[0]),
            "share_second": float(share[1]),
        }
    )
