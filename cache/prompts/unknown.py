"""Text that the tokenizer has no token for: counted while prompts are tokenised, and said once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .table import PromptTable

if TYPE_CHECKING:
    from ...hooks.tokens import Encoding

log = logging.getLogger(__name__)

#: prompts and pieces of text that the warning names
SHOWN = 3


@dataclass
class UnknownTokens:
    """How much of the text became the unknown token, other than where the text spells it."""

    tokenizer: Any
    tokens: int = 0
    """Tokens of text seen, special ones left out."""
    unknown: int = 0
    """Those that are the unknown token."""
    prompts: list[int] = field(default_factory=list)
    """Indices of the prompts that have any."""
    pieces: list[str] = field(default_factory=list)
    """The first pieces of text that were lost."""

    def __post_init__(self) -> None:
        self._id = getattr(self.tokenizer, "unk_token_id", None)
        self._spelt = str(getattr(self.tokenizer, "unk_token", "")).casefold()

    def see(self, index: int, encoding: Encoding) -> None:
        """Count a prompt's tokens."""
        self.tokens += sum(a < b for a, b in encoding.offsets)
        if self._id is None or self._id not in encoding.input_ids:
            return
        lost = [
            encoding.text[start:end]
            for token, (start, end) in zip(encoding.input_ids, encoding.offsets, strict=True)
            if token == self._id and start < end
        ]
        lost = [piece for piece in lost if piece.strip().casefold() != self._spelt]
        if not lost:
            return
        self.unknown += len(lost)
        self.prompts.append(index)
        new = [piece for piece in dict.fromkeys(lost) if piece not in self.pieces]
        self.pieces += new[: SHOWN - len(self.pieces)]

    def warn(self, model: str, table: PromptTable) -> None:
        """Say the share, the first prompts and the first pieces; nothing where nothing was lost."""
        if not self.unknown:
            return
        shown = ", ".join(repr(table.ids[index]) for index in self.prompts[:SHOWN])
        log.warning(
            "%s: %s of %s tokens (%s) in %s of %s prompts are unknown to the tokenizer of %s, which reads %r "
            "there: what they say is lost. First in prompts %s: %s",
            table.name,
            f"{self.unknown:,}",
            f"{self.tokens:,}",
            _percent(self.unknown / self.tokens),
            f"{len(self.prompts):,}",
            f"{len(table):,}",
            model,
            self.tokenizer.unk_token,
            shown,
            ", ".join(repr(piece) for piece in self.pieces),
        )


def _percent(share: float) -> str:
    """A share with as many digits as it takes to be told from 0 and 1.

    >>> _percent(0.5), _percent(0.0004), _percent(1.0)
    ('50 %', '0.04 %', '100 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"
