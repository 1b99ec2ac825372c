"""Would anybody notice? Mutations of code behind verdicts, each of which some check of the worlds catches."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from worlds.calls import NULLS
from worlds.measure import count
from worlds.planted import PLANTED_CHECKS

from layerprobe.analyses.lens import contrasts, suppression_view
from layerprobe.analyses.reading.task import Task
from layerprobe.analyses.result import findings
from layerprobe.analyses.separation import clusters, topic_words
from layerprobe.analyses.statistics import intervals, metrics, relabelling, resampling, same_prompts

WORLDS = {world.name: world for world in NULLS}
PLAIN, DEEP, WIDE = "labels shuffled, 3 × 6", "labels shuffled, 8 × 4", "labels shuffled, 5 × 16"
COINS = "random weights, answers exchanged"
Make = Callable[[Any], Any]


@dataclass(frozen=True)
class Mutation:
    """One way to break a verdict, and who should notice."""

    apply: Callable[[Any], None]
    """Breaks it, given pytest's monkeypatch."""
    nulls: tuple[tuple[str, str, int], ...] = ()
    """Analysis, null world, draws."""
    planted: tuple[str, ...] = ()
    """Names of checks in planted worlds."""


def swap(old: Any, make: Make) -> Callable[[Any], None]:
    """A mutation that puts `make(old)` wherever the package holds `old`, by any name."""

    def apply(monkeypatch: Any) -> None:
        new = make(old)
        for name, module in list(sys.modules.items()):
            if name.startswith("layerprobe."):
                for attribute, value in list(vars(module).items()):
                    if value is old:
                        monkeypatch.setattr(module, attribute, new)

    return apply


def alpha(monkeypatch: Any) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("layerprobe.analyses") and getattr(module, "ALPHA", None) == 0.05:
            monkeypatch.setattr(module, "ALPHA", 0.5)


def training_scores(monkeypatch: Any) -> None:
    """Fits see the rows that they are scored on."""
    monkeypatch.setattr(Task, "train", property(lambda task: np.ones(len(task.y), dtype=bool)))


def inverted(decide: Any) -> Any:
    turned = {"found": "not_found", "not_found": "found"}
    return lambda *args, **more: turned.get(said := decide(*args, **more), said)


def one_sided(decide: Any) -> Any:
    return lambda lo, hi, *, zero=0.0: "found" if hi is not None and hi > zero else "not_found"


def off_by_one(found_layers: Any) -> Any:
    return lambda *args, **more: tuple(layer + 1 for layer in found_layers(*args, **more))


def single_p(p_of: Any) -> Any:
    return lambda row, **more: p_of({k: v for k, v in row.items() if k != "p_familywise"}, **more)


def uncorrected(_: Any) -> Any:
    return lambda seen, null, **more: intervals.permutation_p(seen, null)


def other_tail(test: Any) -> Any:
    return lambda seen, null, **more: test(-np.asarray(seen), -np.asarray(null), **more)


def places_changed(test: Any) -> Any:
    def swapped(seen: Any, null: Any, **more: Any) -> Any:
        return test(null[0], np.concatenate([np.asarray(seen)[None], null[1:]]), **more)

    return swapped


def ungrouped(relabel: Any) -> Any:
    return lambda labels, groups, n, seed=0, **_: relabel(labels, np.arange(len(labels)), n, seed=seed)


def unchanged(_: Any) -> Any:
    return lambda labels, groups, n, **more: np.stack([np.asarray(labels)] * n)


def by_rows(weights: Any) -> Any:
    return lambda groups, n_boot=1000, seed=0: weights(np.arange(len(groups)), n_boot, seed)


def all_different(_: Any) -> Any:
    return lambda *stores: np.arange(sum(len(store.columns) for store in stores))


def other_class(score: Any) -> Any:
    def turned(metric: str, *args: Any, **more: Any) -> Any:
        value = score(metric, *args, **more)
        return 1 - value if metric == "auroc" else value

    return turned


def alone(difference: Any) -> Any:
    return lambda row, claim, *, looks=1, **more: difference(row, claim, **more)


def either(_: Any) -> Any:
    def said(test: Any, row: Any) -> Any:
        both = findings.decide(test), findings.decide_interval(row["lo"], row["hi"])
        return ("found" if "found" in both else "not_found"), ""

    return said


