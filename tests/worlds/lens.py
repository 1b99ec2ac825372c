"""Worlds of lens trajectories: a lead that is lost early, late, on half of the prompts, or never."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from lens_worlds import EARLY, FLAT, OVERRIDDEN, lens_table, world
from worlds.world import Draw, World

import layerprobe as lp

SILENT = [0.0] * 8
LATE = 5
"""The first layer at which OVERRIDDEN has lost its lead."""
Curve = Sequence[float]


def both(seed: int, base: tuple[Curve, Curve], instruct: tuple[Curve, Curve], **more: Any) -> Draw:
    """Two models with noise of their own on the same prompts; curves of sensitive and benign prompts."""
    given = {"n_groups": 24, "per_group": 1, **more}
    stores = {
        name: world(*curves, seed=2 * seed + i, name=name, **given)
        for i, (name, curves) in enumerate((("base", base), ("instruct", instruct)))
    }
    return Draw(stores)


def flat(seed: int) -> Draw:
    """The answer leads to the end, in both models and on all prompts."""
    return both(seed, (FLAT, FLAT), (FLAT, FLAT))


def silent(seed: int) -> Draw:
    """Neither answer nor foil ever leads."""
    return both(seed, (SILENT, SILENT), (SILENT, SILENT))


def noisy(seed: int) -> Draw:
    """A lead that is kept, with as much noise as lead."""
    return both(seed, (FLAT, FLAT), (FLAT, FLAT), noise=6.0)


def overridden(seed: int, curve: Curve = OVERRIDDEN) -> Draw:
    """The lead is lost on sensitive prompts, in `instruct` alone."""
    return both(seed, (FLAT, FLAT), (curve, FLAT))


def weaker(seed: int, strength: float) -> Draw:
    """An override of so many times the full one."""
    lost = np.array(FLAT) + strength * (np.array(OVERRIDDEN) - np.array(FLAT))
    return overridden(seed, list(lost))


def half(seed: int) -> Draw:
    """The lead is lost on every second sensitive prompt."""
    draw = overridden(seed)
    kept, lost = draw.stores["base"], draw.store
    lens = [store.lens for store in (kept, lost)]
    odd = (np.arange(kept.n_rows) // 2) % 2 == 1
    logits = np.where(odd[None, :, None, None], lens[1].candidate_logits, lens[0].candidate_logits)
    difference = (logits[..., 0, 0] - logits[..., 1, 0]).astype(float)
    mixed = lp.from_arrays(
        {"resid_post": np.zeros((8, kept.n_rows, 2), np.float32)},
        labels={"sensitive": kept.labels("sensitive")},
        groups=kept.groups,
        lens=lens_table(difference),
        model_name="instruct",
    )
    return replace(draw, stores={"base": kept, "instruct": mixed})


def four(seed: int, changed: Sequence[tuple[str, str]]) -> Draw:
    """Weights × template; the lead is lost on sensitive prompts under the named ones."""
    keys = [(weights, template) for weights in ("base", "instruct") for template in ("plain", "chat")]
    stores = {
        key: world(
            OVERRIDDEN if key in changed else FLAT,
            FLAT,
            n_groups=24,
            per_group=1,
            seed=4 * seed + i,
            name=" ".join(key),
        )
        for i, key in enumerate(keys)
    }
    return Draw({name: stores[name, "chat"] for name in ("base", "instruct")}, more={"four": stores})


def no_effect(seed: int) -> Draw:
    """Neither weights nor template change anything."""
    return four(seed, ())


def template_only(seed: int) -> Draw:
    """The template does it, whatever the weights."""
    return four(seed, (("base", "chat"), ("instruct", "chat")))


def tuning_only(seed: int) -> Draw:
    """The weights do it, whatever the template."""
    return four(seed, (("instruct", "plain"), ("instruct", "chat")))


def answered(seed: int, misfires: float = 0.0) -> Draw:
    """Pairs of target and contrast, each right or wrong by itself; a share of the targets is suppressed."""
    rng = np.random.default_rng(seed)
    n = 120
    right = rng.random((2, n)) < 0.7
    right[0] &= rng.random(n) >= misfires
    last = np.where(right.ravel(), 2.0, -2.0)
    store = lp.from_arrays(
        {"resid_post": np.zeros((4, 2 * n, 2), np.float32)},
        lens=lens_table(np.tile(last, (4, 1))),
        labels={
            "role": ["target"] * n + ["contrast"] * n,
            "answer": ["yes"] * 2 * n,
            "foil": ["no"] * 2 * n,
            "category": ["x", "y"] * n,
        },
        pairs=[f"p{i}" for i in range(n)] * 2,
        groups=list(range(n)) * 2,
        model_name="instruct",
    )
    return Draw({"instruct": store})


NULL = [
    World("the lead is kept", "lens", flat),
    World("nothing leads", "lens", silent),
    World("a lead in noise", "lens", noisy),
    World("no effect of weights or template", "2x2", no_effect),
    World("targets like contrasts", "answers", answered),
]
PLANTED = [
    World("an early override", "lens", lambda seed: overridden(seed, EARLY)),
    World("a late override", "lens", overridden, weaker),
    World("an override on half of the prompts", "lens", half),
    World("template without tuning", "2x2", template_only),
    World("tuning without template", "2x2", tuning_only),
    World("misfired targets", "answers", lambda seed: answered(seed, 0.6), answered),
]
