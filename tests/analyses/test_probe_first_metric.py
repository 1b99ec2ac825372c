"""The first metric asked for is the one that layers are chosen by and that is reported from inner folds."""

import numpy as np
import pytest
import torch

import layerprobe as lp
from layerprobe.analyses.probes.fit import fit_layer, fit_layers
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.reading.task import make_task
from layerprobe.analyses.statistics.metrics import score


def store_of(layers=2, n=200):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    return lp.from_arrays({"resid_post": rng.normal(size=(layers, n, 4)) + y[:, None]}, labels={"y": y})


@pytest.mark.parametrize("metric", ["log_loss", "balanced_accuracy", "brier", "auroc"])
def test_the_inner_estimate_is_of_the_first_metric(metric):
    store = store_of()
    result = lp.linear_probe(
        store, label="y", groups=None, metrics=[metric, "accuracy"], n_permutations=0, n_bootstrap=50
    )
    best = result.frames["best_layer"].iloc[0]
    task = make_task(store, "y", groups=None, held_out=0.3, n_folds=5, seed=0)
    method, inner = METHODS["logistic"], {}
    for layer in (0, 1):
        fit = fit_layer(
            store.activations("resid_post", layer)[task.rows].astype(float),
            task,
            method,
            strengths=method.strengths,
        )
        folds = [task.fold == fold for fold in range(5)]
        inner[layer] = np.mean([score(metric, task.y[f], fit.predicted.rows(f))[0] for f in folds])
    assert best["inner_estimate"] == pytest.approx(inner[best["layer"]])
    pick = min if metric in ("log_loss", "brier") else max
    assert best["layer"] == pick(inner, key=inner.get)


def test_layers_side_by_side_go_by_the_same_metric():
    store, method = store_of(), METHODS["ridge"]
    task = make_task(store, "y", groups=None, held_out=0.3, n_folds=5, seed=0)
    x = store.activations("resid_post")[:, task.rows].astype(float)
    options = {"strengths": method.strengths, "metric": "balanced_accuracy", "class_weight": "balanced"}
    together = fit_layers(torch.from_numpy(x), task, method, **options)
    for rows, fit in zip(x, together, strict=True):
        assert fit_layer(rows, task, method, **options).inner == pytest.approx(fit.inner)


def test_a_metric_that_inner_folds_cannot_have_chooses_nothing_and_says_nothing_false():
    result = lp.linear_probe(
        store_of(), label="y", groups=None, metrics=["tpr_at_fpr_0.01"], n_permutations=0, n_bootstrap=50
    )
    best = result.frames["best_layer"]
    assert "inner_estimate" not in best or best["inner_estimate"].isna().all()
