"""What a pass takes, checked before it runs."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .architecture.names import PADDED_POSITIONS, Names
from .errors import LayerprobeError

if TYPE_CHECKING:
    from .model import Model


def checked_inputs(
    model: "Model", input_ids: Tensor, mask: Tensor, positions: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Token ids, mask and position ids on the model's device; positions count each row's real tokens unless
    given.

    Raises:
        LayerprobeError: shapes that do not fit, too many tokens, or ids outside the vocabulary.
    """
    ids = torch.as_tensor(input_ids).to(model.device).long()
    mask = torch.as_tensor(mask).to(model.device)
    if ids.dim() != 2 or (mask.dim() == 2 and mask.shape != ids.shape):
        raise LayerprobeError(
            f"input_ids {tuple(ids.shape)} and attention_mask {tuple(mask.shape)} must both be [B, T]"
        )
    if ids.shape[1] > model.max_length:
        raise LayerprobeError(
            f"{ids.shape[1]} tokens are more than the context of {model.name} ({model.max_length}): "
            f"shorten the text"
        )
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= model.vocab_size:
        raise LayerprobeError(
            f"token ids {low}..{high} are outside the vocabulary 0..{model.vocab_size - 1}: wrong tokenizer?"
        )
    if mask.dim() == 2:
        mask = mask.long()
        if positions is None:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
    return ids, mask, None if positions is None else torch.as_tensor(positions).to(model.device).long()


def context_length(config: Any, names: Names) -> int:
    """Tokens that the architecture can take; 2**30 where it sets no limit."""
    value = names.value(config, "max_position_embeddings")
    if value is None or value <= 0:
        return 1 << 30
    # the table of some begins with padding_idx + 1 unused rows
    spare = getattr(config, "model_type", "") in PADDED_POSITIONS
    return value - (int(config.pad_token_id or 0) + 1 if spare else 0)


def pad_id(tokenizer: Any, config: Any) -> int:
    """What to fill finished texts with while generating."""
    for holder in (tokenizer, config):
        for name in ("pad_token_id", "eos_token_id"):
            value = getattr(holder, name, None)
            value = value[0] if isinstance(value, list) else value
            if value is not None:
                return int(value)
    return 0
