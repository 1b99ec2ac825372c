import numpy as np
import pytest

from layerprobe.analyses.comparison.alikeness import (
    cka_biased,
    cka_debiased,
    effective_rank,
    exchanged_groups,
    group_jackknife,
    procrustes_r2,
    rsa_spearman,
    zscore,
)
from layerprobe.analyses.comparison.geometry import cka_row
from layerprobe.hooks.errors import LayerprobeError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def brute_unbiased_hsic(k, m):
    """The U-statistic over all ordered quadruples, as in its definition."""
    from itertools import permutations

    n, total, count = len(k), 0.0, 0
    for i, j, q, r in permutations(range(n), 4):
        total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        count += 1
    return total / count


def test_debiased_cka_is_the_ratio_of_u_statistics(rng):
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 4))
    k, m = x @ x.T, y @ y.T
    expected = brute_unbiased_hsic(k, m) / np.sqrt(brute_unbiased_hsic(k, k) * brute_unbiased_hsic(m, m))
    assert cka_debiased(x, y) == pytest.approx(expected, abs=1e-10)


def test_plain_cka_is_far_from_zero_on_noise_and_the_debiased_one_is_not(rng):
    draws = [(rng.normal(size=(60, 400)), rng.normal(size=(60, 400))) for _ in range(20)]
    assert np.mean([cka_biased(x, y) for x, y in draws]) > 0.8
    assert abs(np.mean([cka_debiased(x, y) for x, y in draws])) < 0.02


def test_similarities_ignore_rotation_scale_and_shift(rng):
    x, y = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    moved = 2.5 * y @ turn + 3
    assert cka_debiased(x, moved) == pytest.approx(cka_debiased(x, y), abs=1e-10)
    train = np.arange(40) < 20
    assert procrustes_r2(x, moved, train) == pytest.approx(procrustes_r2(x, y, train), abs=1e-10)
    assert rsa_spearman(x, 2 * y @ turn, "euclidean") == pytest.approx(
        rsa_spearman(x, y, "euclidean"), abs=1e-10
    )
    assert effective_rank(moved) == pytest.approx(effective_rank(y), abs=1e-9)


def test_held_out_procrustes_finds_nothing_in_noise_where_fitting_does(rng):
    x, y = rng.normal(size=(60, 40)), rng.normal(size=(60, 40))
    train = np.arange(60) < 30
    assert procrustes_r2(x, y, train) < 0.05


def test_two_massive_dimensions_fool_raw_cka_and_not_the_zscored_one(rng):
    x, y = rng.normal(size=(80, 30)), rng.normal(size=(80, 30))
    sink = 300 * rng.normal(size=(80, 2))
    x[:, :2] += sink
    y[:, :2] += sink
    assert cka_debiased(x, y) > 0.99
    assert abs(cka_debiased(zscore(x), zscore(y))) < 0.2


def test_jackknife_agrees_with_the_textbook_error_of_a_mean(rng):
    values = rng.normal(size=200)
    estimate, lo, hi = group_jackknife(lambda mask: values[mask].mean(), np.arange(200), n_blocks=200)
    half = 1.97196 * values.std(ddof=1) / np.sqrt(200)
    assert estimate == pytest.approx(values.mean())
    assert hi - estimate == pytest.approx(half, rel=1e-4) and estimate - lo == pytest.approx(half, rel=1e-4)


def test_jackknife_covers_the_cka_of_unrelated_features():
    missed = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        group = np.repeat(np.arange(30), 2)
        x, y = draw.normal(size=(60, 20)), draw.normal(size=(60, 20))
        _, lo, hi = group_jackknife(lambda m, x=x, y=y: cka_debiased(x[m], y[m]), group)
        missed += not lo <= 0 <= hi
    assert missed <= 10


def test_bad_shapes_are_named(rng):
    with pytest.raises(LayerprobeError, match="same rows"):
        cka_debiased(rng.normal(size=(5, 2)), rng.normal(size=(6, 2)))


def grouped_features(seed, per_group, n_groups=40, width=30):
    """Two sets of features that share nothing but which rows are variants of one item."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(n_groups), per_group)

    def one():
        return rng.normal(size=(n_groups, width))[of] + 0.3 * rng.normal(size=(len(of), width))

    return one(), one(), of


def brute_grouped_hsic(k, m, groups):
    """The product with m of the nearest matrix to k that is zero within groups with rows of sum zero."""
    n = len(k)
    apart = groups[:, None] != groups
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n) if apart[i, j]]
    rows = np.zeros((n, len(pairs)))  # of the constraints: each row's sum
    for place, (i, j) in enumerate(pairs):
        rows[i, place] = rows[j, place] = 1
    a, b = (np.array([v[i, j] for i, j in pairs]) for v in (k, m))
    return 2 * float((a - rows.T @ np.linalg.lstsq(rows @ rows.T, rows @ a, rcond=None)[0]) @ b)


@pytest.mark.parametrize(
    "groups", [[0, 0, 1, 1, 2, 2, 3, 3, 4], [0, 0, 0, 0, 0, 1, 2, 3, 4, 5], list(range(9))]
)
def test_grouped_cka_is_that_of_brute_force(rng, groups):
    groups = np.array(groups)
    x, y = rng.normal(size=(len(groups), 3)), rng.normal(size=(len(groups), 4))
    k, m = x @ x.T, y @ y.T
    own = brute_grouped_hsic(k, k, groups) * brute_grouped_hsic(m, m, groups)
    expected = brute_grouped_hsic(k, m, groups) / np.sqrt(own)
    assert cka_debiased(x, y, groups) == pytest.approx(expected, abs=1e-9)
    assert cka_debiased(x, 2 * x + 1, groups) == pytest.approx(1.0)
    if len(set(groups)) == len(groups):
        assert cka_debiased(x, y, groups) == pytest.approx(cka_debiased(x, y), abs=1e-12)


@pytest.mark.parametrize("per_group", [1, 3, 8])
def test_independent_features_of_grouped_rows_are_not_alike(per_group):
    cka, rsa, missed = [], [], 0
    for seed in range(20):
        x, y, groups = grouped_features(seed, per_group)
        row = cka_row(x, y, groups, 20, 0)
        cka.append(row["estimate"])
        rsa.append(rsa_spearman(x, y, groups=groups))
        missed += not row["lo"] <= 0 <= row["hi"]
        assert row["null_lo"] <= row["null_mean"] <= row["null_hi"] and abs(row["null_mean"]) < 0.06
    assert abs(np.mean(cka)) < 0.02 and abs(np.mean(rsa)) < 0.02  # 0.3 and 0.5 with pairs of one group
    assert missed <= 5


def test_groups_are_exchanged_whole(rng):
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    own, other = exchanged_groups(groups, rng)
    met = {(int(a), int(b)) for a, b in zip(groups[own], groups[other], strict=True)}
    assert len({a for a, _ in met}) == len({b for _, b in met}) == len(met) == 4
    assert np.isnan(cka_debiased(rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), [0, 0, 1, 1, 2, 2]))
