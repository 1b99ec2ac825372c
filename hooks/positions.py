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
