"""Candidate answers as tokens: the first token in context of every surface variant of a string."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..hooks.errors import LayerprobeError


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
) -> None:
    """Refuse answers without a token, and different answers that begin with the same one.

    Args:
        found: [prompts][columns] token ids.
        answers: [prompts][columns] strings.
        columns: the lens-token columns.
        ids: prompt ids.

    Raises:
        LayerprobeError: with how many prompts and the first of them.
    """
    for row, per_column in enumerate(found):
        for column, tokens in enumerate(per_column):
            if not tokens:
                raise LayerprobeError(
                    f"prompt {ids[row]!r}: no variant of {answers[row][column]!r} ({columns[column]}) "
                    f"begins with "
                    f"a token of this vocabulary: choose another answer string"
                )
    clashes = [row for row, per_column in enumerate(found) if _clash(per_column, answers[row])]
    if clashes:
        first = clashes[0]
        named = ", ".join(
            f"{column}={answer!r}" for column, answer in zip(columns, answers[first], strict=True)
        )
        raise LayerprobeError(
            f"{len(clashes)} of {len(found)} prompts have lens tokens that begin with the same token, first "
            f"{ids[first]!r} ({named}): pass lens_first_difference=True to score the first token that differs"
        )


def _clash(per_column: Sequence[Sequence[int]], answers: Sequence[str]) -> bool:
    for a in range(len(per_column)):
        for b in range(a):
            if answers[a] != answers[b] and set(per_column[a]) & set(per_column[b]):
                return True
    return False


def candidate_array(found: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """[prompts, columns, variants] int32, padded with -1."""
    variants = max((len(tokens) for row in found for tokens in row), default=0)
    out = np.full((len(found), len(found[0]) if found else 0, variants), -1, dtype=np.int32)
    for row, per_column in enumerate(found):
        for column, tokens in enumerate(per_column):
            out[row, column, : len(tokens)] = tokens
    return out
