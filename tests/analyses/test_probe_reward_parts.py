"""A reward is taken apart over two-class, three-class and graded dimensions, and only where it is read."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.hooks.errors import LayerprobeError

FEW = {"n_permutations": 0, "n_bootstrap": 60, "baselines": False}


def planted(n=400, width=16, seed=0, gaps=False):
    """Three orthogonal axes: two classes on the first, three on the second, grades along the third."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0].T
    two, three = rng.integers(0, 2, n), rng.integers(0, 3, n)
    grade = rng.normal(size=n)
    x = rng.normal(size=(n, width)) + np.outer(3 * two, axes[0]) + np.outer(3 * three, axes[1])
    x += np.outer(3 * grade, axes[2])
    two = np.where(np.arange(n) % 9 == 0, None, two) if gaps else two
    labels = {"two": two, "three": three, "grade": grade}
    store = lp.from_arrays({"final_norm": x, "resid_post": x[None]}, labels=labels, groups=np.arange(n))
    return store, axes


def each(store, names, **more):
    return [lp.preference_dimensions(store, dimensions=[n], sites="final_norm", **FEW, **more) for n in names]


def unique(parts):
    return parts.table[parts.table["metric"] == "unique_r2"].set_index("target")["estimate"]


@pytest.mark.parametrize("which, name", [(0, "two"), (1, "three"), (2, "grade")])
def test_what_the_reward_reads_is_named_whatever_its_kind(which, name):
    store, axes = planted()
    probes = each(store, ["two", "three", "grade"])
    parts = lp.reward_decomposition(store, probes, reward=axes[which], site="final_norm", n_bootstrap=50)
    lost = unique(parts)
    assert lost.idxmax() == name and lost[name] > 0.4 and lost.drop(name).max() < 0.1
    table = parts.table.set_index("metric")
    assert table.loc["unexplained_norm", "estimate"] < 0.5 and table.loc["r2", "estimate"] > 0.7
    frame = parts.frames["axes"]
    assert frame["target"].tolist() == ["two", "three", "three", "grade"]
    assert frame["contrast"].tolist() == ["1 over 0", "1 over 0", "2 over 1", "grade"]
    assert frame.loc[frame["cosine"].abs().idxmax(), "target"] == name
    assert parts.findings[1].target == name and parts.findings[1].verdict == "found"


def test_three_classes_alone_have_the_directions_between_neighbours():
    store, axes = planted()
    (probe,) = each(store, ["three"])
    parts = lp.reward_decomposition(store, probe, reward=axes[1] + axes[3], site="final_norm", n_bootstrap=50)
    w = np.diff(probe.directions["final_norm", None].astype(float), axis=0)
    plane = np.linalg.qr(w.T)[0]
    head = (axes[1] + axes[3]) / 2**0.5
    left = np.linalg.norm(head - plane @ (plane.T @ head))
    steps = w / np.linalg.norm(w, axis=1, keepdims=True)
    np.testing.assert_allclose(parts.frames["axes"]["cosine"], steps @ head, atol=1e-9)
    table = parts.table.set_index("metric")
    assert table.loc["unexplained_norm", "estimate"] == pytest.approx(left, abs=1e-6)
    assert table.loc["unique_r2", "cosine"] == pytest.approx((1 - left**2) ** 0.5, abs=1e-6)


def test_distances_know_gaps_and_thirds_of_grades():
    store, axes = planted(gaps=True)
    parts = lp.reward_decomposition(
        store, each(store, ["two", "grade"]), reward=(axes[0], 1.5), site="final_norm", n_bootstrap=50
    )
    frame = parts.frames["cluster_distances"]
    classes = frame.groupby("dimension")["class"].unique()
    assert set(classes["two"]) == {"0", "1"} and set(classes["grade"]) == {"low", "middle", "high"}
    assert frame["distance"].notna().all() and len(frame) == 400 * 5
    near = frame[frame["dimension"] == "grade"]
    near = near.loc[near.groupby("id")["distance"].idxmin()].set_index("id")["class"]
    grade = dict(zip(store.ids, store.labels("grade"), strict=True))
    means = {
        name: np.mean([grade[i] for i in near.index[near == name]]) for name in ("low", "middle", "high")
    }
    assert means["low"] < means["middle"] < means["high"]


def test_a_site_that_the_head_does_not_read_is_refused():
    store, axes = planted()
    probes = lp.preference_dimensions(store, dimensions=["two"], sites="resid_post", **FEW)
    options = {"site": "resid_post", "layer": 0, "n_bootstrap": 50}
    with pytest.raises(LayerprobeError, match=r"reads final_norm.*resid_post\[0\].*pass rewards="):
        lp.reward_decomposition(store, probes, reward=axes[0], **options)
    x = store.activations("resid_post", 0)
    own = x @ axes[0] + 7  # a bias that nobody gave is no difference
    parts = lp.reward_decomposition(store, probes, reward=axes[0], rewards=own, **options)
    assert unique(parts)["two"] > 0.3
    for wrong in (x @ axes[1], own[::-1], np.tanh(own)):
        with pytest.raises(LayerprobeError, match="misses the given rewards by"):
            lp.reward_decomposition(store, probes, reward=axes[0], rewards=wrong, **options)
    with pytest.raises(LayerprobeError, match="one for each of 400 rows"):
        lp.reward_decomposition(store, probes, reward=axes[0], rewards=own[:5], **options)
    mean = lp.from_arrays(
        {"final_norm": x}, labels={"two": store.labels("two")}, groups=np.arange(400), tokens="mean"
    )
    with pytest.raises(LayerprobeError, match="reads the last token"):
        lp.reward_decomposition(mean, each(mean, ["two"]), reward=axes[0], site="final_norm")


def test_what_cannot_be_taken_apart_is_said():
    store, axes = planted()
    probes = each(store, ["two"])
    bad = np.array(store.activations("final_norm"))
    bad[5, 2] = np.nan
    broken = lp.from_arrays({"final_norm": bad}, labels={"two": store.labels("two")}, groups=np.arange(400))
    with pytest.raises(LayerprobeError, match=r"final_norm has NaN.*row 5\)"):
        lp.reward_decomposition(broken, probes, reward=axes[0], site="final_norm")
    with pytest.raises(LayerprobeError, match="all 0 or not finite"):
        lp.reward_decomposition(store, probes, reward=0 * axes[0], site="final_norm")
    with pytest.raises(LayerprobeError, match="has width 3"):
        lp.reward_decomposition(store, probes, reward=axes[0][:3], site="final_norm")
    with pytest.raises(LayerprobeError, match=r"dimensions=\[\] names nothing"):
        lp.preference_dimensions(store, dimensions=[])
    one = lp.preference_dimensions(store, dimensions="two", sites="final_norm", **FEW)
    assert set(one.table["target"]) == {"two"}


def test_dimensions_of_different_kinds_probed_together_are_taken_apart_as_those_probed_alone():
    store, axes = planted()
    names = ["two", "three", "grade"]
    together = lp.preference_dimensions(store, dimensions=names, sites="final_norm", **FEW)
    options = {"reward": axes[0] + axes[1], "site": "final_norm", "n_bootstrap": 50}
    one = lp.reward_decomposition(store, together, **options)
    other = lp.reward_decomposition(store, each(store, names), **options)
    np.testing.assert_allclose(unique(one), unique(other), atol=1e-9)
    assert one.frames["axes"]["contrast"].tolist() == other.frames["axes"]["contrast"].tolist()
