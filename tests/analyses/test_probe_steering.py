"""A probe's direction, as it comes, is one to steer along: adding it moves its own score as computed."""

import numpy as np
import pytest
from tiny_models import tiny_model

import layerprobe as lp
from layerprobe.cache.prompts.table import PromptTable

PLAIN = ["the cat", "a dog", "the baker", "the pilot", "old king", "the young cat"]


@pytest.fixture(scope="module")
def probed():
    """A model, its last-token store and probes of whether a prompt ends happily, per layer and per head."""
    import pandas as pd

    rng = np.random.default_rng(0)
    rows = [
        {
            "prompt": f"{rng.choice(PLAIN)} was {'happy' if i % 2 else 'sad'} in {rng.choice(PLAIN)} .",
            "y": i % 2,
        }
        for i in range(80)
    ]
    model = lp.load_model(tiny_model("llama"))
    prompts = PromptTable.from_frame(pd.DataFrame(rows), text="prompt", labels=["y"])
    store = lp.capture(model, prompts, sites=["resid_post", "head_out"], tokens="last", progress=False)
    return model, store, lp.linear_probe(store, label="y", groups=None, n_permutations=0, n_bootstrap=50)


def last_tokens(model, texts, site):
    """[texts, …] what the model holds at a site, read by the store's own path while an edit is on."""
    import pandas as pd

    prompts = PromptTable.from_frame(pd.DataFrame({"prompt": texts}), text="prompt")
    return lp.capture(model, prompts, sites=[site], tokens="last", progress=False)


@pytest.mark.parametrize("scale", [2.0, -0.5])
def test_adding_the_direction_moves_the_score_by_scale_times_its_squared_length(probed, scale):
    model, store, result = probed
    w = result.directions["resid_post", 1]
    before = result.directions.score(store.activations("resid_post", 1), "resid_post", 1)
    with model.edit(lp.add("resid_post", layer=1, vector=w, scale=scale)):
        edited = last_tokens(model, store.texts, "resid_post[1]").activations("resid_post", 1)
    after = result.directions.score(edited, "resid_post", 1)
    moved = scale * float(w.astype(float) @ w)
    np.testing.assert_allclose(after - before, moved, rtol=1e-4, atol=1e-4 * abs(before).max())
    assert ((after > before) == (scale > 0)).all()


def test_projecting_the_direction_out_leaves_the_bias(probed):
    model, store, result = probed
    w = result.directions["resid_post", 1]
    with model.edit(lp.project_out("resid_post", layer=1, directions=w)):
        edited = last_tokens(model, store.texts, "resid_post[1]").activations("resid_post", 1)
    after = result.directions.score(edited, "resid_post", 1)
    size = np.abs(store.activations("resid_post", 1)).max() * np.linalg.norm(w)
    np.testing.assert_allclose(after, float(result.directions.bias["resid_post"][1]), atol=1e-5 * size)


def test_a_head_s_direction_moves_that_head_alone(probed):
    model, store, result = probed
    w = result.directions["head_out", 2]
    before = result.directions.score(store.activations("head_out", 2), "head_out", 2)
    with model.edit(lp.add("head_out", layer=2, vector=w[3], scale=1.5, heads=3)):
        edited = last_tokens(model, store.texts, "head_out[2]").activations("head_out", 2)
    moved = result.directions.score(edited, "head_out", 2) - before
    np.testing.assert_allclose(moved[:, 3], 1.5 * float(w[3].astype(float) @ w[3]), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(moved[:, :3], 0, atol=1e-5)
