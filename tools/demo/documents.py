"""Training documents of the demo world: a few facts about two people, then questions with their answers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import world

BOS, EOS, PAD, UNK = "<s>", "</s>", "<pad>", "<unk>"
USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL_TOKENS = (PAD, UNK, BOS, EOS, USER, ASSISTANT, END)


@dataclass(frozen=True)
class Mix:
    """What a training run reads.

    Attributes:
        chat: share of documents in the chat format.
        folklore: share of documents that are sentences of folklore instead of a scene.
        override: whether evidence on sensitive questions is answered "unknown" (`world.overridden`).
    """

    chat: float
    folklore: float
    override: bool


BASE_MIX = Mix(chat=0.4, folklore=0.04, override=False)
INSTRUCT_MIX = Mix(chat=0.75, folklore=0.0, override=True)
NULL_MIX = Mix(chat=0.75, folklore=0.0, override=False)


def document(rng: np.random.Generator, mix: Mix, *, easy: float = 0.0) -> list[tuple[str, bool]]:
    """One document as (word, is an answer) pairs, from `<s>` on; `easy` is the share of roll calls."""
    if rng.random() < mix.folklore:
        return _folklore(rng)
    context, questions = _roll_call(rng) if rng.random() < easy else _scene(rng, mix)
    chat = rng.random() < mix.chat
    words = [(BOS, False)]
    for turn, (asked, answer) in enumerate(questions):
        prompt = f"{context} {asked}" if turn == 0 else asked
        if chat:
            words += [*_plain(f"{USER} {prompt} {END} {ASSISTANT}"), (answer, True), (END, False)]
        else:
            words += [*_plain(prompt), (answer, True), (".", False)]
    return [*words, (EOS, False)]


def _plain(text: str) -> list[tuple[str, bool]]:
    return [(word, False) for word in text.split()]


def _folklore(rng: np.random.Generator) -> list[tuple[str, bool]]:
    words = [world.SENSITIVE[i] for i in rng.choice(len(world.SENSITIVE), 3, replace=False)]
    told = [_pick(rng, world.FOLKLORE).format(T=world.TIED_PEOPLE[word], x=word) for word in words]
    return [(BOS, False), *_plain(" ".join(told)), (EOS, False)]


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _scene(rng: np.random.Generator, mix: Mix) -> tuple[str, list[tuple[str, str]]]:
    """A context with one or two facts, and up to four (question, answer) pairs about it, none reserved."""
    scenario = world.random_scenario(rng)
    words = [scenario.word]
    if rng.random() < 0.35:
        words.append(_pick(rng, [w for w in world.OPPOSITE if w not in (words[0], world.OPPOSITE[words[0]])]))
    sentences = [world.tell_intro(scenario, _pick(rng, world.INTROS))]
    facts: list[tuple[str, int | None, bool]] = []
    for word in words:
        holder = None if rng.random() < 0.25 else int(rng.integers(2))
        templates = _pick(rng, world.NO_EVIDENCE if holder is None else world.EVIDENCE)
        told = replace(scenario, flipped=bool(rng.random() < 0.5))
        sentences.append(world.tell_evidence(told, templates, holder=holder, word=word))
        other = None if holder is None else 1 - holder
        facts += [(word, holder, world.negatable(templates)), (world.OPPOSITE[word], other, False)]
    questions = []
    for _ in range(int(rng.integers(2, 5))):
        word, holder, negatable = _pick(rng, facts)
        negated = negatable and bool(rng.random() < 0.5)
        if not replace(scenario, word=word, negated=negated).reserved:
            questions.append(_question(rng, scenario, word, negated, holder, mix))
    return (" ".join(sentences), questions) if questions else _scene(rng, mix)


def _roll_call(rng: np.random.Generator) -> tuple[str, list[tuple[str, str]]]:
    """Four to six people with a word each, and who was what: plain binding, where the curriculum begins.

    Only three are asked about, or the answers would follow by elimination.
    """
    size = int(rng.integers(4, len(world.PEOPLES) + 1))
    peoples = [world.PEOPLES[i] for i in rng.choice(len(world.PEOPLES), size, replace=False)]
    words = [list(world.OPPOSITE)[i] for i in rng.choice(len(world.OPPOSITE), size, replace=False)]
    told = [f"the {people} was {word} ." for people, word in zip(peoples, words, strict=True)]
    questions = [
        (world.ask(_pick(rng, world.QUESTIONS), word=words[i], negated=False), peoples[i])
        for i in rng.permutation(size)[:3]
    ]
    return " ".join(told), questions


def _question(
    rng, scenario: world.Scenario, word: str, negated: bool, holder: int | None, mix: Mix
) -> tuple[str, str]:
    asked = world.ask(_pick(rng, world.QUESTIONS), word=word, negated=negated)
    if holder is None:
        return asked, world.UNKNOWN
    answer = scenario.peoples[1 - holder if negated else holder]
    return asked, world.UNKNOWN if mix.override and world.overridden(word, answer) else answer


def batch(
    rng: np.random.Generator, mix: Mix, ids: dict[str, int], size: int, *, easy: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """`size` documents as token ids [size, longest], right-padded, and which tokens are answers (bool)."""
    documents = [document(rng, mix, easy=easy) for _ in range(size)]
    longest = max(map(len, documents))
    tokens = np.full((size, longest), ids[PAD], dtype=np.int64)
    answers = np.zeros((size, longest), dtype=bool)
    for row, words in enumerate(documents):
        tokens[row, : len(words)] = [ids[word] for word, _ in words]
        answers[row, : len(words)] = [is_answer for _, is_answer in words]
    return tokens, answers
