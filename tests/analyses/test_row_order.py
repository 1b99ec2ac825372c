"""Neither the order of rows, nor names, nor a process's hash seed decides anything."""

import subprocess
import sys

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.reading.labels import read_classes
from layerprobe.analyses.statistics.resampling import resolve_groups
from layerprobe.analyses.statistics.row_order import canonical_order

N = 80


def world(order=None, rename=None, ids=False, texts=False, layers=2):
    rng = np.random.default_rng(0)
    y, x = np.arange(N) % 2, rng.normal(size=(layers, N, 6))
    x[:, :, 0] += 0.8 * y
    groups = rng.permutation(np.repeat(np.arange(N // 4), 4))
    y = groups % 2
    order = np.arange(N) if order is None else order
    names = np.array([f"g{g:02d}" for g in groups]) if rename is None else rename(groups)
    return lp.from_arrays(
        {"resid_post": x[:, order]},
        labels={"y": np.where(y == 1, "yes", "no")[order]},
        groups=names[order],
        ids=[f"id {i:02d}" for i in order] if ids else None,
        texts=[f"words {i * 7919 % 97} and more" for i in order] if texts else None,
    )


def turned(groups):
    return np.array([f"other {99 - g}" for g in groups])


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("texts", [False, True])
def test_groups_are_numbered_by_what_they_hold(ids, texts):
    order = np.random.default_rng(5).permutation(N)
    one, other = world(ids=ids, texts=texts), world(order, turned, ids=ids, texts=texts)
    chosen, also = canonical_order(one), canonical_order(other)
    assert (order[also] == chosen).all()
    assert (resolve_groups(one)[chosen] == resolve_groups(other)[also]).all()
    picked = one.select(order)
    assert (order[canonical_order(picked)] == chosen).all()


def test_clusters_and_their_p_do_not_depend_on_the_order_of_rows():
    orders = [None, *(np.random.default_rng(s).permutation(N) for s in range(5))]
    found = [
        lp.unsupervised(world(order, None if i % 2 else turned), label="y", n_permutations=60).table
        for i, order in enumerate(orders)
    ]
    for column in ("estimate", "p", "p_familywise", "null_mean"):
        values = np.array([table[column].to_numpy(dtype=float) for table in found])
        np.testing.assert_allclose(values, values[:1].repeat(len(values), axis=0), rtol=1e-6, atol=1e-9)


def test_alignment_quality_does_not_depend_on_the_order_of_rows():
    orders = [None, *(np.random.default_rng(s).permutation(N) for s in range(3))]
    found = [
        lp.aqi(
            world(order, turned if order is None else None),
            label="y",
            n_permutations=40,
            n_bootstrap=40,
            n_seeds=2,
        ).table
        for order in orders
    ]
    for column in ("estimate", "lo", "p"):
        values = np.array([table[column].to_numpy(dtype=float) for table in found])
        np.testing.assert_allclose(values, values[:1].repeat(len(values), axis=0), rtol=1e-5, atol=1e-7)


def test_the_positive_of_two_spellings_does_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np; from layerprobe.analyses.reading.labels import encode; "
        "print(encode('y', np.array(['1', '1.0'] * 5, dtype=object), 'binary', None)[1])"
    )
    seen = set()
    for seed in range(4):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env={**__import__("os").environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        )
        seen.add(run.stdout)
    assert seen == {"('1', '1.0')\n"}


def gappy(kind):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = rng.normal(size=(2, 60, 5)) + 3 * y[None, :, None]
    values = np.array(["harmful", "harmless"], dtype=object)[y]
    values[::10] = kind
    texts = [f"{'a' if i % 3 else 'b'} question about thing {i % 15} number {i}" for i in range(60)]
    store = lp.from_arrays({"resid_post": x}, labels={"y": values}, texts=texts)
    return store, store.select(np.arange(60) % 10 > 0)


@pytest.mark.parametrize("gap", [None, float("nan")])
@pytest.mark.parametrize(
    "call",
    [
        lambda s: lp.separation(s, label="y", groups=None, n_permutations=20, n_bootstrap=20),
        lambda s: lp.unsupervised(s, label="y", groups=None, n_permutations=20),
        lambda s: lp.aqi(s, label="y", groups=None, n_permutations=20, n_bootstrap=20, n_seeds=1),
        lambda s: lp.topic_control(s, label="y", groups=None, n_draws=20, min_similarity=0.0),
    ],
)
def test_a_gap_in_a_column_of_words_is_a_missing_label(call, gap):
    store, without = gappy(gap)
    assert read_classes(store, "y").classes == ("harmful", "harmless")
    one, other = call(store), call(without)
    assert one.provenance["classes"] == ["harmful", "harmless"]
    np.testing.assert_allclose(
        one.table["estimate"].to_numpy(float), other.table["estimate"].to_numpy(float), rtol=1e-6
    )
    assert any("6 rows without a value" in note for note in one.notes) and not other.notes


def test_drift_leaves_gaps_out_and_says_where_the_third_set_is_closest():
    rng = np.random.default_rng(0)
    code = np.repeat([0, 1, 2], 20)
    values = np.array(["a", "b", "c"], dtype=object)[code]
    x = rng.normal(size=(3, 60, 4)) * 0.01
    for layer, where in enumerate((0.2, 0.9, 1.6)):  # overshoots in the last
        x[layer, :, 0] += np.array([0, 1, where])[code]
    values[0] = None
    store = lp.from_arrays({"resid_post": x}, labels={"y": values})
    result = lp.drift(store, label="y", start="a", end="b", third="c", groups=None, n_bootstrap=20)
    closest = result.frames["closest"]
    assert closest["layer"].tolist() == [1] and abs(closest["distance"].iloc[0] - 0.1) < 0.02
    with pytest.raises(lp.LayerprobeError, match="no rows 'None'"):
        lp.drift(store, label="y", start="a", end="b", third="None", groups=None)


def test_topic_control_reads_words_of_one_letter_and_refuses_none():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    store = lambda texts: lp.from_arrays(
        {"resid_post": rng.normal(size=(1, 40, 4))}, labels={"y": y}, texts=texts
    )
    letters = store(
        [f"{'abcdefgh'[i % 8]} {'stuvwxyz'[i % 7]} {'klmnop'[i % 5]} {i // 8}" for i in range(40)]
    )
    assert len(lp.topic_control(letters, label="y", groups=None, n_draws=20, min_similarity=0.0).table)
    with pytest.raises(lp.LayerprobeError, match="no words"):
        lp.topic_control(store(["?" * (1 + i) for i in range(40)]), label="y", groups=None)
