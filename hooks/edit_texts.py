"""Interventions whose values or positions differ from text to text: which text gets what.

Text i of an edit is the i-th that the caller gave, however the texts are then batched, ordered and padded.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import interventions
from .errors import LayerprobeError
from .interventions import HEADED, Intervention
from .positions import over_continuations

BUILDERS: dict[str, Callable[..., Intervention]] = {
    name: getattr(interventions, name) for name in ("add", "ablate", "project_out", "patch")
}


def n_texts(edit: Intervention) -> int | None:
    """The number of texts that an edit was made for; None where every text gets the same.

    Raises:
        LayerprobeError: its values are for one number of texts and its positions for another.
    """
    counts = {}
    values, positions = _values(edit), edit.positions
    if values is not None and values.dim() > _token_dims(edit) and len(values) > 1:
        counts["values"] = len(values)
    if isinstance(positions, Tensor) and (positions.dtype != torch.bool or len(positions) > 1):
        counts["positions"] = positions.numel() if positions.dtype != torch.bool else len(positions)
    if len(set(counts.values())) > 1:
        raise LayerprobeError(
            f"{edit.kind} at {edit.site}: values are for {counts['values']} texts, positions for "
            f"{counts['positions']}: give both in the order of the texts"
        )
    return next(iter(counts.values()), None)


def n_tokens(edit: Intervention) -> int | None:
    """Tokens that its values are given for, counted from the start of each text; None where they are not per
    token."""
    values = _values(edit)
    per_token = values is not None and values.dim() == _token_dims(edit) + 2 and values.shape[1] > 1
    return int(values.shape[1]) if values is not None and per_token else None


def of_texts(edit: Intervention, texts: Sequence[int]) -> Intervention:
    """The edit for some of its texts, in this order."""
    if n_texts(edit) is None:
        return edit
    rows = torch.as_tensor(texts, dtype=torch.long)
    new = {}
    values = _values(edit)
    if values is not None and values.dim() > _token_dims(edit) and len(values) > 1:
        new["values"] = values[rows.to(values.device)]
    if isinstance(edit.positions, Tensor):
        single = edit.positions.dtype == torch.bool and len(edit.positions) == 1
        flat = edit.positions if edit.positions.dtype == torch.bool else edit.positions.reshape(-1)
        new["positions"] = flat if single else flat[rows.to(flat.device)]
    return _rebuilt(edit, new)


def left_padded(edit: Intervention, lengths: Tensor) -> Intervention:
    """The edit, given token by token from the start of each text, for a batch that is padded on the left.

    Args:
        edit: with values [texts or 1, tokens, *shape] or positions bool [texts or 1, tokens], or neither.
        lengths: [texts] tokens of each text.
    """
    width = int(lengths.max())
    new = {}
    values = _values(edit)
    if values is not None and n_tokens(edit) is not None:
        new["values"] = _shifted(values, lengths, width)
    if isinstance(edit.positions, Tensor) and edit.positions.dtype == torch.bool:
        new["positions"] = _shifted(edit.positions, lengths, width)
    return _rebuilt(edit, new) if new else edit


def as_written(edit: Intervention, prompt_lengths: Tensor, width: int) -> Intervention:
    """The edit over prompts and what the model wrote after them, in force where it was while it wrote.

    Args:
        edit: positions count in the prompts; values given token by token are for their tokens alone.
        prompt_lengths: [texts] tokens of each prompt.
        width: columns of the batch, padded on the right.
    """
    values, per_token = _values(edit), n_tokens(edit) is not None
    new: dict[str, Any] = {}
    if edit.positions is not None or per_token:
        new["positions"] = over_continuations(edit.positions, prompt_lengths, width, prompts_only=per_token)
    if values is not None and per_token:
        columns = torch.arange(width, device=values.device).clamp(max=values.shape[1] - 1)
        new["values"] = values[:, columns]
    return _rebuilt(edit, new) if new else edit


def check_while_writing(edits: Sequence[Intervention]) -> None:
    """Refuse edits in force that have no meaning while a text grows.

    Raises:
        LayerprobeError: values for single keys of an attention pattern.
    """
    for edit in edits:
        tensors = (value for value in edit.given.values() if isinstance(value, Tensor))
        numbers = (value for value in tensors if value.is_floating_point())
        if edit.site == "attn_pattern" and any(one.dim() and one.shape[-1] > 1 for one in numbers):
            raise LayerprobeError(
                f"{edit.kind} at {edit.site} is in force with values for single keys, and there are more "
                f"keys with every token that is written: edit head_out instead, or capture without generate="
            )


def check_texts(edits: Sequence[Intervention], lengths: Sequence[int] | np.ndarray, what: str) -> None:
    """Refuse edits made for another number of texts, or for fewer tokens than a text has.

    Args:
        edits: those in force.
        lengths: tokens of each text.
        what: the word for what is run: "prompts".

    Raises:
        LayerprobeError: with both numbers.
    """
    for edit in edits:
        made_for, tokens = n_texts(edit), n_tokens(edit)
        if made_for not in (None, len(lengths)):
            raise LayerprobeError(
                f"{edit.kind} at {edit.site} is in force with values or positions for {made_for} texts, and "
                f"there are {len(lengths)} {what}: give one for each, in the same order"
            )
        longest = int(np.max(lengths, initial=0))
        if tokens is not None and longest > tokens:
            raise LayerprobeError(
                f"{edit.kind} at {edit.site} is in force with values for {tokens} tokens, and the longest of "
                f"the {what} has {longest}: give values [texts, tokens, ...] up to its last token"
            )


def describe(edit: Intervention) -> dict[str, Any]:
    """What an edit is, in plain values: equal for equal edits in any process; tensors by their hash."""
    given = {name: _plain(value) for name, value in edit.given.items() if value is not None}
    return {"kind": edit.kind, "site": edit.site, "layer": edit.layer, **given}


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        digest = hashlib.sha256(data.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
        kind = str(value.dtype).removeprefix("torch.")
        return {"shape": list(value.shape), "dtype": kind, "sha256": digest}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, str | int | float):
        return value
    return [int(one) for one in value]


def _values(edit: Intervention) -> Tensor | None:
    """Values that may be per text (a mean never is)."""
    return edit.given.get("values") if edit.given.get("how") != "mean" else None


def _token_dims(edit: Intervention) -> int:
    return 2 if edit.site in HEADED else 1


def _rebuilt(edit: Intervention, new: dict[str, Any]) -> Intervention:
    return BUILDERS[edit.kind](edit.site, layer=edit.layer, **{**edit.given, **new})


def _shifted(values: Tensor, lengths: Tensor, width: int) -> Tensor:
    """[texts, width, ...]: token t of text i at column width - lengths[i] + t."""
    lengths = lengths.to(values.device)
    token = torch.arange(width, device=values.device) - (width - lengths[:, None])
    rows = torch.arange(len(lengths), device=values.device) if len(values) > 1 else torch.zeros_like(lengths)
    placed = values[rows[:, None], token.clamp(min=0, max=values.shape[1] - 1)]
    if values.dtype == torch.bool:
        placed = placed & (token >= 0) & (token < values.shape[1])
    return placed
