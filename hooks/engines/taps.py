"""Plain PyTorch hooks that read and edit sites while a module runs: what the default engine is made of."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..architecture.points import Point, first, with_first
from ..interventions import Intervention
from ..positions import EditContext
from ..sites import SiteAt
from .base import Select, owned

SOFTMAX = (torch.nn.functional.softmax, torch.softmax, torch.Tensor.softmax)
LINEAR = (torch.nn.functional.linear,)


class Stop(Exception):
    """Every site asked for has been read: nothing later needs to run."""


class Taps:
    """Reads `wanted` sites and edits `edits` ones as their modules run; use it as a context around the run.

    Attributes:
        kept: what `select` returned, by site.
    """

    def __init__(
        self,
        root: nn.Module,
        points: Mapping[SiteAt, Point],
        wanted: Sequence[SiteAt],
        select: Select | None,
        edits: Mapping[SiteAt, Sequence[Intervention]],
        *,
        attention_mask: Tensor,
        stop: bool,
    ) -> None:
        self.root = root
        self.points = points
        self.select = select
        self.edits = edits
        self.kept: dict[SiteAt, Any] = {}
        self.stop = stop
        self._wanted = set(wanted)
        self._mask = attention_mask
        self._seen = 0
        self._tokens = (0, 0)
        self._context = EditContext(attention_mask)

    @contextmanager
    def around(self, body: nn.Module, sides: Sequence[str] = ("in", "out", "inside")) -> Iterator[None]:
        """Hooks in place within the block, gone after it, however it ends.

        Args:
            body: the module that sees the token ids.
            sides: the kinds of point to hook here (an engine with hooks of its own takes care of the rest).
        """
        with ExitStack() as stack:
            stack.callback(body.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True).remove)
            for (path, side), sites in self.by_module().items():
                if side not in sides:
                    continue
                module = self.root.get_submodule(path)
                if side == "in":
                    stack.callback(
                        module.register_forward_pre_hook(self._input_hook(sites), with_kwargs=True).remove
                    )
                elif side == "out":
                    stack.callback(module.register_forward_hook(self._output_hook(sites)).remove)
                else:
                    stack.enter_context(self._inside(module, sites))
            yield

    def by_module(self) -> dict[tuple[str, str], list[SiteAt]]:
        """The sites at each side of each module, edited ones first."""
        grouped: dict[tuple[str, str], list[SiteAt]] = defaultdict(list)
        for at in dict.fromkeys([*self.edits, *sorted(self._wanted, key=str)]):
            grouped[self.points[at].path, self.points[at].side].append(at)
        return grouped

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note how many tokens this call brings: one call per pass, one per generated token while
        generating."""
        ids = args[0] if args else kwargs.get("input_ids")
        ids = kwargs["inputs_embeds"] if ids is None else ids
        self._tokens = (ids.shape[0], ids.shape[1])
        grown = self._seen + ids.shape[1] - self._mask.shape[1]
        mask = (
            torch.nn.functional.pad(self._mask, (0, max(grown, 0)), value=1)
            if self._mask.dim() == 2
            else self._mask
        )
        self._context = EditContext(mask, offset=self._seen, prompt_tokens=self._mask.shape[-1])
        self._seen += ids.shape[1]

    def visit(self, at: SiteAt, tensor: Tensor) -> Tensor:
        """Edit one site within its module's tensor, then offer the value to `select`."""
        point = self.points[at]
        for edit in self.edits.get(at, ()):
            value = point.values(tensor, self._tokens)
            edited = edit.apply(value, self._context)
            if edited is not value:
                tensor = point.replaced(tensor, self._tokens, edited)
        if at in self._wanted:
            value = point.values(tensor, self._tokens)
            self.kept[at] = value if self.select is None else owned(self.select(at, value), value)
            self._wanted.discard(at)
        return tensor

    def visit_all(self, sites: Sequence[SiteAt], tensor: Tensor) -> Tensor:
        """`visit` for all the sites that share this tensor."""
        for at in sites:
            tensor = self.visit(at, tensor)
        return tensor

    @property
    def done(self) -> bool:
        """Nothing is left to read, and nothing after it matters."""
        return self.stop and not self._wanted

    def finish(self) -> None:
        """End the pass if nothing is left to read.

        Raises:
            Stop: to be caught around the pass.
        """
        if self.done:
            raise Stop

    def _input_hook(self, sites: Sequence[SiteAt]) -> Callable[..., Any]:
        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            name = (
                None
                if args
                else next(key for key in ("hidden_states", *kwargs) if isinstance(kwargs.get(key), Tensor))
            )
            tensor = args[0] if name is None else kwargs[name]
            new = self.visit_all(sites, tensor)
            self.finish()
            if new is tensor:
                return None
            return ((new, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: new})

        return hook

    def _output_hook(self, sites: Sequence[SiteAt]) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            tensor = first(output)
            new = self.visit_all(sites, tensor)
            self.finish()
            return None if new is tensor else with_first(output, new)

        return hook

    @contextmanager
    def _inside(self, module: nn.Module, sites: Sequence[SiteAt]) -> Iterator[None]:
        """Catch a value that exists only within a module's forward: the attention probabilities, or a
        router's logits."""
        catch = _Catch(
            SOFTMAX if sites[0].site == "attn_pattern" else LINEAR, lambda value: self._caught(sites, value)
        )
        with ExitStack() as stack:
            stack.callback(module.register_forward_pre_hook(catch.arm).remove)
            stack.callback(module.register_forward_hook(catch.disarm, always_call=True).remove)
            stack.enter_context(catch)
            yield

    def _caught(self, sites: Sequence[SiteAt], value: Tensor) -> Tensor:
        value = self.visit_all(sites, value)
        self.finish()
        return value


class _Catch(TorchFunctionMode):
    """Hands the first result of one of `functions` within an armed module to `take`, and uses what it returns
    instead."""

    def __init__(self, functions: tuple[Callable[..., Any], ...], take: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = functions
        self.take = take
        self.armed = False

    def arm(self, *_: object) -> None:
        self.armed = True

    def disarm(self, *_: object) -> None:
        self.armed = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.armed and func in self.functions:
            self.armed = False
            return self.take(result)
        return result
