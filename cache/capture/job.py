"""One capture to be run: what is asked, of which model, about which prompts, and where it goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ..prompts.cells import Prompt, messages_cell
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
        return {**model_fields(self.model), **identity_of_request(self.request, self.table)}


def as_table(prompts: PromptTable | Iterable[Prompt]) -> PromptTable:
    """A prompt table as it is; a list of texts, or of chats, as a bare one.

    Raises:
        LayerprobeError: it is none of these; what looks like a table with columns is not guessed at.
    """
    if isinstance(prompts, PromptTable):
        return prompts
    expected = "expected a PromptTable (read_prompts), or a list of texts or of chats"
    if isinstance(prompts, str):
        raise LayerprobeError(f"{expected}, got one text: [{prompts[:40]!r}]")
    if isinstance(prompts, Mapping) or hasattr(prompts, "columns") or not isinstance(prompts, Iterable):
        way = ": PromptTable.from_frame(frame, text=COLUMN)" if hasattr(prompts, "columns") else ""
        raise LayerprobeError(f"{expected}, got {type(prompts).__name__}{way}")
    given = tuple(prompts)
    for row, prompt in enumerate(given):
        if not isinstance(prompt, (str, list)):
            raise LayerprobeError(f"{expected}, got {type(prompt).__name__} at {row}")
        if isinstance(prompt, str) != isinstance(given[0], str):
            raise LayerprobeError(f"{expected}, got texts and chats in one list, first at {row}")
    if not given:
        raise LayerprobeError(f"{expected}, got no prompts")
    checked = tuple(p if isinstance(p, str) else messages_cell(p, f"prompt {i}") for i, p in enumerate(given))
    return PromptTable(tuple(str(row) for row in range(len(given))), checked, name="texts")
