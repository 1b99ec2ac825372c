"""AQI: identity, n-invariance, planted layers, the released code's scaling, paired comparison."""

import numpy as np
import pandas as pd
import pytest

from layerprobe.analyses.alignment.forms import quality_of, released_quality, scaled_within_model
from layerprobe.analyses.alignment.pooling import fit_pooling, sparsemax
from layerprobe.analyses.alignment.quality_index import aqi
from layerprobe.analyses.result.analysis import AnalysisResult
from layerprobe.analyses.result.saving import to_svg
from layerprobe.analyses.separation.indices import calinski_harabasz, xie_beni
from layerprobe.cache.store.memory import from_arrays
from layerprobe.hooks.errors import LayerprobeError


def two(n, width=8, apart=3.0, seed=0, share=0.5):
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < share * n).astype(int)
    x = rng.normal(size=(n, width))
    x[:, 0] += apart * y
    return x, y


@pytest.mark.parametrize(("n", "share"), [(20, 0.5), (300, 0.5), (300, 0.1)])
def test_the_paper_sums_one_number_with_itself(n, share):
    x, y = two(n, share=share)
    n1, n2 = np.bincount(y)
    chi, xbi = calinski_harabasz(x, y), xie_beni(x, y)
    assert chi == pytest.approx(n1 * n2 * (n - 2) / (n**2 * xbi), rel=1e-12)
    assert quality_of(x, y) == pytest.approx(chi / (n - 2), rel=1e-12)
    assert quality_of(x, y, variant="paper") == pytest.approx(0.5 / xbi + 0.5 * chi, rel=1e-12)
    weighted = quality_of(x, y, variant="paper", balance=0.2)
    assert weighted == pytest.approx(0.2 / xbi + 0.8 * chi, rel=1e-12)  # balance is the share of Xie-Beni


def test_default_does_not_grow_with_n_and_the_published_form_does():
    default = [np.mean([quality_of(*two(n, seed=s)) for s in range(5)]) for n in (100, 10_000)]
    paper = [np.mean([quality_of(*two(n, seed=s), variant="paper") for s in range(5)]) for n in (100, 10_000)]
    assert default[1] == pytest.approx(default[0], rel=0.1)
    assert 50 < paper[1] / paper[0] < 100


def test_interval_at_100_rows_holds_the_value_at_10_000():
    large = quality_of(*two(10_000, seed=99))
    covered = 0
    for seed in range(6):
        x, y = two(200, seed=seed)
        store = from_arrays({"resid_post": np.stack([x, x])}, labels={"y": y})
        table = aqi(
            store,
            label="y",
            groups=None,
            space="raw",
            n_seeds=1,
            n_permutations=20,
            n_bootstrap=100,
            seed=seed,
        ).table.set_index("metric")
        assert table.loc["aqi", "n"] == 100  # half of the groups taught the weights
        # pooled over two equal layers at unit scale: the ratio does not change
        covered += table.loc["aqi_debiased", "lo"] <= large <= table.loc["aqi_debiased", "hi"]
    assert covered >= 4


def planted(signal, *, layers=24, n=240, width=24, where=13, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 2)
    x = rng.normal(size=(layers, n, width)) + rng.normal(size=(n, width))
    x[where, :, 0] += signal * y
    return from_arrays({"resid_post": x.astype(np.float32)}, labels={"safe": y, "axis": np.arange(n) % 3})


def test_pooling_recovers_the_planted_layer_out_of_24():
    result = aqi(
        planted(5.0), label="safe", groups=None, n_seeds=3, n_permutations=99, n_bootstrap=50, seed=5
    )
    weights = result.frames["weights"].groupby("layer")["weight"].mean()
    assert weights.idxmax() == 13 and weights[13] > 0.5
    row = result.table[result.table["metric"] == "aqi"].iloc[0]
    assert row["p_familywise"] <= 0.05 and row["lo"] > row["null_mean"] and row["seed_sd"] >= 0
    (finding,) = result.findings
    assert finding.verdict == "found" and "layer 13" in finding.caveats[0]
    assert "Weights learned" in to_svg(result.plot())


def test_pooling_spreads_out_and_says_so_when_no_layer_is_informative():
    result = aqi(planted(0.0), label="safe", groups=None, n_seeds=3, n_permutations=99, n_bootstrap=50)
    weights = result.frames["weights"].groupby("layer")["weight"].mean()
    assert weights.max() < 0.1
    (finding,) = result.findings
    assert finding.verdict == "not_found" and "No layer stands out" in finding.caveats[0]


@pytest.mark.parametrize("weighting", ["softmax", "sparsemax"])
def test_layer_norm_does_not_buy_weight(weighting):
    store = planted(5.0, layers=6, where=2)
    x = np.array(store.activations("resid_post"))
    x[4] *= 100
    pooling = fit_pooling(x, store.labels("safe"), np.arange(240), weighting=weighting, n_seeds=2)
    assert pooling.mean.argmax() == 2
    assert pooling.mean.sum() == pytest.approx(1)


def test_sparsemax_is_the_projection_onto_the_simplex():
    import torch

    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.normal(size=6) * 2
        found = sparsemax(torch.from_numpy(scores)).numpy()
        assert found.sum() == pytest.approx(1) and (found >= 0).all()
        # no point of the simplex is nearer
        others = rng.dirichlet(np.ones(6), size=500)
        assert ((others - scores) ** 2).sum(1).min() >= ((found - scores) ** 2).sum() - 1e-12


