"""Which tokens an edit is for, whatever the padding and however much has been generated."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import LayerprobeError

Positions = int | slice | Sequence[int] | Tensor | None


@dataclass(frozen=True)
class EditContext:
    """Where in the texts the value being edited lies.

    Attributes:
        attention_mask: bool [batch, T], the real tokens of everything seen so far (prompt, then generated
            tokens).
        offset: tokens before the ones at hand (those in the cache, while generating).
        prompt_tokens: width of the prompt; spans and negative positions count within it.
    """

    attention_mask: Tensor
    offset: int = 0
    prompt_tokens: int | None = None

    def chosen(self, positions: Positions, tokens: int, device: torch.device) -> Tensor | None:
        """Bool [batch, tokens]: which tokens the positions name; None for all of them.

        Positions count real tokens of each row, whatever the padding side; negative ones count from the last
        prompt token.
        """
        if positions is None:
            return None
        mask = self.attention_mask.to(device=device, dtype=torch.bool)
        if isinstance(positions, Tensor) and positions.dtype == torch.bool:
            return _padded(positions.to(device), self.offset, tokens)
        width = self.prompt_tokens or mask.shape[1]
        order = mask.long().cumsum(1) - 1  # index of each real token in its own text
        lengths = mask[:, :width].sum(1, keepdim=True)
        named = _named(positions, order, lengths) & mask
        return named[:, self.offset : self.offset + tokens]


def over_continuations(
    positions: Positions, prompt_lengths: Tensor, width: int, *, prompts_only: bool
) -> Tensor:
    """Bool [texts, width]: which tokens of prompts and what was written after them the positions named.

    Args:
        positions: negative ones count from the last token of each prompt.
        prompt_lengths: int64 [texts].
        width: columns, padded on the right.
        prompts_only: leave out the tokens that were written.
    """
    order = torch.arange(width, device=prompt_lengths.device).expand(len(prompt_lengths), -1)
    lengths = prompt_lengths.unsqueeze(1)
    if positions is None:
        named = torch.ones_like(order, dtype=torch.bool)
    elif isinstance(positions, Tensor) and positions.dtype == torch.bool:
        named = _padded(positions.to(order.device), 0, width) & (order < lengths)
    else:
        named = _named(positions, order, lengths)
    return named & (order < lengths) if prompts_only else named


def _padded(chosen: Tensor, offset: int, tokens: int) -> Tensor:
    part = chosen[:, offset : offset + tokens]
    return torch.nn.functional.pad(part, (0, tokens - part.shape[1]))


def _named(positions: Positions, order: Tensor, lengths: Tensor) -> Tensor:
    if isinstance(positions, slice):
        start, stop = positions.start or 0, positions.stop
        if positions.step not in (None, 1):
            raise LayerprobeError(
                f"positions={positions}: a slice with a step is not supported, give a list of positions"
            )
        low = order >= (lengths + start if start < 0 else start)
        return low if stop is None else low & (order < (lengths + stop if stop < 0 else stop))
    if isinstance(positions, Tensor):  # one position per row
        wanted = positions.to(order.device).long().reshape(-1, 1)
        if len(wanted) != len(order):
            raise LayerprobeError(
                f"positions has {len(wanted)} entries for {len(order)} texts: give one position per text"
            )
        return order == torch.where(wanted < 0, lengths + wanted, wanted)
    several = [positions] if isinstance(positions, int) else list(positions or ())
    named = torch.zeros_like(order, dtype=torch.bool)
    for position in several:
        named |= order == (lengths + position if position < 0 else position)
    return named
