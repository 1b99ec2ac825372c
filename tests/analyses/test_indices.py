"""Separation indices against scikit-learn, torchmetrics and float64 brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from torchmetrics.functional.clustering import dunn_index

from layerprobe.analyses.separation.indices import (
    DIAMETERS,
    INDICES,
    SET_DISTANCES,
    calinski_harabasz,
    cluster_indices,
    davies_bouldin,
    dunn,
    generalised_dunn,
    silhouette,
    xie_beni,
)
from layerprobe.hooks.errors import LayerprobeError


def blobs(sizes, width, *, spread=1.0, apart=3.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(labels), width)) * spread
    return x + rng.normal(size=(len(sizes), width))[labels] * apart, labels


def brute_force(x, labels):
    """Every index from all explicit differences, written out from the definitions."""
    x, labels = np.asarray(x, dtype=np.float64), np.asarray(labels)
    clusters = [np.flatnonzero(labels == k) for k in np.unique(labels)]
    d = np.sqrt(((x[:, None, :] - x[None, :, :]) ** 2).sum(-1))
    centres = np.stack([x[c].mean(0) for c in clusters])
    to = np.sqrt(((x[:, None, :] - centres[None]) ** 2).sum(-1))
    between = np.sqrt(((centres[:, None] - centres[None]) ** 2).sum(-1))
    pairs = list(itertools.combinations(range(len(clusters)), 2))
    n, k = len(x), len(clusters)

    def hausdorff(a, b):
        return max(d[np.ix_(a, b)].min(1).max(), d[np.ix_(a, b)].min(0).max())

    delta = {
        "single": lambda i, j: d[np.ix_(clusters[i], clusters[j])].min(),
        "complete": lambda i, j: d[np.ix_(clusters[i], clusters[j])].max(),
        "average": lambda i, j: d[np.ix_(clusters[i], clusters[j])].mean(),
        "centroid": lambda i, j: between[i, j],
        "average_to_centroids": lambda i, j: np.concatenate([to[clusters[i], j], to[clusters[j], i]]).mean(),
        "hausdorff": lambda i, j: hausdorff(clusters[i], clusters[j]),
    }
    big = {
        "maximum": lambda i: d[np.ix_(clusters[i], clusters[i])].max(),
        "average": lambda i: (
            d[np.ix_(clusters[i], clusters[i])].sum() / max(1, len(clusters[i]) * (len(clusters[i]) - 1))
        ),
        "centroid": lambda i: 2 * to[clusters[i], i].mean(),
    }
    found = {
        f"dunn_{s}_{m}": min(delta[s](i, j) for i, j in pairs) / max(big[m](i) for i in range(k))
        for s in delta
        for m in big
    }
    found["dunn"] = found["dunn_single_maximum"]
    radius = [to[c, i].max() for i, c in enumerate(clusters)]
    found["dunn_torchmetrics"] = min(between[i, j] for i, j in pairs) / max(radius)
    within = sum((to[c, i] ** 2).sum() for i, c in enumerate(clusters))
    found["xie_beni"] = within / (n * min(between[i, j] ** 2 for i, j in pairs))
    mean = x.mean(0)
    around = sum(len(c) * ((centres[i] - mean) ** 2).sum() for i, c in enumerate(clusters))
    found["calinski_harabasz"] = around / (k - 1) / (within / (n - k))
    s = [to[c, i].mean() for i, c in enumerate(clusters)]
    worst = [max((s[i] + s[j]) / between[i, j] for j in range(k) if j != i) for i in range(k)]
    found["davies_bouldin"] = float(np.mean(worst))
    values = []
    for row in range(n):
        own = labels[row]
        mates = (labels == own) & (np.arange(n) != row)
        if not mates.any():
            values.append(0.0)
            continue
        a = d[row, mates].mean()
        b = min(d[row, c].mean() for c in clusters if labels[c[0]] != own)
        values.append((b - a) / max(a, b) if max(a, b) > 0 else 0.0)
    found["silhouette"] = float(np.mean(values))
    return found


CASES = {
    "two blobs": blobs([40, 40], 5),
    "many imbalanced clusters": blobs([3, 60, 17, 2, 30], 7),
    "wider than long": blobs([9, 12], 200),
    "one dimension": blobs([20, 25], 1),
    "singletons": blobs([1, 30, 1], 4),
    "overlapping": blobs([50, 50], 3, apart=0.0),
    "far from the origin": (blobs([20, 20], 6)[0] + 1e4, blobs([20, 20], 6)[1]),
    "tight and far apart": blobs([20, 20, 20], 6, spread=1e-4, apart=1e2),
}
x, labels = blobs([15, 15], 4)
CASES["duplicates within"] = (np.concatenate([x, x[:9]]), np.concatenate([labels, labels[:9]]))
CASES["duplicates across"] = (np.concatenate([x, x[:3]]), np.concatenate([labels, 1 - labels[:3]]))
CASES["constant columns"] = (np.concatenate([x, np.full((30, 2), 7.0)], axis=1), labels)
CASES["tiny scale"] = (x * 1e-9, labels)


@pytest.mark.parametrize("case", CASES)
def test_every_index_equals_brute_force(case):
    x, labels = CASES[case]
    with np.errstate(divide="ignore"):
        expected = brute_force(x, labels)
    # small blocks, so that every kind of block occurs
    found = cluster_indices(x, labels, names=tuple(INDICES), block=8)
    for name in INDICES:
        # far from the origin float64 itself keeps eleven digits of a difference
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name


# scikit-learn calls whatever is below 1e-8 zero, and its product form loses digits of tight, far clusters
@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("tiny scale", "tight and far apart")]
)
def test_agrees_with_scikit_learn(case):
    x, labels = CASES[case]
    if case == "far from the origin":
        x = x - 1e4  # scikit-learn's product form loses the digits that we keep
    assert silhouette(x, labels) == pytest.approx(metrics.silhouette_score(x, labels), rel=1e-9, abs=1e-9)
    assert davies_bouldin(x, labels) == pytest.approx(metrics.davies_bouldin_score(x, labels), rel=1e-9)
    assert calinski_harabasz(x, labels) == pytest.approx(metrics.calinski_harabasz_score(x, labels), rel=1e-9)


def test_torchmetrics_dunn_is_matched_under_its_own_name_only():
    x, labels = CASES["two blobs"]
    theirs = float(dunn_index(torch.from_numpy(x), torch.from_numpy(labels), p=2))
    ours = cluster_indices(x, labels, names=("dunn_torchmetrics", "dunn"))
    assert ours["dunn_torchmetrics"] == pytest.approx(theirs, rel=1e-9)
    assert ours["dunn"] != pytest.approx(theirs, rel=0.1)


def test_single_precision_pass_keeps_extremes_exact():
    x, labels = blobs([300, 500], 40, seed=3)
    x, labels = x.astype(np.float32), labels
    x[5] = x[400] + np.float32(1e-4)  # the closest pair lies far below what a float32 product can resolve
    exact = brute_force(x, labels)
    fast = cluster_indices(x, labels, names=tuple(INDICES), precision="float32", block=64)
    for name in ("dunn", "dunn_complete_maximum", "dunn_hausdorff_maximum"):
        assert fast[name] == pytest.approx(exact[name], rel=1e-9), name
    for name in INDICES:
        assert fast[name] == pytest.approx(exact[name], rel=1e-5), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_of_any_floating_type(dtype):
    x, labels = blobs([20, 20], 6)
    tensor = torch.from_numpy(x).to(dtype)
    exact = brute_force(tensor.to(torch.float64).numpy(), labels)
    found = cluster_indices(tensor, torch.from_numpy(labels))
    assert all(found[name] == pytest.approx(exact[name], rel=1e-9) for name in found)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 4), width=st.integers(1, 9))
def test_rotation_translation_order_and_scale(seed, k, width):
    rng = np.random.default_rng(seed)
    x, labels = blobs(rng.integers(2, 12, size=k), width, seed=seed)
    base = cluster_indices(x, labels, names=tuple(INDICES))
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    order = rng.permutation(len(x))
    names = np.array(["a", "b", "c", "d"])[rng.permutation(4)][labels]
    for moved, of in (
        (x @ rotation + rng.normal(size=width), labels),
        (x[order], labels[order]),
        (x * 7.5, labels),
        (x, names),
    ):
        again = cluster_indices(moved, of, names=tuple(INDICES))
        for name in INDICES:
            assert again[name] == pytest.approx(base[name], rel=1e-7, abs=1e-9), name


def test_known_scaling():
    """Widening all clusters by s around fixed centres: Xie-Beni s², Davies-Bouldin s, CH s⁻²."""
    x, labels = blobs([30, 30], 5)
    centres = np.stack([x[labels == k].mean(0) for k in (0, 1)])[labels]
    wide = centres + 3 * (x - centres)
    assert xie_beni(wide, labels) == pytest.approx(9 * xie_beni(x, labels))
    assert davies_bouldin(wide, labels) == pytest.approx(3 * davies_bouldin(x, labels))
    assert calinski_harabasz(wide, labels) == pytest.approx(calinski_harabasz(x, labels) / 9)


@pytest.mark.parametrize("sizes", [(30, 30), (5, 95), (2, 2)])
def test_two_hard_clusters_make_calinski_harabasz_and_xie_beni_one_number(sizes):
    x, labels = blobs(sizes, 6)
    n = sum(sizes)
    assert calinski_harabasz(x, labels) == pytest.approx(
        sizes[0] * sizes[1] * (n - 2) / (n**2 * xie_beni(x, labels)), rel=1e-12
    )


def test_two_rows_in_two_clusters():
    found = cluster_indices([[0.0, 0.0], [3.0, 4.0]], ["a", "b"], names=tuple(INDICES))
    assert found["silhouette"] == 0
    assert found["davies_bouldin"] == 0 and found["xie_beni"] == 0
    assert found["dunn"] == math.inf
    assert math.isnan(found["calinski_harabasz"])  # 0 / 0: no degree of freedom is left within


def test_points_and_coinciding_centroids_where_libraries_give_a_friendly_number():
    points = [[0.0], [0.0], [1.0], [1.0]]
    assert calinski_harabasz(points, [0, 0, 1, 1]) == math.inf
    assert metrics.calinski_harabasz_score(points, [0, 0, 1, 1]) == 1.0
    cross = [[-1.0], [1.0], [-2.0], [2.0]]
    assert davies_bouldin(cross, [0, 0, 1, 1]) == math.inf
    assert xie_beni(cross, [0, 0, 1, 1]) == math.inf
    assert metrics.davies_bouldin_score(cross, [0, 0, 1, 1]) == 0.0


@pytest.mark.parametrize("distance", SET_DISTANCES)
@pytest.mark.parametrize("diameter", DIAMETERS)
def test_generalised_dunn_by_name(distance, diameter):
    x, labels = CASES["two blobs"]
    value = generalised_dunn(x, labels, set_distance=distance, diameter=diameter)
    assert value == pytest.approx(brute_force(x, labels)[f"dunn_{distance}_{diameter}"], rel=1e-9)


def test_dunn_is_the_first_of_the_family():
    x, labels = CASES["many imbalanced clusters"]
    assert dunn(x, labels) == generalised_dunn(x, labels, set_distance="single", diameter="maximum")


@pytest.mark.parametrize(
    ("x", "labels", "options", "says"),
    [
        ([[0.0], [1.0]], [0, 0], {}, "two clusters or more"),
        ([[0.0], [1.0]], [0, 1], {"classes": [0, 1, 2]}, r"no rows for \[2\]"),
        ([[0.0], [1.0]], [0, 1], {"classes": [0]}, "labels outside"),
        ([[0.0], [math.nan]], [0, 1], {}, "NaN or infinite"),
        ([[0.0], [1.0]], [0.0, math.nan], {}, "1 labels are missing"),
        ([[0.0], [1.0]], [0, 1, 1], {}, "3 labels for 2 rows"),
        ([[0.0], [1.0]], [0, 1], {"names": ("dun",)}, "no index 'dun'"),
        ([[0.0], [1.0]], [0, 1], {"precision": "half"}, "expected 'auto'"),
    ],
)
def test_bad_input_is_named(x, labels, options, says):
    with pytest.raises(LayerprobeError, match=says):
        cluster_indices(x, labels, **options)
