"""What every engine does, so that the rest of the package never asks which one it has."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..architecture.head import Head
from ..errors import LayerprobeError
from ..interventions import Intervention
from ..sites import SiteAt

Select = Callable[[SiteAt, Tensor], Any]
Edits = Mapping[SiteAt, Sequence[Intervention]]


@runtime_checkable
class Engine(Protocol):
    """Runs the blocks, hands out what passes each site, and puts edits in force.

    A value is offered to `select` after the edits at its site. Values are [batch, tokens, *shape] on the
    device of their layer.
    """

    name: str
    model: nn.Module
    head: Head | None

    def available(self, at: SiteAt) -> str | None:
        """None where the engine can give this site of this model; else why it cannot."""
        ...

    def raw_module(self, path: str) -> Callable[[Tensor], Tensor]:
        """A module's own computation, past all hooks."""
        ...

    def editable(self, at: SiteAt) -> str | None:
        """None where an edit at this available site reaches what comes after it; else why it does not."""
        ...

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None,
        sites: Sequence[SiteAt],
        select: Select,
        edits: Edits,
        start: tuple[int, Tensor] | None = None,
    ) -> dict[SiteAt, Any]:
        """Run up to the last of `sites` (no language-model head) and return what `select` kept of each."""
        ...

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None,
        positions: Tensor | None,
        edits: Edits,
        start: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Logits [batch, tokens, vocabulary], or [batch, P, vocabulary] at `positions` [batch, P]."""
        ...

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, edits: Edits, options: Mapping[str, Any]
    ) -> Tensor:
        """Token ids [batch, tokens + new] of prompt and continuation."""
        ...


def library(module: str, *, engine: str, package: str) -> Any:
    """The library behind an engine, imported when it is asked for: a missing or broken one costs no other.

    Raises:
        LayerprobeError: it cannot be imported, and how to install it.
    """
    try:
        return import_module(module)
    except Exception as error:  # a broken installation raises whatever it likes
        lines = str(error).splitlines() or [type(error).__name__]
        raise LayerprobeError(
            f"engine={engine!r} cannot be used ({lines[0]}): pip install --upgrade {package}, or use "
            "engine='huggingface'"
        ) from error


def keep_copy(at: SiteAt, value: Tensor) -> Tensor:
    """The default `select`: a copy, since models go on to change some tensors in place."""
    return value.detach().clone()


def owned(kept: Any, value: Tensor) -> Any:
    """What `select` kept, copied if it still shares memory with the value (a view), which the model may
    overwrite."""
    if isinstance(kept, Tensor) and kept.untyped_storage().data_ptr() == value.untyped_storage().data_ptr():
        return kept.detach().clone(memory_format=torch.contiguous_format)
    return kept
