"""A whole probe analysis against one put together from scikit-learn's and SciPy's parts."""

import numpy as np
import pytest
from oracles import probes as oracle
from planted_probes import planted_store

import layerprobe as lp
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.statistics.resampling import group_permutations

STRENGTHS = np.array([1e-3, 1e-2, 1e-1, 1.0])


@pytest.fixture(scope="module", params=["between", "within"])
def both(request):
    """Ours and theirs on the same splits and relabellings; offsets and scales are uneven on purpose."""
    store, _ = planted_store(label=request.param, strength=0.4, n_groups=50, seed=3)
    rng = np.random.default_rng(0)
    x = store.activations("resid_post") * np.logspace(-1, 1, 16) + 5 * rng.normal(size=16)
    x[:, :, 0] += np.arange(store.n_rows) % 7  # uneven in the order of rows
    store = lp.from_arrays(
        {"resid_post": x},
        labels={"truth": store.labels("truth")},
        groups=store.groups,
        texts=store.texts,
        lengths=store.lengths,
    )
    ours = lp.linear_probe(store, label="truth", strengths=STRENGTHS, n_permutations=199, n_bootstrap=2000)
    task = make_task(store, "truth", groups=store.groups, held_out=0.3, n_folds=5, seed=0)
    layers = store.activations("resid_post").astype(np.float64)[:, task.rows]
    theirs = oracle.probe(layers, task.y, task.test, task.fold, STRENGTHS)
    return ours, task, theirs


def test_weights_strengths_and_held_out_scores(both):
    ours, _, theirs = both
    table = ours.table[ours.table["metric"] == "auroc"].set_index("layer")
    for layer, found in enumerate(theirs):
        assert table.loc[layer, "strength"] == pytest.approx(found["strength"])
        weight = ours.directions["resid_post", layer]
        np.testing.assert_allclose(weight, found["weight"], atol=1e-4 * np.abs(found["weight"]).max())
        rows = ours.scores[(ours.scores["layer"] == layer) & (ours.scores["split"] == "held_out")]
        np.testing.assert_allclose(rows["score"], found["scores"], atol=2e-4)
    best = int(np.argmax([found["inner"] for found in theirs]))
    chosen = ours.frames["best_layer"].iloc[0]
    assert chosen["layer"] == best
    assert chosen["inner_estimate"] == pytest.approx(theirs[best]["inner"], abs=1e-6)


def test_permutation_null_max_t_and_q(both):
    ours, task, theirs = both
    relabelled = group_permutations(task.y[task.test], task.groups[task.test], 199, seed=2)
    expected = oracle.permutation_table([t["scores"] for t in theirs], task.y[task.test], relabelled)
    table = ours.table[ours.table["metric"] == "auroc"].sort_values("layer")
    for column, values in expected.items():
        np.testing.assert_allclose(table[column].to_numpy(float), values, atol=1e-3, err_msg=column)
    best = ours.frames["best_layer"].iloc[0]  # chosen without its labels, so its own p needs no correction
    assert best["p"] == table.set_index("layer").loc[best["layer"], "p"]


def test_intervals_have_the_width_of_a_bootstrap_that_repeats_rows(both):
    """On the logit scale the half width is t · √(g/(g−1)) · sd / (a(1−a))."""
    from scipy.stats import t

    ours, task, theirs = both
    table = ours.table[ours.table["metric"] == "auroc"].sort_values("layer")
    groups = task.groups[task.test]
    g = len(np.unique(groups))
    for layer in (0, 3):
        row, found = table.iloc[layer], theirs[layer]
        sd = oracle.cluster_bootstrap_sd(found["scores"], task.y[task.test], groups, 600, seed=9)
        half = t.ppf(0.975, g - 1) * np.sqrt(g / (g - 1)) * sd / (row["estimate"] * (1 - row["estimate"]))
        lo, hi = (np.log(p / (1 - p)) for p in (row["lo"], row["hi"]))
        assert (hi - lo) / 2 == pytest.approx(half, rel=0.15)


def test_no_group_is_on_two_sides(both):
    _, task, _ = both
    for group in np.unique(task.groups):
        mine = task.groups == group
        assert len(set(task.fold[mine])) == 1 and len(set(task.test[mine])) == 1
    assert set(task.fold[~task.test]) == set(range(5)) and (task.fold[task.test] == -1).all()


def test_the_best_layer_is_the_training_folds_choice_and_not_the_luckiest_in_the_table():
    """Of eight layers of noise the two differ; a layer picked by held-out scores would be too good."""
    differ, scores = 0, []
    for seed in range(8):
        store, _ = planted_store(first=9, layers=8, seed=seed, width=4)
        result = lp.linear_probe(store, label="truth", strengths=[0.1], n_permutations=0, n_bootstrap=50)
        task = make_task(store, "truth", groups=store.groups, held_out=0.3, n_folds=5, seed=0)
        x = store.activations("resid_post").astype(np.float64)[:, task.rows]
        inner = [
            oracle.inner_auroc(layer[~task.test], task.y[~task.test], task.fold[~task.test], 0.1)
            for layer in x
        ]
        best = result.frames["best_layer"].iloc[0]
        assert best["layer"] == int(np.argmax(inner))
        rows = result.table[result.table["metric"] == "auroc"].set_index("layer")["estimate"]
        assert best["estimate"] == rows[best["layer"]]
        differ += best["layer"] != rows.idxmax()
        scores.append(best["estimate"])
    assert differ >= 4 and abs(np.mean(scores) - 0.5) < 0.12


def test_the_lead_over_a_baseline_is_the_difference_of_the_two_scores(both):
    ours, _, _ = both
    best = ours.frames["best_layer"].iloc[0]
    row = ours.table[(ours.table["metric"] == "auroc") & (ours.table["layer"] == best["layer"])].iloc[0]
    leads = ours.frames["against_baselines"].set_index("reference")
    assert set(leads.index) == {"majority", "text", "length"}
    for name, lead in leads.iterrows():
        assert lead["estimate"] == pytest.approx(row["estimate"] - row[f"baseline_{name}"])
        assert lead["lo"] <= lead["estimate"] <= lead["hi"]
