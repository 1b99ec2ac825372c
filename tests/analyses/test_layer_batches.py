"""Layers side by side give what layers one by one give, whatever the device's memory holds at a time."""

import numpy as np
import pytest
import torch

import layerprobe as lp
from layerprobe.analyses.probes import loop as linear_probe_run
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.probes.problem import Problem
from layerprobe.analyses.reading import device as layer_batches
from layerprobe.analyses.reading.device import alike, find_device, how_many_fit, over_batches
from layerprobe.hooks.errors import LayerprobeError

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def side_by_side(request, monkeypatch):
    """Probes run stacked on this device, two layers at a time."""
    device = torch.device(request.param)
    monkeypatch.setattr(linear_probe_run, "find_device", lambda given: device if given else None)
    monkeypatch.setattr(linear_probe_run, "how_many_fit", lambda *_: 2)
    return device


def store_of(width, rows=90, layers=3, classes=2, heads=None, rank_deficient=False):
    rng = np.random.default_rng(width + classes)
    y = np.tile(np.arange(classes), rows)[:rows]
    shape = (layers, rows, heads, width) if heads else (layers, rows, width)
    x = rng.normal(size=shape) * rng.gamma(1.0, size=width) + rng.normal(size=width)
    for layer in range(layers):
        x[layer, ..., 0] += 0.5 * layer * (y[:, None] if heads else y)
    if rank_deficient:
        x[1, :, width // 2 :] = x[1, :, : width - width // 2]  # one layer of lower rank than the others
        x[2, :5] = x[2, 5:10]
    labels = {"y": np.array(list("abcd"))[y], "graded": y + 0.3 * rng.normal(size=rows)}
    return lp.from_arrays({"head_out" if heads else "resid_post": x.astype("float32")}, labels=labels)


def alike_in_numbers(one, other):
    for name in ("estimate", "lo", "hi", "p"):
        np.testing.assert_allclose(
            one.table[name].astype(float), other.table[name].astype(float), atol=2e-3, err_msg=name
        )
    assert list(one.table["layer"]) == list(other.table["layer"])
    np.testing.assert_allclose(one.scores["margin"], other.scores["margin"], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("width", [12, 130])
def test_layers_side_by_side_equal_layers_one_by_one(method, width, side_by_side):
    store = store_of(width)
    options = {"label": "y", "groups": None, "method": method, "n_permutations": 50, "n_bootstrap": 50}
    together = lp.linear_probe(store, device="stacked", **options)
    alike_in_numbers(lp.linear_probe(store, **options), together)
    for layer in range(3):
        ours, theirs = (
            r.directions["resid_post", layer] for r in (together, lp.linear_probe(store, **options))
        )
        assert abs(ours @ theirs) / np.linalg.norm(ours) / np.linalg.norm(theirs) > 1 - 1e-6


@pytest.mark.parametrize(
    "method, label, classes",
    [
        ("logistic", "y", 3),
        ("logistic_unscaled", "y", 3),
        ("ridge", "y", 3),
        ("shrunk_lda", "y", 3),
        ("ridge", "graded", 3),
    ],
)
@pytest.mark.parametrize("width", [10, 120])
def test_classes_and_grades_too(method, label, classes, width, side_by_side):
    store = store_of(width, classes=classes)
    options = {"label": label, "groups": None, "method": method, "n_permutations": 0, "n_bootstrap": 50}
    one, other = lp.linear_probe(store, **options), lp.linear_probe(store, device="stacked", **options)
    np.testing.assert_allclose(one.table["estimate"], other.table["estimate"], atol=2e-3)


@pytest.mark.parametrize("method", ["logistic", "logistic_unscaled", "ridge", "shrunk_lda"])
def test_a_layer_of_lower_rank_beside_others(method, side_by_side):
    store = store_of(140, rank_deficient=True)
    options = {"label": "y", "groups": None, "method": method, "n_permutations": 0, "n_bootstrap": 50}
    alike_in_numbers(
        lp.linear_probe(
            store, n_permutations=20, **{k: v for k, v in options.items() if k != "n_permutations"}
        ),
        lp.linear_probe(
            store,
            n_permutations=20,
            device="stacked",
            **{k: v for k, v in options.items() if k != "n_permutations"},
        ),
    )


def test_sites_of_different_width_and_heads(side_by_side):
    rng = np.random.default_rng(0)
    y = np.tile(["no", "yes"], 40)
    arrays = {
        "resid_post": rng.normal(size=(3, 80, 6)),
        "head_out": rng.normal(size=(2, 80, 3, 4)),
        "final_norm": rng.normal(size=(80, 6)),
    }
    arrays["head_out"][1, y == "yes", 2] += 2
    store = lp.from_arrays(arrays, labels={"y": y})
    options = {
        "label": "y",
        "groups": None,
        "n_permutations": 20,
        "n_bootstrap": 20,
        "class_weight": "balanced",
    }
    one, other = lp.linear_probe(store, **options), lp.linear_probe(store, device="stacked", **options)
    key = ["site", "layer", "head", "metric"]
    assert one.table[key].astype(object).equals(other.table[key].astype(object))
    np.testing.assert_allclose(one.table["estimate"], other.table["estimate"], atol=2e-3)


def test_probes_that_take_one_layer_at_a_time_run_there_too(side_by_side):
    rng = np.random.default_rng(1)
    truth = np.repeat(rng.random(40) > 0.5, 2)
    side = np.tile(["no", "yes"], 40)
    x = rng.normal(size=(2, 80, 5))
    x[1, :, 0] += 3 * np.where((side == "yes") == truth, 1, -1)
    store = lp.from_arrays(
        {"resid_post": x},
        labels={"true": (side == "yes") == truth, "side": side},
        pairs=np.repeat(np.arange(40), 2),
    )
    options = {"label": "true", "side": "side", "groups": np.repeat(np.arange(40), 2), "n_permutations": 0}
    for method in ("ccs", "crc"):
        one = lp.contrast_probe(store, method=method, **options)
        other = lp.contrast_probe(store, method=method, device="stacked", **options)
        np.testing.assert_allclose(one.table["estimate"], other.table["estimate"], atol=1e-6)


def test_a_method_gives_tensors_back_for_tensors():
    rng = np.random.default_rng(2)
    x, y = torch.from_numpy(rng.normal(size=(2, 30, 4))), np.arange(30) % 2
    fits = METHODS["logistic"].fit(Problem(x, y, 2, np.ones((30, 1))), np.array([0.1, 1.0]))
    assert isinstance(fits.weight, torch.Tensor) and fits.weight.shape == (2, 1, 2, 4)
    assert fits.margins(x, 0).shape == (2, 2, 30) and fits.converged.shape == (2, 1, 2)


def test_where_memory_does_not_suffice_fewer_go_together():
    sizes = []

    def work(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        sizes.append(len(batch))
        return [item * 10 for item in batch]

    assert over_batches(work, list(range(7)), at_a_time=5) == [0, 10, 20, 30, 40, 50, 60]
    assert sizes == [2, 2, 2, 1]


def test_a_layer_that_never_fits_is_answered_with_the_next_step():
    def work(batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 300 GiB")

    with pytest.raises(LayerprobeError, match=r"300 GiB.*device='cpu'"):
        over_batches(work, [1, 2], at_a_time=2)


def test_devices_are_checked_before_anything_is_read(monkeypatch):
    assert find_device(None) is None and find_device("cpu") is None
    with pytest.raises(LayerprobeError, match="'gpu' is unknown"):
        find_device("gpu")
    with pytest.raises(LayerprobeError, match="double precision"):
        find_device("mps")
    monkeypatch.setattr(layer_batches.torch.cuda, "is_available", lambda: False)
    assert find_device("auto") is None
    with pytest.raises(LayerprobeError, match="sees 0 CUDA devices"):
        find_device("cuda:1")
    store = store_of(4)
    with pytest.raises(LayerprobeError, match="sees 0 CUDA devices"):
        lp.linear_probe(store, label="y", groups=None, device="cuda")


def test_how_many_fit_and_items_by_key():
    assert how_many_fit(torch.device("cpu"), 1) == 1
    assert alike(["a", "bb", "c"], [1, 2, 1]) == {1: ["a", "c"], 2: ["bb"]}
