"""Power beside error: the effect found in 80 % of draws, by an analysis and by the textbook's test."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from worlds.calls import CALLS, PLANTED
from worlds.measure import LEVEL
from worlds.world import Draw

ENOUGH = 0.8
Floats = Any


@dataclass(frozen=True)
class Question:
    """One analysis on one planted world, beside a test made for that world."""

    kind: str
    world: str
    claim: str
    textbook: Callable[[Draw], bool]
    called: str
    """What the textbook's test is."""
    strengths: tuple[float, ...]
    unit: str


def hotelling(x: Floats, y: Floats | None = None) -> float:
    """p of Hotelling's T²: two samples of equal means, or one whose mean is zero. [rows, width].

    >>> x = np.random.default_rng(0).normal(size=(20, 1))
    >>> bool(np.isclose(hotelling(x[:9], x[9:]), stats.ttest_ind(x[:9], x[9:]).pvalue[0]))
    True
    """
    n, width = x.shape
    if y is None:
        scatter, gap, scale, left = np.cov(x.T), x.mean(0), n, n - 1
    else:
        m, left = len(y), n + len(y) - 2
        scatter = ((n - 1) * np.cov(x.T) + (m - 1) * np.cov(y.T)) / left
        gap, scale = x.mean(0) - y.mean(0), n * m / (n + m)
    t2 = scale * gap @ np.linalg.solve(np.atleast_2d(scatter), gap)
    return float(stats.f.sf(t2 * (left - width + 1) / (left * width), width, left - width + 1))


def by_group(values: Floats, groups: Floats) -> tuple[Floats, Floats]:
    """Mean over the rows of each group, and the first row of each."""
    first, codes = np.unique(groups, return_index=True, return_inverse=True)[1:]
    sums = np.zeros((len(first), values.shape[1]))
    np.add.at(sums, codes, values)
    return sums / np.bincount(codes)[:, None], first


def layers_apart(draw: Draw, label: str = "label", change: bool = False) -> bool:
    """Hotelling's T² of the group means of two classes in every layer, Bonferroni."""
    store, p = draw.store, []
    for layer in store.layers("resid_post"):
        x = np.asarray(store.activations("resid_post", layer=layer), dtype=float)
        if change:
            x = x - np.asarray(draw.stores["base"].activations("resid_post", layer=layer), dtype=float)
        means, first = by_group(x, store.groups)
        y = np.asarray(store.labels(label))[first].astype(str)
        p.append(hotelling(means[y == "no"], means[y == "yes"]))
    return min(p) * len(p) <= LEVEL


def pairs_apart(draw: Draw) -> bool:
    """One-sample T² of true minus false in every layer, Bonferroni: it is told which is true."""
    true = np.asarray(draw.store.labels("true")).astype(str) == "True"
    p = []
    for layer in draw.store.layers("resid_post"):
        x = np.asarray(draw.store.activations("resid_post", layer=layer), dtype=float)
        side = np.tile([0, 1], len(x) // 2)
        x = x - np.stack([x[side == k].mean(0) for k in (0, 1)])[side]
        p.append(hotelling(x[true] - x[~true]))
    return min(p) * len(p) <= LEVEL


def lead_lost(draw: Draw) -> bool:
    """Paired t-test of the lead at layer 4 and at the output, on sensitive prompts; it is told where."""
    logits = draw.store.lens.candidate_logits
    lead = (logits[..., 0, 0] - logits[..., 1, 0]).astype(float)
    lead = lead[:, np.asarray(draw.store.labels("sensitive")).astype(str) == "sensitive"]
    return bool(stats.ttest_rel(lead[4], lead[-1], alternative="greater").pvalue <= LEVEL / 2)


T2 = "Hotelling's T² of group means in each layer, Bonferroni"
STEPS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.5)
QUESTIONS = [
    *(
        Question(kind, "readable from layer 2", claim, layers_apart, T2, STEPS, "standard deviations")
        for kind, claim in (
            ("linear_probe", "readable"),
            ("separation", "separated"),
            ("aqi", "apart"),
            ("unsupervised", "agrees"),
            ("leave_one_domain_out", "holds_on_unseen_domain"),
            ("topic_control", "survives_matching"),
        )
    ),
    Question("separation", "a cluster", "separated", layers_apart, T2, STEPS, "standard deviations"),
    Question(
        "compare",
        "classes moved by tuning",
        "class difference changed",
        lambda draw: layers_apart(draw, change=True),
        "the same of the change",
        (0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.4),
        "standard deviations",
    ),
    Question(
        "contrast_probe",
        "truth of pairs",
        "readable",
        pairs_apart,
        "one-sample T² of true minus false, which it is told",
        (0.2, 0.4, 0.6, 0.9, 1.3, 2.0),
        "standard deviations",
    ),
    Question(
        "suppression",
        "a late override",
        "suppressed",
        lead_lost,
        "paired t-test between the two layers, which it is told",
        (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8),
        "of the planted loss",
    ),
]


def enough(question: Question, draws: int) -> tuple[float, float]:
    """Strengths at which analysis and textbook find it in 80 % of draws; infinite above the largest tried."""
    world = next(w for w in PLANTED if w.name == question.world)
    assert world.power is not None
    shares: list[tuple[float, float]] = []
    for strength in question.strengths:
        made = [world.power(seed, strength) for seed in range(draws)]
        results = (CALLS[question.kind].run(draw, seed=seed) for seed, draw in enumerate(made))
        ours = [
            any(f.claim.name == question.claim and f.verdict == "found" for f in result.findings)
            for result in results
        ]
        shares.append((float(np.mean(ours)), float(np.mean([question.textbook(draw) for draw in made]))))
        if min(shares[-1]) >= ENOUGH:
            break
    return tuple(crossing(question.strengths, [pair[i] for pair in shares]) for i in (0, 1))


def crossing(strengths: Any, shares: Any) -> float:
    """Where a rising share first reaches ENOUGH, between the strengths that were tried.

    >>> crossing((1.0, 2.0, 3.0), (0.2, 0.6, 1.0)), crossing((1.0, 2.0), (0.2, 0.6))
    (2.5, inf)
    """
    below, at = 0.0, 0.0
    for strength, share in zip(strengths, shares, strict=False):
        if share >= ENOUGH:
            return float(at + (strength - at) * (ENOUGH - below) / (share - below))
        below, at = share, strength
    return float("inf")
