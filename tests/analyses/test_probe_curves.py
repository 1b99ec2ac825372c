"""Learning curves carry intervals and what the prompts alone would do on the same subsets."""

import numpy as np
import pytest
import torch

import layerprobe as lp
from layerprobe.analyses.probes.baselines import word_features
from layerprobe.analyses.validation.curves import learning_curve
from layerprobe.hooks.errors import LayerprobeError


def store_of(seed=0, n=160, words=True):
    """Half of the labels are said in the prompt; activations hold its words and nothing else."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    said = np.where(rng.random(n) < 0.75, y, 1 - y)
    texts = [f"{'yes' if one else 'no'} w{rng.integers(5)} n{row}" for row, one in enumerate(said)]
    x = word_features(texts, np.ones(n, bool)) if words else rng.normal(size=(n, 6)) + y[:, None]
    lengths = rng.integers(5, 9, n)
    return lp.from_arrays(
        {"resid_post": x[None].repeat(2, axis=0)},
        labels={"y": y},
        groups=np.arange(n),
        texts=texts,
        lengths=lengths,
    )


def test_activations_that_are_the_words_do_no_better_than_the_words():
    table = learning_curve(store_of(), label="y", layers=[0]).table
    curve, code = table[table["metric"] == "auroc"], table[table["metric"] == "codelength"]
    np.testing.assert_allclose(curve["estimate"], curve["baseline_text"], atol=0.1)
    assert (curve["baseline_majority"] == 0.5).all() and curve["baseline_length"].lt(0.7).all()
    assert code["baseline_text"].iloc[0] == pytest.approx(code["estimate"].iloc[0], rel=0.1)
    assert code["baseline_text"].iloc[0] < code["baseline_majority"].iloc[0]
    assert (curve["lo"] < curve["estimate"]).all() and (curve["estimate"] < curve["hi"]).all()


def test_shares_that_are_the_same_groups_are_one_row_and_no_share_is_refused():
    table = learning_curve(
        store_of(n=60), label="y", layers=[0], shares=(0.05, 0.1, 0.2, 1.0), codelength=False, baselines=False
    ).table
    assert table["n_train"].is_unique and "baseline_text" not in table
    for shares in ((2.0,), (0.0,), ()):
        with pytest.raises(LayerprobeError, match="above 0 to 1"):
            learning_curve(store_of(), label="y", shares=shares)


def test_the_curve_is_the_same_on_tensors(monkeypatch):
    store = store_of(words=False)
    one = learning_curve(store, label="y", shares=(0.5, 1.0), n_draws=1).table
    monkeypatch.setattr(
        "layerprobe.analyses.validation.curves.find_device", lambda given: torch.device("cpu")
    )
    other = learning_curve(store, label="y", shares=(0.5, 1.0), n_draws=1, device="stacked").table
    for column in ("estimate", "baseline_text", "baseline_length"):
        np.testing.assert_allclose(one[column], other[column], rtol=1e-5, atol=1e-6)
