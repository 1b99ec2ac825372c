"""What a user may get wrong is said before anything is fitted, with what is expected and what to do next."""

import numpy as np
import pytest

import layerprobe as lp
from layerprobe.analyses.probes import loop as linear_probe_run
from layerprobe.hooks.errors import LayerprobeError

FEW = {"n_permutations": 20, "n_bootstrap": 20}


def a_store(n=80, **labels):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.normal(size=(2, n, 4))
    x[1, :, 0] += 2 * y
    return lp.from_arrays(
        {"resid_post": x, "final_norm": x[1]}, labels={"y": y, **labels}, groups=np.arange(n), ids=names(n)
    )


def names(n):
    return [f"i{i}" for i in range(n)]


@pytest.fixture
def nothing_is_fitted(monkeypatch):
    def fitted(*given, **options):
        raise AssertionError("fitted before the input was checked")

    for name in ("over_layers", "fit_baselines", "fit_layer"):
        monkeypatch.setattr(linear_probe_run, name, fitted)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"kind": "multinomial"}, r"two classes \('0', '1'\) and kind='multinomial' is for three or more"),
        ({"kind": "foo"}, r"kind='foo', expected 'binary', 'multinomial', 'regression', a dict"),
        ({"kind": {"z": "binary"}}, "speaks of 'z', not among the labels of this call: y"),
        ({"layers": [1, 99]}, r"layers=\[1, 99\]: 99 not among the layers of resid_post.*the last is 1"),
        ({"layers": [-1]}, "count from 0, and the last is 1"),
        ({"layers": []}, r"layers=\[\] names nothing"),
        ({"layers": "all"}, "expected a whole number or a list"),
        ({"layers": [0.5]}, "expected a whole number or a list"),
        ({"sites": []}, r"sites=\[\] names nothing; leave sites= out to read resid_post, final_norm"),
        ({"sites": "resid_post[9:]"}, r"selects no layer: the model has layers 0 to 1"),
        ({"sites": ["nope"]}, "site 'nope' is not in this store"),
        ({"n_bootstrap": 0}, "n_bootstrap=0, expected a whole number of 2 or more"),
        ({"n_permutations": -1}, "n_permutations=-1, expected"),
        ({"seed": -1}, "seed=-1, expected a whole number of 0 or more"),
        ({"seed": 1.5}, "seed=1.5, expected"),
        ({"n_folds": 1}, "n_folds=1, expected"),
        ({"strengths": []}, r"strengths=\[\], expected one or more finite numbers above 0"),
        ({"strengths": [-1.0]}, "numbers above 0"),
        ({"strengths": [0.0, 1.0]}, "numbers above 0"),
        ({"strengths": [np.nan, 1.0]}, "numbers above 0"),
        ({"strengths": "much"}, "numbers above 0"),
        ({"metrics": ["acc"]}, "metric 'acc' is unknown"),
        ({"metrics": ["r2"]}, "metric 'r2' says nothing of 'y', which is binary; choose from auroc"),
        ({"metrics": []}, "names nothing"),
        ({"permute": "foo"}, "permute='foo', expected 'auto', 'groups'"),
        ({"positive": "2"}, "positive='2' is not one of the two classes"),
        ({"class_weight": {0: 1}}, "expected None or 'balanced'"),
        ({"label": ["y", "typo"]}, "'typo' is not a column of this store; its label columns: y"),
        ({"label": ("y", "typo")}, "'typo' is not a column"),
        ({"label": []}, r"label=\[\]"),
        ({"held_out": 0.99}, "leaves 4 to train on, which cannot fill n_folds=5"),
        ({"method": "nope"}, "method='nope' is unknown"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_fitted(options, said, nothing_is_fitted):
    with pytest.raises(LayerprobeError, match=said):
        lp.linear_probe(a_store(), **{"label": "y", **FEW, **options})


def table(store=None, **options):
    return lp.linear_probe(store or a_store(), **{"label": "y", **FEW, **options}).table


def test_one_layer_one_metric_and_several_labels_may_be_given_plainly():
    assert set(table(layers=1, sites="resid_post")["layer"]) == {1}
    assert set(table(metrics="auroc", sites=("resid_post",))["metric"]) == {"auroc"}
    store = a_store(other=np.arange(80) // 2 % 2)
    assert set(table(store, label=("y", "other"), layers=1)["target"]) == {"y", "other"}


def test_the_order_of_strengths_changes_nothing():
    strengths = [0.001, 0.01, 0.1, 1.0]
    assert table(strengths=strengths).equals(table(strengths=strengths[::-1]))


def test_an_error_of_the_second_label_comes_before_the_first_is_fitted(nothing_is_fitted):
    store = a_store(one=np.zeros(80))
    with pytest.raises(LayerprobeError, match="'one' has one class only"):
        lp.linear_probe(store, label=["y", "one"], **FEW)


def test_kinds_by_label():
    rng = np.random.default_rng(1)
    store = a_store(grade=rng.integers(0, 10, 80))
    noted = lp.linear_probe(store, label="grade", layers=0, **FEW)
    assert any("10 whole numbers, taken as names of classes" in note for note in noted.notes)
    both = lp.linear_probe(
        store, label=["y", "grade"], kind={"grade": "regression"}, method="ridge", layers=0, **FEW
    )
    assert both.provenance["tasks"] == ["binary", "regression"]
    assert {"auroc", "r2"} <= set(both.table["metric"])
    assert not any("whole numbers" in note for note in both.notes)


def test_truth_values_with_gaps_are_the_same_classes():
    gaps = np.array([None if i % 9 == 0 else bool(i % 2) for i in range(80)], dtype=object)
    store = a_store(gaps=gaps)
    result = lp.linear_probe(store, label="gaps", positive=True, layers=0, **FEW)
    assert result.provenance["classes"]["gaps"] == ["0", "1"]
    assert lp.linear_probe(store, label="gaps", positive=False, layers=0, **FEW).provenance["classes"] == {
        "gaps": ["1", "0"]
    }
    assert any("9 rows without a value" in note for note in result.notes)


def test_infinite_labels_are_refused(nothing_is_fitted):
    values = np.random.default_rng(0).normal(size=80)
    values[3] = np.inf
    with pytest.raises(LayerprobeError, match="'grade' is infinite in 1 of 80 rows"):
        lp.linear_probe(a_store(grade=values), label="grade", method="ridge", **FEW)


def test_what_is_not_finite_is_found_first_and_named_by_its_row_in_the_store(nothing_is_fitted, tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 30, 4)).astype(np.float32)
    x[2, 25, 1] = np.nan  # in the last layer
    ids = [f"i{i}" for i in range(30)]  # whose order as words is another
    labels = {"y": np.arange(30) % 2, "z": [None if i == 25 else str(i % 2) for i in range(30)]}
    store = lp.from_arrays({"resid_post": x}, labels=labels, groups=np.arange(30), ids=ids)
    with pytest.raises(LayerprobeError, match=r"resid_post\[2\] has NaN.*first in example 'i25' \(row 25\)"):
        lp.linear_probe(store, label="y", **FEW)
    with pytest.raises(AssertionError, match="fitted"):  # the row has no label z, and is not read
        lp.linear_probe(store, label="z", **FEW)


def test_statistics_kept_at_capture_save_the_reading(monkeypatch):
    from layerprobe.analyses.reading.places import check_places, list_places
    from layerprobe.analyses.reading.task import make_task

    store = a_store()
    task = make_task(store, "y", groups=None, held_out=0.3, n_folds=5, seed=0)
    places = list_places(store, "resid_post", None)
    statistics = store.statistics("resid_post")
    monkeypatch.setattr(type(store), "kept_statistics", lambda self, site: statistics)
    monkeypatch.setattr("layerprobe.analyses.reading.places.check_finite", pytest.fail)
    check_places(store, places, [task])


def test_patterns_are_left_out_and_refused_by_name():
    x = np.random.default_rng(0).normal(size=(1, 40, 4))
    pattern = np.full((1, 40, 2, 6), np.nan)
    store = lp.from_arrays(
        {"resid_post": x, "attn_pattern": pattern}, labels={"y": np.arange(40) % 2}, groups=np.arange(40)
    )
    assert set(table(store)["site"]) == {"resid_post"}
    with pytest.raises(LayerprobeError, match="attention over positions"):
        table(store, sites="attn_pattern")
    with pytest.raises(LayerprobeError, match="'lens' is a readout of the lens"):
        table(store, sites=["lens"])


def test_texts_and_duplicates_are_those_of_every_label():
    n = 60
    first = np.array([None if i % 2 else i // 2 % 2 for i in range(n)], dtype=object)
    texts = [f"prompt about subject {i // 2} of the long list of many things {'ab'[i % 2]}" for i in range(n)]
    rng = np.random.default_rng(0)
    store = lp.from_arrays(
        {"resid_post": rng.normal(size=(1, n, 3))},
        labels={"first": first, "second": np.arange(n) // 2 % 2},
        groups=np.arange(n),
        texts=texts,
    )
    result = lp.linear_probe(store, label=["first", "second"], **FEW)
    assert len(result.frames["texts"]) == n
    assert any(note.startswith("second: ") and "near-duplicates" in note for note in result.notes)
