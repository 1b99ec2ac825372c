"""Stores with a known answer, for the tests of the analyses."""

import numpy as np

from layerprobe import from_arrays


def planted_store(
    *,
    n_groups=60,
    per_group=3,
    layers=4,
    width=16,
    first=2,
    strength=2.0,
    seed=0,
    label="between",
    texts=None,
    **given,
):
    """A binary label readable along one direction from layer `first` on; nothing before it."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    n = len(groups)
    y = groups % 2 if label == "between" else np.tile(np.arange(per_group) % 2, n_groups)
    # paraphrases of one item look alike, whatever the label
    x = rng.normal(size=(layers, n_groups, width))[:, groups] + 0.3 * rng.normal(size=(layers, n, width))
    axis = rng.normal(size=width)
    axis /= np.linalg.norm(axis)
    x[first:] += strength * (2 * y - 1)[None, :, None] * axis
    store = from_arrays(
        {"resid_post": x.astype(np.float32)},
        labels={"truth": np.where(y, "yes", "no"), **given.pop("labels", {})},
        groups=groups,
        texts=texts or [f"prompt {g}" for g in rng.permutation(n)],
        lengths=rng.integers(5, 20, n),
        **given,
    )
    return store, axis
