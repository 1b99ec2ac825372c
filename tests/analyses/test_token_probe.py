"""Pooled probes find a signal at a single unknown token, and padding plays no part."""

import numpy as np
import pytest
import torch

import layerprobe as lp
from layerprobe.analyses.probes.token import PromptView, token_probe
from layerprobe.analyses.probes.token_pooling import POOLS
from layerprobe.hooks.errors import LayerprobeError


def token_store(n=160, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 12, n)
    examples = np.repeat(np.arange(n), lengths)
    positions = np.concatenate([np.arange(k) for k in lengths])
    y = np.arange(n) % 2
    x = rng.normal(size=(2, len(examples), 6))
    spike = rng.integers(0, lengths)  # one token of each positive prompt carries the label
    hit = (positions == spike[examples]) & (y[examples] == 1)
    x[1, hit, 0] += 5
    x[1, hit, 1] += 5
    return lp.from_arrays(
        {"resid_post": x}, labels={"y": y}, groups=np.arange(n), examples=examples, positions=positions
    )


@pytest.mark.parametrize("method", ["attention", "multimax", "rolling", "exponential"])
def test_a_signal_at_one_token_is_found(method):
    setting = {"rolling": 1, "exponential": 0.9}.get(method)
    result = token_probe(
        token_store(),
        label="y",
        method=method,
        setting=setting,
        n_permutations=200,
        strengths=[0.3],
        n_folds=3,
    )
    rows = result.table[result.table["metric"] == "auroc"].set_index("layer")
    assert rows.loc[1, "lo"] > 0.85 and rows.loc[0, "p_familywise"] > 0.01
    assert rows.loc[1, "n_groups"] == rows.loc[1, "n"]  # prompts, not tokens


@pytest.mark.parametrize("method", POOLS)
def test_padding_changes_nothing(method):
    pool = POOLS[method]
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(3, 7, pool.heads)))
    mask = torch.ones(3, 7, dtype=torch.float64)
    lengths = [7, 4, 2]
    for row, length in enumerate(lengths):
        mask[row, length:] = 0
    together = pool.pool(scores, mask, pool.setting)
    for row, length in enumerate(lengths):
        alone = pool.pool(
            scores[row : row + 1, :length], torch.ones(1, length, dtype=torch.float64), pool.setting
        )
        torch.testing.assert_close(together[row : row + 1], alone)


def test_prompt_scores_are_the_pool_of_raw_token_scores():
    store = token_store()
    result = token_probe(store, label="y", method="attention", n_permutations=0, strengths=[0.3], n_folds=2)
    value, query = result.directions["resid_post", 1].astype(float)
    scores = result.scores[(result.scores["layer"] == 1) & (result.scores["split"] == "held_out")]
    x, examples = store.activations("resid_post", 1), np.asarray(store.examples)
    for _, row in scores.head(5).iterrows():
        tokens = x[examples == int(row["id"])]
        weight = np.exp(tokens @ query - (tokens @ query).max())
        pooled = (weight / weight.sum()) @ (tokens @ value) + float(result.directions.bias["resid_post"][1])
        assert pooled == pytest.approx(row["score"], abs=1e-3)


def test_one_row_per_prompt_is_refused():
    store = lp.from_arrays({"resid_post": np.zeros((1, 5, 2))}, labels={"y": [0, 1, 0, 1, 0]})
    with pytest.raises(LayerprobeError, match="tokens='all'"):
        PromptView(store)
    with pytest.raises(LayerprobeError, match="choose from mean"):
        token_probe(token_store(), label="y", method="median")


@pytest.mark.parametrize("method", list(POOLS))
def test_fits_converge_and_say_so_where_they_did_not(method):
    options = {"label": "y", "method": method, "n_permutations": 0, "n_folds": 3, "baselines": False}
    assert token_probe(token_store(), **options).table["converged"].all()
    assert not token_probe(token_store(), steps=2, **options).table["converged"].all()
