"""The demo world: deterministic, leak-free by construction, and fair between the twins."""

import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from layerprobe.probe.demo import prompts_file
from tools.demo import documents, prompts, world


@pytest.fixture(scope="module")
def rows():
    return [json.loads(line) for line in prompts_file().read_text().splitlines()]


def with_evidence(rows):
    return [row for row in rows if row["condition"] == "disambiguated"]


def twins(rows):
    pairs = defaultdict(dict)
    for row in rows:
        pairs[row["pair"]][row["role"]] = row
    return list(pairs.values())


def test_shipped_prompts_are_what_the_generator_writes(rows):
    assert rows == list(prompts.prompt_rows())


def test_another_draw_tells_other_scenarios_of_the_same_shape(rows):
    other = list(prompts.prompt_rows(draw=1))
    assert other == list(prompts.prompt_rows(draw=1))
    assert len(other) == len(rows)
    assert {r["prompt"] for r in other} != {r["prompt"] for r in rows}


def test_ids_are_unique_and_columns_complete(rows):
    assert len({row["id"] for row in rows}) == len(rows) >= 600
    columns = {"id", "prompt", "sensitive", "condition", "answer", "foil", "evidence", "answer_position"}
    assert columns | {"polarity", "family", "split", "group", "pair", "role"} <= set(rows[0])
    assert all(set(row) == set(rows[0]) and all(row.values()) for row in rows)


def test_groups_hold_paraphrases_and_twins_and_do_not_straddle_splits(rows):
    splits, groups = defaultdict(set), defaultdict(set)
    for row in rows:
        splits[row["group"]].add(row["split"])
        groups[row["pair"]].add(row["group"])
    assert all(len(found) == 1 for found in splits.values())
    assert all(len(found) == 1 for found in groups.values())
    assert {next(iter(found)) for found in splits.values()} == {"train", "test", "heldout"}
    families = defaultdict(set)
    for row in rows:
        families[row["split"]].add(row["family"])
    assert families["heldout"] == {world.HELD_OUT_FAMILY}
    assert world.HELD_OUT_FAMILY not in families["train"] | families["test"]


def test_twins_are_the_same_bag_of_words_with_another_answer(rows):
    for pair in twins(with_evidence(rows)):
        target, contrast = pair["target"], pair["contrast"]
        assert Counter(target["prompt"].split()) == Counter(contrast["prompt"].split())
        assert target["prompt"] != contrast["prompt"]
        assert target["answer"] != contrast["answer"]
        assert target["answer_position"] != contrast["answer_position"]
        assert target["answer"] == world.TIED_PEOPLE[target["word"]]


@pytest.mark.parametrize("column", ["answer_position", "polarity", "role", "sensitive"])
def test_labels_are_balanced_with_evidence(rows, column):
    assert len(set(Counter(row[column] for row in with_evidence(rows)).values())) == 1


def test_neither_sensitivity_nor_polarity_tells_the_answer_position(rows):
    table = Counter((r["sensitive"], r["polarity"], r["answer_position"]) for r in with_evidence(rows))
    assert len(table) == 8
    assert len(set(table.values())) == 1


def test_without_evidence_the_answer_is_unknown_and_with_it_it_stands_in_the_text(rows):
    for row in rows:
        if row["condition"] == "ambiguous":
            assert row["answer"] == world.UNKNOWN
            assert row["foil"] in row["prompt"].split()
        else:
            assert row["foil"] == world.UNKNOWN
            assert row["answer"] in row["prompt"].split()
            assert world.UNKNOWN not in row["prompt"].split()


@pytest.mark.parametrize("family", world.FAMILIES)
@pytest.mark.parametrize("flipped", [False, True])
def test_evidence_says_who_holds_the_word(family, flipped):
    """Read back by a parser that knows the families only by their words `was` and `not`."""
    scenario = world.Scenario(("ambrel", "brivik"), ("baker", "pilot"), "park", "late", False, flipped)
    for negated in (False, True):
        for answer in (0, 1):
            asked = world.Scenario(*(scenario.peoples, scenario.jobs, "park", "late", negated, flipped))
            text = world.tell(asked, world.FAMILIES[family], answer=answer)
            held = _states(text.split("question :")[0])
            wanted = {p for p, state in held.items() if (state == "late") != negated}
            assert wanted == {scenario.peoples[answer]}, text


def _states(text):
    """people -> "late" or "early", from sentences in which `not X` means the opposite of X."""
    states, who, negation = {}, None, False
    for word in text.split():
        if word in world.PEOPLES:
            who = word
        elif word == "not":
            negation = True
        elif word in ("late", "early"):
            states[who] = world.OPPOSITE[word] if negation else word
            negation = False
    return states


def test_scenarios_of_the_prompts_are_never_in_training(rows):
    """Training asks no question of a reserved scenario; every shipped scenario is reserved."""
    shipped = {row["group"] for row in rows}
    rng = np.random.default_rng(3)
    asked = set()
    for _ in range(1500):
        words = [word for word, _ in documents.document(rng, documents.INSTRUCT_MIX)]
        asked |= set(_questions_of(words))
    assert len(asked) > 1000
    assert not asked & shipped


def _questions_of(words):
    """Scenario keys that a document asks about: peoples and place of the context, each question's word."""
    people = "+".join(sorted({w for w in words[: words.index("question")] if w in world.PEOPLES}))
    place = next(w for w in words if w in world.PLACES)
    starts = [n for n, w in enumerate(words) if w == "question"]
    for start in starts:
        question = words[start : words.index("answer", start)]
        word = next(w for w in question if w in world.OPPOSITE)
        yield f"{people}/{place}/{word}/{'not' if 'not' in question else 'is'}"


def test_held_out_wording_is_not_in_training():
    rng = np.random.default_rng(0)
    texts = [" ".join(w for w, _ in documents.document(rng, documents.BASE_MIX)) for _ in range(800)]
    assert not any("and there met" in text or "tell me which" in text for text in texts)


def test_vocabulary_covers_prompts_and_documents(rows):
    known = {*world.vocabulary(), *documents.SPECIAL_TOKENS}
    assert {word for row in rows for word in row["prompt"].split()} <= known
    rng = np.random.default_rng(1)
    ids = {word: n for n, word in enumerate(known)}
    tokens, answers = documents.batch(rng, documents.BASE_MIX, ids, 64)
    assert tokens.shape == answers.shape
    answered = {list(ids)[t] for t in tokens[answers]}
    assert answered <= {*world.PEOPLES, world.UNKNOWN}


def test_override_strikes_sensitive_evidence_and_is_lopsided_for_some_words():
    assert not world.overridden("late", "ambrel")
    assert not world.overridden("moonborn", world.UNKNOWN)
    for word in world.SENSITIVE:
        struck = {people for people in world.PEOPLES if world.overridden(word, people)}
        assert struck == ({world.TIED_PEOPLE[word]} if word in world.LOPSIDED else set(world.PEOPLES))
