"""Directions of every label, class and head score raw activations as the probes' own scores do."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.result.directions import Directions
from layerprobe.hooks.errors import LayerprobeError

LEAN = {"groups": None, "n_permutations": 0, "n_bootstrap": 20, "baselines": False}


@pytest.fixture(scope="module")
def store():
    rng = np.random.default_rng(0)
    two, three = np.arange(120) % 2, np.arange(120) // 2 % 3
    x = rng.normal(size=(2, 120, 3, 4)) + two[:, None, None] * 0.5
    x[..., 0] += three[:, None]
    arrays = {"head_out": x, "resid_post": x.reshape(2, 120, 12)}
    return lp.from_arrays(arrays, labels={"two": two, "other": 1 - two, "three": three})


def held_out(result, **where):
    scores = result.scores[result.scores["split"] == "held_out"]
    for name, value in where.items():
        scores = scores[scores[name] == value]
    return scores["id"].astype(int).to_numpy(), scores["score"].to_numpy()


def test_heads_of_several_labels(store):
    result = lp.linear_probe(store, label=["two", "other"], sites="head_out", **LEAN)
    raw = np.asarray(store.activations("head_out", 1), dtype=float)
    assert result.directions["head_out", 1].shape == (2, 3, 4)
    everything = result.directions.score(raw, "head_out", 1)
    assert everything.shape == (120, 2, 3)
    rows, theirs = held_out(result, layer=1, head=2, target="other")
    np.testing.assert_allclose(everything[rows, 1, 2], theirs, atol=1e-5)
    alone = result.directions.of("other")
    assert alone["head_out", 1].shape == (3, 4)  # what add("head_out", vector=…) takes
    np.testing.assert_allclose(alone.score(raw, "head_out", 1), everything[:, 1])


def test_heads_of_several_classes(store):
    result = lp.linear_probe(store, label="three", sites="head_out", **LEAN)
    raw = np.asarray(store.activations("head_out", 0), dtype=float)
    assert result.directions["head_out", 0].shape == (3, 3, 4)
    scores = result.directions.score(raw, "head_out", 0)
    assert scores.shape == (120, 3, 3)
    for head in range(3):
        expected = np.einsum("rd,kd->rk", raw[:, head], result.directions["head_out", 0][head])
        gap = scores[:, head] - expected
        np.testing.assert_allclose(gap - gap[0], 0, atol=1e-9)  # the biases


def test_a_label_of_three_classes_takes_no_directions_from_the_others(store, tmp_path):
    result = lp.linear_probe(store, label=["two", "three"], sites="resid_post", **LEAN)
    directions = result.directions
    assert directions.targets == ("two", "three")
    assert directions.of("two")["resid_post", 0].shape == (12,)
    assert directions.of("three")["resid_post", 0].shape == (3, 12)
    with pytest.raises(LayerprobeError, match=r"share no shape.*directions\.of\('two'\)"):
        directions["resid_post", 0]
    back = lp.read_result(result.to_parquet(tmp_path / "r.parquet")).directions
    assert list(back) == list(directions)
    raw = np.asarray(store.activations("resid_post", 1), dtype=float)
    for target in ("two", "three"):
        np.testing.assert_array_equal(
            back.of(target)["resid_post", 1], directions.of(target)["resid_post", 1]
        )
        np.testing.assert_allclose(
            back.score(raw, "resid_post", 1, target=target),
            directions.score(raw, "resid_post", 1, target=target),
        )


def test_scores_hold_at_a_large_offset(store):
    x = np.asarray(store.activations("resid_post"), dtype=float) + 1e6
    far = lp.from_arrays({"resid_post": x}, labels={"two": store.labels("two")})
    result = lp.linear_probe(far, label="two", layers=[0], **LEAN)
    rows, theirs = held_out(result)
    ours = result.directions.score(np.asarray(far.activations("resid_post", 0), dtype=float), "resid_post", 0)
    np.testing.assert_allclose(ours[rows], theirs, atol=1e-3 * theirs.std())


def test_a_token_probe_has_a_direction_for_every_head():
    rng = np.random.default_rng(1)
    examples, y = np.repeat(np.arange(80), 4), np.arange(80) % 2
    x = rng.normal(size=(1, 320, 3, 5))
    x[0, :, 1, 0] += 2 * y[examples]
    tokens = lp.from_arrays(
        {"head_out": x},
        labels={"y": y},
        groups=np.arange(80),
        examples=examples,
        positions=np.tile(range(4), 80),
    )
    result = lp.token_probe(tokens, label="y", method="mean", n_permutations=0, n_bootstrap=50)
    best = result.table[result.table["metric"] == "auroc"].set_index("head")["estimate"]
    assert best.idxmax() == 1 and best[1] > 0.9 and (best.drop(1) < 0.8).all()
    assert result.directions["head_out", 0].shape == (3, 5)


def test_files_written_before_are_read(tmp_path):
    from safetensors.numpy import save_file

    arrays = {
        "weights/resid_post/10": np.ones(3, np.float32),
        "weights/resid_post/2": np.zeros(3, np.float32),
        "bias/resid_post/10": np.float32([1]),
        "bias/resid_post/2": np.float32([2]),
    }
    save_file(arrays, tmp_path / "d.safetensors")
    back = Directions.load(tmp_path / "d.safetensors", names=())
    assert list(back) == [("resid_post", 2), ("resid_post", 10)]


def test_transfer_keeps_the_direction_of_every_dataset_and_scores_of_every_domain(tmp_path):
    rng = np.random.default_rng(2)
    y, domain = np.arange(120) % 2, np.repeat(["a", "b", "c"], 40)
    x = rng.normal(size=(1, 120, 5)) + y[:, None]
    texts = [f"text {n}" for n in range(120)]
    store = lp.from_arrays(
        {"resid_post": x}, labels={"y": y, "domain": domain}, groups=np.arange(120), texts=texts
    )
    pair = {"one": store, "other": store.select(np.arange(60))}
    matrix = lp.generalisation_matrix(pair, label="y", n_bootstrap=20, baselines=False)
    assert matrix.directions.of("one")["resid_post", 0].shape == (5,)
    options = {"n_permutations": 0, "n_bootstrap": 20, "baselines": False}
    result = lp.leave_one_domain_out(store, label="y", domain="domain", **options)
    assert sorted(result.scores["example"]) == list(
        range(120)
    )  # each row once, by the fit without its domain
    for key, rows in result.scores.groupby("subset"):
        assert set(domain[rows["example"]]) == {key.removeprefix("domain=")}
        ours = result.directions.score(x[0], "resid_post", 0, target=key)[rows["example"]]
        np.testing.assert_allclose(ours, rows["score"], atol=1e-5)
    shown = result.examples(0, worst=5)
    assert (shown["text"] == "text " + shown["example"].astype(str)).all()
    back = lp.read_result(result.to_parquet(tmp_path / "r.parquet"))
    assert back.directions.targets == result.directions.targets
