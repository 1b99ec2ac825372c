"""Class weights move what is decided and nothing else, for the probe and its baselines alike."""

import numpy as np
import pytest
import sklearn.metrics as sk

import layerprobe as lp
from layerprobe.analyses.probes.baselines import word_features

FEW = {"n_permutations": 0, "n_bootstrap": 50}
METHODS = ["logistic", "logistic_unscaled", "ridge", "mass_mean", "mass_mean_covariance", "shrunk_lda"]


def rare(seed=0, classes=2, n=600, signal=1.2):
    """Activations with a rare class (or two)."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, size=n, p=[0.85, 0.15] if classes == 2 else [0.8, 0.12, 0.08])
    x = rng.normal(size=(1, n, 6))
    x[0, np.arange(n), y] += signal * (y > 0)
    return lp.from_arrays({"resid_post": x}, labels={"y": y})


def probe(store, method, class_weight):
    return lp.linear_probe(
        store, label="y", groups=None, method=method, class_weight=class_weight, baselines=False, **FEW
    )


@pytest.mark.parametrize("method", METHODS)
def test_balanced_weights_move_decisions_of_every_method_and_leave_probabilities(method):
    plain, balanced = (
        probe(rare(), method, w).table.set_index("metric")["estimate"] for w in (None, "balanced")
    )
    assert balanced["balanced_accuracy"] > plain["balanced_accuracy"] + 0.05
    for metric in ("log_loss", "brier"):  # of the classes' real frequencies, as the majority's are
        assert balanced[metric] == pytest.approx(plain[metric], rel=0.05)
    assert balanced["auroc"] == pytest.approx(plain["auroc"], abs=0.03)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("method", ["logistic", "ridge", "shrunk_lda"])
def test_table_predicted_and_margin_speak_of_one_decision(method, class_weight, classes):
    result = probe(rare(1, classes), method, class_weight)
    rows = result.scores[result.scores["split"] == "held_out"]
    right = (rows["predicted"] == rows["label"]).to_numpy()
    np.testing.assert_array_equal(rows["margin"] > 0, right)
    said = sk.balanced_accuracy_score(rows["label"].astype(str), rows["predicted"].astype(str))
    assert result.table.set_index("metric").loc["balanced_accuracy", "estimate"] == pytest.approx(said)


def test_a_probe_of_the_bag_of_words_does_not_beat_the_bag_of_words():
    rng = np.random.default_rng(0)
    n = 600
    y = rng.choice(3, size=n, p=[0.85, 0.1, 0.05])
    said = np.where(rng.random(n) < 0.6, y, rng.integers(0, 3, n))
    texts = [f"{'abc'[one]} f{rng.integers(5)}" for one in said]
    x = word_features(texts, np.ones(n, bool))
    store = lp.from_arrays({"resid_post": x[None]}, labels={"y": y}, texts=texts)
    for class_weight in (None, "balanced"):
        result = lp.linear_probe(store, label="y", groups=None, class_weight=class_weight, **FEW)
        leads = result.frames["against_baselines"].set_index("reference")
        assert leads.loc["text", "estimate"] == pytest.approx(0, abs=1e-9), class_weight