def signs_flipped(in_one_order: Any) -> Any:
    def flipped(rows: Any) -> Any:
        return [
            {**contrasts.turned(row), "subset": row["subset"], "minus": row["minus"]}
            for row in in_one_order(rows)
        ]

    return flipped


def opposite(test: Any) -> Any:
    return lambda *args, **more: 1 - test(*args, **more)


def many_partners(match: Any) -> Any:
    return lambda texts, codes, groups=None, **more: match(texts, codes, None, **more)


MUTATIONS: dict[str, Mutation] = {
    "ALPHA is 0.5": Mutation(alpha, (("separation", PLAIN, 20),)),
    "verdicts are inverted": Mutation(swap(findings.decide, inverted), (("separation", PLAIN, 20),)),
    "verdicts of intervals are inverted": Mutation(
        swap(findings.decide_interval, inverted), (("attribution", COINS, 12),)
    ),
    "an interval is looked at from one side": Mutation(
        swap(findings.decide_interval, one_sided), (("attribution", COINS, 12),)
    ),
    "found layers are off by one": Mutation(
        swap(findings.found_layers, off_by_one), planted=("linear_probe",)
    ),
    "p is read uncorrected": Mutation(swap(findings.p_of, single_p), (("separation", DEEP, 20),)),
    "max-T corrects nothing": Mutation(swap(intervals.max_t, uncorrected), (("separation", DEEP, 20),)),
    "max-T takes the other tail": Mutation(swap(intervals.max_t, other_tail), planted=("separation",)),
    "null and estimate change places": Mutation(
        swap(intervals.max_t, places_changed), planted=("separation",)
    ),
    "p is one minus p": Mutation(
        swap(intervals.permutation_p, opposite), planted=("compare, suppression", "compare, classes")
    ),
    "relabelling ignores groups": Mutation(
        swap(relabelling.group_permutations, ungrouped), (("separation", "paraphrases", 20),)
    ),
    "relabelling changes nothing": Mutation(
        swap(relabelling.group_permutations, unchanged), planted=("linear_probe",)
    ),
    "the bootstrap draws rows": Mutation(
        swap(resampling.cluster_bootstrap_weights, by_rows), (("generalisation_matrix", "paraphrases", 40),)
    ),
    "duplicates are not one group": Mutation(
        swap(same_prompts.same_prompts, all_different), (("linear_probe", "duplicates", 12),)
    ),
    "probes are scored on training rows": Mutation(
        training_scores, (("linear_probe", "labels shuffled, 2 × 64", 12),)
    ),
    "AUROC is of the other class": Mutation(swap(metrics.score, other_class), planted=("linear_probe",)),
    "a smaller index is a better one": Mutation(
        swap(clusters.signed_statistic, lambda f: lambda name, values: -f(name, values)),
        planted=("separation",),
    ),
    "differences are not corrected for each other": Mutation(
        swap(contrasts.difference, alone), (("two_by_two", "no effect of weights or template", 24),)
    ),
    "either interval or test will do": Mutation(
        swap(contrasts.agreed, either), (("two_by_two", "no effect of weights or template", 24),)
    ),
    "any lead is an override": Mutation(
        swap(suppression_view.judge, lambda _: lambda *args: ("found", "")),
        (("suppression", "the lead is kept", 6),),
    ),
    "differences have the other sign": Mutation(
        swap(contrasts.in_one_order, signs_flipped), planted=("suppression", "compare, suppression")
    ),
    "groups have several partners": Mutation(
        swap(topic_words.match_by_words, many_partners), (("topic_control", WIDE, 20),)
    ),
}


def noticed(mutation: Mutation) -> str:
    """The first check that fails; empty where all pass."""
    for name in mutation.planted:
        try:
            PLANTED_CHECKS[name]()
        except Exception as error:
            return f"{name}: {type(error).__name__}"
    for kind, world, draws in mutation.nulls:
        seen = count(kind, WORLDS[world], draws)
        if seen.hits > seen.bound:
            return str(seen)
    return ""


def test_there_are_twenty():
    assert len(MUTATIONS) >= 20


@pytest.mark.soak
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_is_noticed(name, monkeypatch):
    assert not noticed(MUTATIONS[name]), "a check fails without the mutation"
    MUTATIONS[name].apply(monkeypatch)
    assert noticed(MUTATIONS[name]), f"nobody notices that {name}"
