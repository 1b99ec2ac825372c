"""Token rules: which tokens of a prompt become rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import regex

from ...hooks.errors import LayerprobeError

if TYPE_CHECKING:
    from ...hooks.tokens import Encoding
    from .table import PromptTable

Kind = Literal["one", "all", "content", "special", "span", "regex", "role", "generated"]
Reduction = Literal["last", "first", "mean", "all"]
Regions = Sequence[tuple[int, int]]
"""(start, end) character ranges of the text as the model sees it."""

#: seconds that a pattern may search one prompt
SECONDS = 10.0
_REDUCTIONS = ("last", "first", "mean", "all")
_HELP = (
    "expected last, first, mean, pos:3, all, content, special, span:COLUMN, chars:COLUMN, regex:PATTERN, "
    "role:ROLE or generated, a set followed by :last, :first, :mean or :all if need be"
)


@dataclass(frozen=True)
class TokenRule:
    """A rule as it was written, taken apart.

    >>> parse_rule("span:answer:mean")
    TokenRule(text='span:answer:mean', kind='span', argument='answer', reduction='mean')
    >>> parse_rule("regex:a:b").argument, parse_rule("pos:-2").argument
    ('a:b', '-2')
    """

    text: str
    kind: Kind
    argument: str
    reduction: Reduction

    @property
    def one_row(self) -> bool:
        """Whether every prompt yields one row, and none only where nothing was generated."""
        return self.reduction != "all"

    @property
    def pooled(self) -> bool:
        """Whether a row is the mean of several tokens."""
        return self.reduction == "mean"

    def check_columns(self, table: PromptTable) -> None:
        """Refuse a rule whose span column the table does not have.

        Raises:
            LayerprobeError: with the argument to add.
        """
        if self.kind == "span" and self.argument not in table.spans:
            raise LayerprobeError(
                f"tokens={self.text!r} needs a span column {self.argument!r}: "
                f"read_prompts(..., spans=[{self.argument!r}])"
            )

    @property
    def span(self) -> str | None:
        """The span column that the rule needs."""
        return self.argument if self.kind == "span" else None


def parse_rule(text: str) -> TokenRule:
    """Take a rule apart.

    Raises:
        LayerprobeError: it is none; the message lists what there is.
    """
    if not isinstance(text, str):
        several = (
            ": one rule per store, capture again to another file" if isinstance(text, list | tuple) else ""
        )
        raise LayerprobeError(f"tokens={text!r}: expected a token rule such as 'last'{several}")
    if text in ("last", "first"):
        # `last` is the last token whatever it is; `first` skips BOS and other special tokens
        return TokenRule(text, "all" if text == "last" else "content", "", text)  # type: ignore[arg-type]
    if text == "mean":
        return TokenRule(text, "content", "", "mean")
    head, _, rest = text.partition(":")
    if head == "pos":
        if not re.fullmatch(r"-?\d{1,9}", rest):
            raise LayerprobeError(f"tokens={text!r}: expected a position such as pos:3 or pos:-1")
        return TokenRule(text, "one", rest, "first")
    if head in ("all", "content", "special", "generated"):
        if rest not in ("", *_REDUCTIONS):
            raise LayerprobeError(f"tokens={text!r}: {_HELP}")
        return TokenRule(text, head, "", rest or "all")  # type: ignore[arg-type]
    if head not in ("span", "chars", "regex", "role") or not rest:
        raise LayerprobeError(f"tokens={text!r} is no token rule: {_HELP}")
    argument, _, last = rest.rpartition(":")
    if last not in _REDUCTIONS or not argument:
        argument, last = rest, "all"
    if head == "regex":
        try:
            regex.compile(argument)
        except (regex.error, OverflowError, RecursionError) as error:
            raise LayerprobeError(
                f"tokens={text!r}: {argument!r} is not a regular expression ({error})"
            ) from None
    kind = "span" if head == "chars" else head
    return TokenRule(text, kind, argument, last)  # type: ignore[arg-type]


def select_tokens(
    rule: TokenRule, encoding: Encoding, regions: Mapping[str, Regions], where: str
) -> np.ndarray:
    """Positions of the tokens that a rule picks from one prompt, ascending; several for a mean too, none yet
    of what is generated after it.

    Args:
        rule: the rule.
        encoding: the prompt as tokenised.
        regions: `span:NAME` and `role:NAME` -> character ranges of this prompt.
        where: the prompt, for errors.

    Raises:
        LayerprobeError: a one-row rule finds no token.
    """
    if rule.kind == "generated":
        return np.empty(0, dtype=np.int64)
    picked = _candidates(rule, encoding, regions, where)
    if not len(picked) and rule.one_row:
        raise LayerprobeError(
            f"{where}: tokens={rule.text!r} picks no token of its {len(encoding.input_ids)}: "
            f"leave the prompt out, or choose another rule"
        )
    if rule.reduction == "last":
        return picked[-1:]
    if rule.reduction == "first":
        return picked[:1]
    return picked


def _candidates(
    rule: TokenRule, encoding: Encoding, regions: Mapping[str, Regions], where: str
) -> np.ndarray:
    count = len(encoding.input_ids)
    if rule.kind == "all":
        return np.arange(count)
    if rule.kind == "one":
        position = int(rule.argument)
        inside = -count <= position < count
        return np.array([position % count] if inside else [], dtype=np.int64)
    if rule.kind in ("content", "special"):
        special = np.asarray(encoding.special, dtype=bool)
        return np.flatnonzero(special if rule.kind == "special" else ~special)
    if rule.kind == "regex":
        spans: Regions = _matches(rule, encoding.text, where)
    else:
        spans = regions[f"{rule.kind}:{rule.argument}"]
    if spans and not any(high > low for low, high in encoding.offsets):
        raise LayerprobeError(
            f"{where}: tokens={rule.text!r} needs the place of its tokens in the text, and the tokenizer "
            f"does not give these token ids for it: use pos:N, last or all"
        )
    return tokens_in(encoding, spans)


def _matches(rule: TokenRule, text: str, where: str) -> Regions:
    try:
        return [match.span() for match in regex.finditer(rule.argument, text, timeout=SECONDS)]
    except TimeoutError:
        raise LayerprobeError(
            f"{where}: tokens={rule.text!r} was still searching after {SECONDS:g} seconds: the pattern tries "
            f"too many ways to match, as (a+)+ does; write it without repeats within repeats"
        ) from None


def tokens_in(encoding: Encoding, spans: Regions) -> np.ndarray:
    """Positions of tokens that share a character with one of the ranges."""
    if not spans:
        return np.empty(0, dtype=np.int64)
    starts, ends = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
    hit = np.zeros(len(starts), dtype=bool)
    for low, high in spans:
        hit |= (starts < high) & (ends > low) & (ends > starts)
    return np.flatnonzero(hit)
