"""One capture to be run: what is asked, of which model, about which prompts, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ...hooks.generation import own_settings
from ...hooks.tokens import is_token_ids
from ..prompts.cells import Prompt, ids_cell, messages_cell
from ..prompts.table import PromptTable
from ..store.sameness import model_fields
from .request import CaptureRequest, ResolvedRequest, identity_of_request

if TYPE_CHECKING:
    from ...hooks.model import Model


@dataclass(frozen=True)
class CaptureJob:
    """A request with its model, its prompts and its file. Made by `of`, carried through the whole capture."""

    model: Model
    table: PromptTable
    request: ResolvedRequest
    path: Path | None = None
    """The file; None keeps everything in memory."""
    extend: bool = False
    """Whether what a finished file lacks goes to a sibling of it."""
    progress: bool = True
    shard: Mapping[str, Any] | None = None
    """Which part of a larger table this is."""
    now: datetime | None = None
    """The moment that a chat template is told which writes the date; None for the clock's. A file that is
    there already tells it its own."""
    like: Path | None = None
    """A file that holds the same prompts: their tokens must be the same."""

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: PromptTable | Sequence[str],
        request: CaptureRequest,
        *,
        path: str | Path | None = None,
        extend: bool = False,
        progress: bool = True,
        shard: Mapping[str, Any] | None = None,
    ) -> CaptureJob:
        """A job from what a user gives.

        Raises:
            LayerprobeError: what is given is no prompts, or does not fit the model or the prompts.
        """
        table = as_table(prompts)
        target = None if path is None else Path(path).expanduser()
        return cls(model, table, request.resolve(model, table), target, extend, progress, shard)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that must agree for two captures to be the same."""
        fields = {**model_fields(self.model), **identity_of_request(self.request, self.table)}
        if self.request.asked.generate:
            fields["model.generation"] = own_settings(self.model.hf)
        return fields

    @property
    def batch_tokens(self) -> int:
        """Tokens of a batch, padding included."""
        asked = self.request.asked.batch_tokens
        if asked == "auto":
            return 1024 if self.model.device.type == "cpu" else 16384
        return int(asked)


def as_table(prompts: PromptTable | Iterable[Prompt]) -> PromptTable:
    """A prompt table as it is; a list of texts, or of chats, as a bare one.

    Raises:
        LayerprobeError: it is none of these; what looks like a table with columns is not guessed at.
    """
    if isinstance(prompts, PromptTable):
        return prompts
    expected = "expected a PromptTable (read_prompts), or a list of texts, of chats or of token ids"
    if isinstance(prompts, str):
        raise LayerprobeError(f"{expected}, got one text: [{prompts[:40]!r}]")
    if isinstance(prompts, Mapping) or hasattr(prompts, "columns") or not isinstance(prompts, Iterable):
        way = ": read_prompts(frame, text=COLUMN)" if hasattr(prompts, "columns") else ""
        raise LayerprobeError(f"{expected}, got {type(prompts).__name__}{way}")
    given = tuple(prompts)
    if not given:
        raise LayerprobeError(f"{expected}, got no prompts")
    kinds = [_kind(prompt) for prompt in given]
    for row, kind in enumerate(kinds):
        if kind is None:
            way = ": read_prompts(rows, text=COLUMN)" if isinstance(given[row], Mapping) else ""
            raise LayerprobeError(f"{expected}, got {type(given[row]).__name__} at {row}{way}")
        if kind != kinds[0]:
            raise LayerprobeError(f"{expected}, got {kinds[0]} and {kind} in one list, first at {row}")
    read = {"texts": lambda text, _: text, "chats": messages_cell, "token ids": ids_cell}[str(kinds[0])]
    checked = tuple(read(prompt, f"prompt {row}") for row, prompt in enumerate(given))
    return PromptTable(tuple(str(row) for row in range(len(given))), checked, name="texts")


def _kind(prompt: Any) -> str | None:
    """What a prompt of a list is."""
    if isinstance(prompt, str):
        return "texts"
    if is_token_ids(prompt) or (hasattr(prompt, "dtype") and prompt.dtype.kind in "iu"):
        return "token ids"
    return "chats" if isinstance(prompt, list) else None
