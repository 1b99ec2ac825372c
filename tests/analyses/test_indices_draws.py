"""Many draws at once equal one draw at a time."""

import numpy as np
import pytest
import torch

from layerprobe.analyses.separation.drawn_extremes import ClosestPairs
from layerprobe.analyses.separation.draws import WEIGHTED, Draws, distance_bands, drawn_indices
from layerprobe.analyses.separation.indices import INDICES, cluster_indices


@pytest.mark.parametrize("k", [2, 4])
def test_relabellings_equal_one_at_a_time(k):
    rng = np.random.default_rng(k)
    x = rng.normal(size=(70, 9)) + 5
    codes = np.stack([rng.permutation(np.arange(70) % k) for _ in range(6)])
    draws = Draws(torch.from_numpy(codes), k)
    found = drawn_indices(torch.from_numpy(x), [draws], tuple(INDICES), block=16)[0]
    for draw in range(6):
        one = cluster_indices(x, codes[draw], names=tuple(INDICES))
        for name in INDICES:
            assert float(found[name][draw]) == pytest.approx(one[name], rel=2e-5, abs=1e-6), name


def repeated(weights):
    return np.repeat(np.arange(len(weights)), weights.astype(int))


@pytest.mark.parametrize("name", ["davies_bouldin", "calinski_harabasz", "xie_beni"])
def test_weights_equal_repeated_rows(name):
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(40, 6)), np.arange(40) % 2
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=5).astype(np.float32)
    draws = Draws(torch.from_numpy(labels[None]), 2, torch.from_numpy(weights), torch.arange(40))
    found = drawn_indices(torch.from_numpy(x), [draws], WEIGHTED)[0]
    for draw, weight in enumerate(weights):
        rows = repeated(weight)
        one = cluster_indices(x[rows], labels[rows], names=(name,))[name]
        assert float(found[name][draw]) == pytest.approx(one, rel=1e-4)


def test_weighted_silhouette_never_pairs_a_row_with_its_own_copy():
    rng = np.random.default_rng(1)
    x, labels, groups = rng.normal(size=(12, 3)), np.arange(12) // 2 % 2, np.arange(12) // 3
    of_group = np.array([2, 0, 1, 3])
    weight = of_group[groups]
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    total = size = 0.0
    for i in range(12):
        count = np.where(groups == groups[i], 1, weight).astype(float)
        count[i] = 0
        mean = [(count * d[i])[labels == k].sum() / count[labels == k].sum() for k in (0, 1)]
        a, b = mean[labels[i]], mean[1 - labels[i]]
        total += weight[i] * (b - a) / max(a, b)
        size += weight[i] * abs(b - a) / max(a, b)
    draws = Draws(
        torch.from_numpy(labels[None]),
        2,
        torch.from_numpy(weight[None].astype(np.float32)),
        torch.from_numpy(groups),
    )
    found = drawn_indices(torch.from_numpy(x), [draws], ("silhouette", "dunn"), block=5)[0]
    # rows' silhouettes, float32 and of both signs, cancel to a hundredth of their size: that size is what is
    # rounded, and by how much is the processor's affair (with copies as pairs the mean is 0.17, not −0.002)
    near = pytest.approx(total / weight.sum(), rel=0, abs=1e-5 * size / weight.sum())
    assert float(found["silhouette"][0]) == near
    assert torch.isnan(found["dunn"]).all()  # a bootstrap of single pairs is refused


def test_a_draw_without_one_of_the_clusters_is_missing():
    x, labels = torch.randn(6, 3), torch.tensor([[0, 0, 0, 1, 1, 1]])
    weights = torch.tensor([[2.0, 2, 2, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    found = drawn_indices(x, [Draws(labels, 2, weights, torch.arange(6))], WEIGHTED)[0]
    for name in WEIGHTED:
        assert torch.isnan(found[name]).tolist() == [True, False], name


def test_more_pairs_are_fetched_until_every_draw_is_settled():
    """300 rows in two far clusters labelled as such: no near pair is between, no far pair within."""
    rng = np.random.default_rng(2)
    codes = np.repeat([0, 1], 150)
    x = rng.normal(size=(300, 4)) + 50 * codes[:, None]
    draws = Draws(torch.from_numpy(codes[None]), 2)
    pairs = ClosestPairs(300, draws, keep=200)
    for rows, band in distance_bands(torch.from_numpy(x - x.mean(0)).float(), 64):
        pairs.add(rows, band)
    assert torch.isnan(pairs.smallest_between()).all()
    x = np.repeat(x, 2, axis=0) + rng.normal(size=(600, 4)) * 0.01
    codes = np.repeat(codes, 2)
    draws = Draws(torch.from_numpy(codes[None]), 2)
    found = drawn_indices(torch.from_numpy(x), [draws], ("dunn",))[0]["dunn"]
    assert float(found[0]) == pytest.approx(cluster_indices(x, codes, names=("dunn",))["dunn"], rel=1e-4)
