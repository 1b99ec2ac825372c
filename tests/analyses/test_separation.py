"""`separation`: planted clusters are found where they are, noise is not, and every number says what it is."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from layerprobe.analyses.result.analysis import joined, read_result
from layerprobe.analyses.result.saving import to_svg
from layerprobe.analyses.separation.clusters import separation
from layerprobe.analyses.separation.indices import DEFAULT_INDICES, cluster_indices
from layerprobe.analyses.separation.spaces import to_space, whitened
from layerprobe.analyses.statistics.quantities import QUANTITIES
from layerprobe.analyses.statistics.resampling import exact_binomial_bound
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError


def paraphrases(*, groups=60, each=3, layers=3, width=16, signal=0.0, from_layer=0, seed=0, classes=2):
    """Groups of near-copies; the label belongs to the group and moves the first dimension."""
    rng = np.random.default_rng(seed)
    of_group = np.arange(groups) % classes
    g = np.repeat(np.arange(groups), each)
    x = rng.normal(size=(layers, groups, width))[:, g] + 0.3 * rng.normal(size=(layers, groups * each, width))
    x[from_layer:, :, 0] += signal * of_group[g]
    return from_arrays({"resid_post": x.astype(np.float32)}, labels={"safe": of_group[g]}, groups=g)


def test_a_planted_layer_is_found_and_no_other():
    store = paraphrases(signal=6.0, from_layer=2)
    result = separation(store, label="safe", n_permutations=199, n_bootstrap=100)
    table = result.table
    assert set(table["metric"]) == set(DEFAULT_INDICES) and set(table["space"]) == {"raw", "zscored"}
    for name in ("silhouette", "davies_bouldin", "calinski_harabasz", "xie_beni"):
        part = table[(table["metric"] == name) & (table["space"] == "zscored")].set_index("layer")
        assert (part.loc[[0, 1], "p_familywise"] > 0.05).all(), name
        assert part.loc[2, "p_familywise"] <= 0.05, name
        assert part.loc[2, "z"] > 3.5
        assert (part["lo"] < part["estimate"]).all() and (part["estimate"] < part["hi"]).all()
    text = str(result.summary())
    assert "resid_post[2]" in text and "separated beyond chance" in text and "60 groups" in text


def test_noise_is_called_noise():
    result = separation(paraphrases(seed=5), label="safe", n_permutations=99, n_bootstrap=50)
    assert "separated beyond chance" not in str(result.summary())
    assert "no evidence of separation" in str(result.summary())


def test_estimates_are_the_exact_indices():
    store = paraphrases(signal=2.0)
    result = separation(store, label="safe", n_permutations=0, n_bootstrap=0, spaces=["raw"], layers=[1])
    exact = cluster_indices(store.activations("resid_post", 1), store.labels("safe"))
    assert dict(zip(result.table["metric"], result.table["estimate"], strict=True)) == pytest.approx(exact)
    assert "no null was drawn" in str(result.summary())


def test_same_seed_same_numbers_whatever_the_row_order():
    store = paraphrases(signal=1.0)
    order = np.random.default_rng(3).permutation(store.n_rows)
    moved = from_arrays(
        {"resid_post": store.activations("resid_post")[:, order]},
        labels={"safe": store.labels("safe")[order]},
        groups=store.groups[order],
    )
    one, again = (
        separation(s, label="safe", n_permutations=49, n_bootstrap=30).table for s in (store, moved)
    )
    for column in ("estimate", "lo", "hi", "null_mean", "z", "p", "p_familywise"):
        np.testing.assert_allclose(one[column], again[column], rtol=2e-3, atol=1e-4)


def test_many_clusters_and_further_indices():
    store = paraphrases(groups=40, layers=1, classes=4, signal=4.0)
    names = ["silhouette", "dunn", "dunn_average_average", "dunn_hausdorff_centroid", "dunn_torchmetrics"]
    spaces = ["raw", "zscored", "whitened"]
    table = separation(
        store, label="safe", indices=names, spaces=spaces, n_permutations=60, n_bootstrap=20
    ).table
    assert len(table) == 15 and table["z"].notna().all()
    without = table[table["lo"].isna()]
    assert set(without["metric"]) == set(names[1:]) and without["note"].str.contains("no interval").all()


def test_intervals_cover_the_expected_value():
    """The truth of an interval is the mean of the index over fresh samples of this size."""
    rng = np.random.default_rng(0)
    names = ["silhouette", "davies_bouldin", "calinski_harabasz", "xie_beni"]

    def sample():
        y = np.arange(80) % 2
        return rng.normal(size=(1, 80, 12)) + 2.0 * y[:, None] * (np.arange(12) == 0), y

    truth = np.mean(
        [list(cluster_indices(x[0], y, names=names).values()) for x, y in (sample() for _ in range(400))], 0
    )
    hits = np.zeros(4, dtype=int)
    runs = 60
    for _ in range(runs):
        x, y = sample()
        store = from_arrays({"resid_post": x}, labels={"y": y})
        found = separation(
            store, label="y", indices=names, spaces=["raw"], groups=None, n_permutations=0, n_bootstrap=100
        ).table
        hits += (found["lo"].to_numpy() <= truth) & (truth <= found["hi"].to_numpy())
    # a true 93 % is met by all four; a percentile bootstrap of Calinski-Harabasz covers 63 %
    assert (hits >= exact_binomial_bound(runs, 0.93)[0]).all(), hits


@pytest.mark.parametrize("width", [64, 1024])
def test_null_scores_are_centred_and_family_wise_error_holds(width):
    alarms, z = _null_runs(width, runs=40 if width == 64 else 10, rows=50)
    assert alarms <= exact_binomial_bound(len(z), 0.05)[1]
    assert np.abs(z.mean(0)).max() < 3.5 / np.sqrt(len(z))


@pytest.mark.soak
@pytest.mark.parametrize("width", [64, 1024, 4096])
def test_null_over_many_draws(width):
    runs = {64: 1000, 1024: 400, 4096: 200}[width]
    alarms, z = _null_runs(width, runs=runs, rows=100)
    low, high = exact_binomial_bound(runs, 0.05)
    assert low <= alarms <= high
    assert np.abs(z.mean(0)).max() < 3.5 / np.sqrt(runs)
    assert (np.abs(z.std(0) - 1) < 0.2).all()


def _null_runs(width, *, runs, rows):
    alarms, z = 0, []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        y = rng.permutation(np.arange(rows) % 2)
        x = rng.normal(size=(2, rows, width)).astype(np.float32)
        store = from_arrays({"resid_post": x}, labels={"y": y})
        table = separation(
            store, label="y", groups=None, spaces=["raw"], n_permutations=99, n_bootstrap=0, seed=seed
        ).table
        alarms += bool((table["p_familywise"] <= 0.05).any())
        z.append(table[table["layer"] == 0]["z"].to_numpy())
    return alarms, np.array(z)


def test_dunn_rises_with_width_under_the_null_and_its_z_score_does_not():
    dunn, z = [], []
    for width in (64, 1024):
        rng = np.random.default_rng(0)
        store = from_arrays(
            {"resid_post": rng.normal(size=(1, 100, width))}, labels={"y": np.arange(100) % 2}
        )
        row = separation(
            store, label="y", indices=["dunn"], spaces=["raw"], groups=None, n_permutations=99, n_bootstrap=0
        ).table.iloc[0]
        dunn.append(row["estimate"])
        z.append(row["z"])
    assert dunn[1] > dunn[0] + 0.2
    assert np.abs(z).max() < 3


def test_dominant_dimensions_and_sinks_are_named_with_what_they_change():
    store = paraphrases(signal=6.0, layers=2)
    x = np.array(store.activations("resid_post"))
    x[0, :, 7] *= 60
    x[1, 5] *= 400
    store = from_arrays({"resid_post": x}, labels={"safe": store.labels("safe")}, groups=store.groups)
    result = separation(store, label="safe", n_permutations=20, n_bootstrap=0)
    frame = result.frames["left_out"]
    inflated = frame[(frame["left_out"] == "dominant dimensions") & (frame["layer"] == 0)]
    assert set(inflated["which"]) == {"7"}
    xb = inflated[inflated["metric"] == "xie_beni"].iloc[0]
    assert xb["estimate"] > 5 * xb["without"]
    sinks = frame[frame["left_out"] == "sink rows"]
    assert set(sinks["layer"]) == {1} and set(sinks["which"]) == {"5"}
    assert "leaving them out moves" in str(result.summary())
    clean = separation(paraphrases(), label="safe", n_permutations=0, n_bootstrap=0)
    assert clean.frames == {}


def test_zscored_space_is_blind_to_an_inflated_dimension():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 8)))
    inflated = x.clone()
    inflated[:, 3] *= 1000
    np.testing.assert_allclose(to_space(x, "zscored"), to_space(inflated, "zscored"), atol=1e-9)
    constant = torch.cat([x, torch.full((50, 1), 3.3, dtype=torch.float64)], dim=1)
    assert float(to_space(constant, "zscored")[:, -1].abs().max()) == 0


@pytest.mark.parametrize("shape", [(200, 6), (30, 80)])
def test_whitening_is_ledoit_wolf(shape):
    rng = np.random.default_rng(1)
    x = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1]))
    covariance, _ = ledoit_wolf(x)
    rows = x[:20]
    inverse = np.linalg.inv(covariance)
    difference = rows[:, None] - rows[None]
    expected = np.sqrt(np.einsum("ijk,kl,ijl->ij", difference, inverse, difference))
    ours = whitened(torch.from_numpy(x))[:20]
    np.testing.assert_allclose(torch.cdist(ours, ours), expected, rtol=1e-7, atol=1e-6)


def test_result_reads_back_and_draws(tmp_path):
    result = separation(paraphrases(signal=3.0), label="safe", n_permutations=20, n_bootstrap=10)
    again = read_result(result.to_parquet(tmp_path / "separation.parquet"))
    pd.testing.assert_frame_equal(again.table, result.table)
    assert str(again.summary()) == str(result.summary())
    svg = to_svg(result.plot())
    assert all(QUANTITIES[name].title in svg for name in DEFAULT_INDICES)
    two = joined([result, result], ["base", "tuned"])
    assert len(two.findings) == 2 * len(result.findings) and "tuned" in to_svg(two.plot())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": "nope"}, "nope"),
        ({"indices": ["dun"]}, "no index 'dun'"),
        ({"spaces": ["cosine"]}, "no space 'cosine'"),
        ({"spaces": "raw"}, "expected a list"),
        ({"sites": ["mlp_out"]}, "mlp_out"),
        ({"layers": [9]}, "9 not among the layers"),
    ],
)
def test_bad_requests_are_answered_before_any_work(options, says):
    with pytest.raises(LayerprobeError, match=says):
        separation(paraphrases(), **{"label": "safe", **options})


def test_missing_groups_one_class_and_nan_rows():
    x = np.arange(8.0).reshape(1, 4, 2)
    with pytest.raises(LayerprobeError, match="groups=None"):
        separation(from_arrays({"resid_post": x}, labels={"y": [0, 1, 0, 1]}), label="y")
    with pytest.raises(LayerprobeError, match="expected 2 or more clusters"):
        separation(from_arrays({"resid_post": x}, labels={"y": [1, 1, 1, 1]}), label="y", groups=None)
    x[0, 2, 1] = np.nan
    with pytest.raises(LayerprobeError, match=r"resid_post\[0\].*1 of 4 rows"):
        separation(from_arrays({"resid_post": x}, labels={"y": [0, 1, 0, 1]}), label="y", groups=None)


def test_a_label_that_varies_in_some_groups_only_needs_a_null_to_be_named():
    rng = np.random.default_rng(0)
    groups, y = np.arange(60) // 3, np.arange(60) // 3 % 2
    y[groups < 10] = np.arange(30) % 2  # these vary, the others do not
    x = rng.normal(size=(1, 60, 6))
    x[0, :, 0] += 5 * y
    store = from_arrays({"resid_post": x}, labels={"y": y}, groups=groups)
    options = {"label": "y", "indices": ["silhouette"], "spaces": ["raw"], "n_bootstrap": 0}
    with pytest.raises(LayerprobeError, match="permute='within'"):
        separation(store, **options)
    row = separation(store, permute="within", n_permutations=99, **options).table.iloc[0]
    assert row["p_familywise"] == 0.01 and row["null_mean"] > -0.2


def test_what_has_no_estimate_has_no_p_and_is_not_called_separated():
    """Activations that are all alike, on every layer and on one of two."""
    labels = {"y": np.random.default_rng(0).integers(0, 2, 60)}
    for constant in ([0, 1], [0]):
        rows = np.random.default_rng(1).normal(size=(2, 60, 8))
        rows[constant] = 1.0
        store = from_arrays({"resid_post": rows}, labels=labels)
        result = separation(store, label="y", groups=None, n_permutations=99, n_bootstrap=20)
        lacking = result.table[result.table["estimate"].isna()]
        assert len(lacking) and lacking[["p", "p_familywise", "q"]].isna().all(axis=None)
        assert not any(finding.verdict == "found" for finding in result.findings)