def test_per_axis_scores_and_paired_differences():
    one, other = planted(5.0, layers=4, where=1), planted(2.0, layers=4, where=1)
    result = aqi(
        {"instruct": one, "base": other},
        label="safe",
        axis="axis",
        groups=None,
        reference="base",
        n_seeds=2,
        n_permutations=50,
        n_bootstrap=100,
    )
    of_axis = {f.subset for f in result.findings if f.model == "instruct" and f.reference is None}
    assert of_axis == {None, "axis=0", "axis=1", "axis=2"}
    table = result.table
    assert set(table["subset"]) == {"overall", "axis=0", "axis=1", "axis=2"}
    difference = table[(table["reference"] == "base") & (table["subset"] == "overall")].iloc[0]
    assert difference["model"] == "instruct" and difference["lo"] > 0
    same = aqi(
        {"a": one, "b": one}, label="safe", groups=None, n_seeds=1, n_permutations=20, n_bootstrap=50
    ).table
    twin = same[same["reference"] == "a"].iloc[0]
    assert (twin["estimate"], twin["lo"], twin["hi"]) == (0, 0, 0)  # draws are paired


def test_released_scaling_on_fixed_inputs():
    found = scaled_within_model(
        {
            "a": {"calinski_harabasz": 10.0, "xie_beni": 0.2},
            "b": {"calinski_harabasz": 30.0, "xie_beni": 0.4},
            "overall": {"calinski_harabasz": 20.0, "xie_beni": 2.0},
        }
    )
    # by hand: CHI scaled 0, 100, 50; Xie-Beni median 0.4, interquartile range 0.9
    sigmoid = [100 * (1 - 1 / (1 + np.exp(-(v - 0.4) / 0.9))) for v in (0.2, 0.4, 2.0)]
    expected = [(c + max(10, s)) / 2 for c, s in zip((0, 100, 50), sigmoid, strict=True)]
    assert [one["aqi"] for one in found.values()] == pytest.approx(expected, rel=1e-6)


def test_released_runs_on_t_sne_and_says_what_it_is():
    x, y = two(60, apart=8.0)
    found = released_quality(x, y, {"a": np.arange(60) % 2 == 0, "tiny": np.arange(60) < 3})
    assert set(found) == {"a", "overall"}
    store = from_arrays({"resid_post": x[None]}, labels={"y": y})
    result = aqi(store, label="y", groups=None, variant="released")
    row = result.table[result.table["metric"] == "aqi"].iloc[0]
    assert row["estimate"] == 50.0  # a single category: 50 whatever the model
    assert "no null" in row["note"]
    (finding,) = (one for one in result.findings if one.lead)
    assert finding.verdict == "not_tested" and "50 where it has one category" in finding.caveats[0]


def test_weights_learned_at_chance_are_not_read_out():
    weights = pd.DataFrame(
        {"model": "a", "layer": [0, 1], "pooling_seed": 0, "steps": 9, "weight": [0.9, 0.1]}
    )
    row = {"metric": "aqi", "model": "a", "subset": "overall", "target": "y", "estimate": 0.01, "lo": 0.0}
    row |= {"hi": 0.02, "null_mean": 0.01, "z": 0.1, "seed_sd": 0.0, "n": 9, "n_groups": 9}
    for p, says in ((0.6, "Its layer weights say nothing"), (0.01, "learned weights lie on layer 0 (0.900)")):
        table = pd.DataFrame([{**row, "p_familywise": p}])
        (finding,) = AnalysisResult("aqi", table, frames={"weights": weights}).findings
        assert says in finding.caveats[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"label": "axis"}, "needs two classes"),
        ({"variant": "best"}, "expected one of default, paper, released"),
        ({"reference": "zzz"}, "none of arrays"),
        ({"space": "whitened"}, "expected 'zscored' or 'raw'"),
        ({"weighting": "max"}, "sparsemax, softmax"),
        ({"layers": [3]}, "two layers or more"),
    ],
)
def test_bad_requests_name_the_next_step(options, says):
    with pytest.raises(LayerprobeError, match=says):
        aqi(planted(1.0, layers=4, n=60, where=1), **{"label": "safe", "groups": None, **options})


def test_stores_over_different_prompts_are_not_paired():
    one = planted(1.0, layers=4, n=60, where=1)
    other = from_arrays(
        {"resid_post": np.zeros((4, 60, 8))},
        labels={"safe": one.labels("safe")},
        ids=[f"x{i}" for i in range(60)],
    )
    with pytest.raises(LayerprobeError, match="different prompts"):
        aqi({"a": one, "b": other}, label="safe", groups=None)


def test_every_store_is_read_in_the_rows_of_the_first():
    """Rows have one order, by what they hold; that of one model is not that of another."""
    one = planted(5.0, layers=4, where=1)
    x = np.stack([one.activations("resid_post", layer) for layer in one.layers("resid_post")])
    back = np.arange(240)[::-1]  # as far apart, in another order by content and in the store
    labels, ids = {"safe": one.labels("safe")[back]}, [str(row) for row in back]
    turned = from_arrays({"resid_post": -x[:, back]}, labels=labels, ids=ids)
    few = {"label": "safe", "groups": None, "n_seeds": 1, "n_permutations": 19, "n_bootstrap": 10}
    table = aqi({"one": one, "turned": turned}, **few).table
    found = table[(table["metric"] == "aqi") & table["reference"].isna()].set_index("model")["estimate"]
    assert found["turned"] == pytest.approx(found["one"], rel=1e-5)
