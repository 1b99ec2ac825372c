"""Candidate answers as tokens: the first token in context of every surface variant of a string."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError

log = logging.getLogger(__name__)


def surface_variants(answer: str) -> list[str]:
    """The ways in which a string may begin an answer: after a space or not, as written, capitalised, lower
    case.

    >>> surface_variants("yes")
    [' yes', 'yes', ' Yes', 'Yes']
    """
    words = dict.fromkeys([answer, answer[:1].upper() + answer[1:], answer.lower()])
    return [prefix + word for word in words for prefix in (" ", "")]


class CandidateTokens:
    """Turns answers into token ids after a given text.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._unknown = tokenizer.unk_token_id
        self._encode = lru_cache(maxsize=200_000)(self._encode_uncached)
        self._continuation = lru_cache(maxsize=200_000)(self._continuation_uncached)

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _continuation_uncached(self, tail: str, addition: str) -> tuple[int, ...]:
        before, after = self._encode(tail), self._encode(tail + addition)
        if after[: len(before)] == before:
            return after[len(before) :]
        # the addition merges with the end of the prompt, which is tokenised already: it then stands alone
        return self._encode(addition)

    def continuation(self, text: str, addition: str) -> tuple[int, ...]:
        """Token ids of `addition` where it follows `text`."""
        return self._continuation(_tail(text), addition)

    def first_tokens(self, text: str, answer: str) -> list[int]:
        """First token of each surface variant, each id once, unknown tokens left out."""
        ids = (self.continuation(text, variant)[:1] for variant in surface_variants(answer))
        return [
            token for token in dict.fromkeys(first[0] for first in ids if first) if token != self._unknown
        ]

    def shared_prefix(self, text: str, answers: Sequence[str]) -> tuple[int, ...]:
        """Tokens with which all answers begin (as written, after a space), fewer than the shortest has."""
        ids = [self.continuation(text, f" {answer}") for answer in dict.fromkeys(answers)]
        if len(ids) < 2:
            return ()
        length = 0
        while all(len(one) > length + 1 for one in ids) and len({one[length] for one in ids}) == 1:
            length += 1
        return ids[0][:length]


def _tail(text: str) -> str:
    """The last word: what can merge with an addition."""
    start = max(text.rfind(" "), text.rfind("\n"), len(text) - 48)
    return text[start + 1 :] if start >= 0 else text


def check_candidates(
    found: Sequence[Sequence[Sequence[int]]],
    answers: Sequence[Sequence[str]],
    columns: Sequence[str],
    ids: Sequence[str],
    *,
    tokenizer: Any = None,
    first_difference: bool = False,
) -> list[list[list[int]]]:
    """Leave out surface variants that different answers share; refuse answers that then have no token.

    The first token of an answer's list is that of the answer as written, after a space. Where another
    answer begins with that one too, leaving it out would score something else than what was asked for.

    Args:
        found: [prompts][columns] token ids.
        answers: [prompts][columns] strings.
        columns: the lens-token columns.
        ids: prompt ids.
        tokenizer: to name tokens in messages.
        first_difference: whether that option is on already.

    Returns:
        [prompts][columns] the token ids that tell the answers of a prompt apart.

    Raises:
        LayerprobeError: with how many prompts and the first of them.
    """
    for row, per_column in enumerate(found):
        for column, tokens in enumerate(per_column):
            if not tokens:
                raise LayerprobeError(
                    f"prompt {ids[row]!r}: no variant of {answers[row][column]!r} ({columns[column]}) begins "
                    f"with a token of this vocabulary: choose another answer string"
                )
    _refuse_equal(answers, columns, ids)
    shared = [_shared(per_column, said) for per_column, said in zip(found, answers, strict=True)]
    rows = [row for row, common in enumerate(shared) if any(one[0] in common for one in found[row])]
    if rows:
        first = rows[0]
        named = ", ".join(
            f"{column}={answer!r}" for column, answer in zip(columns, answers[first], strict=True)
        )
        token = next(one[0] for one in found[first] if one[0] in shared[first])
        shown = token if tokenizer is None else repr(tokenizer.convert_ids_to_tokens(int(token)))
        advice = (
            "choose answers that begin differently (one of them is the beginning of another)"
            if first_difference
            else "pass lens_first_difference=True to capture to score the first token that differs"
        )
        raise LayerprobeError(
            f"{len(rows)} of {len(found)} prompts have lens tokens that begin with the same token, first "
            f"{ids[first]!r} ({named}; both begin with {shown}): {advice}"
        )
    dropped = sum(map(bool, shared))
    if dropped:
        log.info("%d of %d prompts: variants that two answers share were left out", dropped, len(found))
    return [
        [[token for token in tokens if token not in common] for tokens in per_column]
        for per_column, common in zip(found, shared, strict=True)
    ]


def _refuse_equal(answers: Sequence[Sequence[str]], columns: Sequence[str], ids: Sequence[str]) -> None:
    """Two lens columns must differ somewhere; where they do not, an analysis has to leave the prompts out."""
    rows = [row for row, said in enumerate(answers) if len(columns) == 2 and said[0] == said[1]]
    if not rows:
        return
    same = (
        f"{len(rows)} of {len(answers)} prompts have the same {columns[0]!r} and {columns[1]!r}, first "
        f"{ids[rows[0]]!r} ({answers[rows[0]][0]!r})"
    )
    if len(rows) == len(answers):
        raise LayerprobeError(f"{same}: give each prompt two different answers")
    log.info("%s: analyses of their difference have to leave these prompts out", same)


def _shared(per_column: Sequence[Sequence[int]], answers: Sequence[str]) -> set[int]:
    """Tokens with which different answers of a prompt begin."""
    owner: dict[int, str] = {}
    common = set()
    for tokens, answer in zip(per_column, answers, strict=True):
        for token in tokens:
            if owner.setdefault(token, answer) != answer:
                common.add(token)
    return common


def candidate_array(found: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """[prompts, columns, variants] int32, padded with -1."""
    variants = max((len(tokens) for row in found for tokens in row), default=0)
    out = np.full((len(found), len(found[0]) if found else 0, variants), -1, dtype=np.int32)
    for row, per_column in enumerate(found):
        for column, tokens in enumerate(per_column):
            out[row, column, : len(tokens)] = tokens
    return out
