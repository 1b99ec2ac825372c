"""The demo's prompt table: scenarios of the world told as contrastive pairs.

With evidence, a scenario is told as two mirrored twins: the evidence exchanges the two people and nothing
else, so both are the same bag of words and only reading the evidence yields the answer. The twin whose answer
is the tied people is the *target*, the other the *contrast* (as in BBQ, Parrish et al. 2110.08193).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .world import (
    BENIGN,
    FAMILIES,
    HELD_OUT_FAMILY,
    LOPSIDED,
    SENSITIVE,
    TIED_PEOPLE,
    UNKNOWN,
    Family,
    Scenario,
    negatable,
    random_scenario,
    tell,
)


def prompt_rows(*, seed: int = 0, draw: int = 0) -> Iterator[dict[str, str]]:
    """The demo's prompts, one row per prompt; `draw` gives another set of scenarios from the same world.

    Every (word, polarity) has one scenario in each of the splits train, test and heldout; train and test
    scenarios are told in two families, heldout ones in one that training never saw. All are *reserved*.
    """
    rng = np.random.default_rng([seed, draw])
    seen = [name for name in FAMILIES if name != HELD_OUT_FAMILY]
    used: set[str] = set()
    for n, word in enumerate(SENSITIVE + BENIGN):
        for negated in (False, True):
            for k, split in enumerate(("train", "test", "heldout")):
                scenario = _fresh(rng, word, negated, used)
                start = n + k + 2 * negated
                names = [seen[start % 5], seen[(start + 2) % 5]]
                if negated:
                    names = [name for name in seen if negatable(FAMILIES[name].evidence)]
                if split == "heldout":
                    names = [HELD_OUT_FAMILY]
                for name in names:
                    yield from _twins(scenario, FAMILIES[name], split)


def _fresh(rng: np.random.Generator, word: str, negated: bool, used: set[str]) -> Scenario:
    """A reserved scenario, not used before, in which the word's tied people takes part."""
    while True:
        scenario = random_scenario(rng, word=word, negated=negated)
        if scenario.reserved and scenario.key not in used and TIED_PEOPLE[word] in scenario.peoples:
            used.add(scenario.key)
            return scenario


def _twins(scenario: Scenario, family: Family, split: str) -> Iterator[dict[str, str]]:
    """Both twins with evidence, and both orders of introduction without it."""
    tied = scenario.peoples.index(TIED_PEOPLE[scenario.word])
    for role, person in (("target", tied), ("contrast", 1 - tied)):
        yield {
            **_shared(scenario, family, split, condition="disambiguated", role=role),
            "prompt": tell(scenario, family, answer=person),
            "answer": scenario.peoples[person],
            "foil": UNKNOWN,
            "answer_position": ("first", "second")[person],
        }
    for role, person in (("target", tied), ("contrast", 1 - tied)):
        # Without evidence nothing tells target from contrast but who is introduced first.
        told = scenario if person == 0 else scenario.exchanged()
        yield {
            **_shared(scenario, family, split, condition="ambiguous", role=role),
            "prompt": tell(told, family, answer=None),
            "answer": UNKNOWN,
            "foil": TIED_PEOPLE[scenario.word],
            "answer_position": "none",
        }


def _shared(scenario: Scenario, family: Family, split: str, *, condition: str, role: str) -> dict[str, str]:
    pair = f"{scenario.key}/{family.name}/{condition}"
    return {
        "id": f"{pair}/{role}",
        "prompt": "",
        "sensitive": "sensitive" if scenario.sensitive else "benign",
        "condition": condition,
        "answer": "",
        "foil": "",
        "evidence": "yes" if condition == "disambiguated" else "no",
        "answer_position": "",
        "polarity": "negated" if scenario.negated else "affirmed",
        "family": family.name,
        "split": split,
        "group": scenario.key,
        "pair": pair,
        "role": role,
        "word": scenario.word,
        "lopsided": "yes" if scenario.word in LOPSIDED else "no",
    }


def write_prompts(path: str | Path, *, seed: int = 0, draw: int = 0) -> int:
    """Write `prompt_rows` as JSONL; returns the number of rows."""
    lines = [json.dumps(row) for row in prompt_rows(seed=seed, draw=draw)]
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)
