"""The default engine: transformers' own model under plain forward hooks."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..architecture.anatomy import Anatomy, input_device
from ..architecture.head import Head
from ..architecture.points import Point, find_point
from ..errors import LayerprobeError
from ..sites import SiteAt
from .base import Edits, Select
from .taps import Stop, Taps


class HuggingFaceEngine:
    """Runs the body of a transformers model (no language-model head), as it is: sdpa attention stays sdpa,
    weights untouched.

    Args:
        model: the transformers module.
        anatomy: where it keeps its parts.
    """

    name = "huggingface"

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        self.model = model
        self.anatomy = anatomy
        self.head = Head.of(model, anatomy)
        self.body = model.get_submodule(anatomy.body)
        self._accepts = set(inspect.signature(type(self.body).forward).parameters)
        # as they are now: TransformerLens puts others in their place
        paths = {p for parts in anatomy.blocks for p in (parts.o_proj, parts.attn_out) if p}
        self._modules = {path: model.get_submodule(path) for path in paths}
        self._position_shift = _position_shift(self.body)

    def available(self, at: SiteAt) -> str | None:
        """None where this model has the site; else why not."""
        try:
            find_point(self.anatomy, self.model, at)
        except LayerprobeError as error:
            return str(error)
        if at.site == "lens" and self.head is None:
            return f"this model has no {at}: it has no unembedding (language-model head)"
        return None

    def raw_module(self, path: str) -> Callable[[Tensor], Tensor]:
        """A module's own computation: `forward`, which hooks do not see."""
        return self._modules.get(path, self.model.get_submodule(path)).forward

    def editable(self, at: SiteAt) -> str | None:
        """None: every site that can be read can be edited."""
        return None

    @torch.no_grad()
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
        """Run up to the last of `sites` and return what `select` kept of each, in the order asked for."""
        taps = self._taps(sites, select, edits, attention_mask, stop=True)
        self._pass(taps, self._inputs(input_ids, attention_mask, position_ids), start)
        return {at: taps.kept[at] for at in sites}

    @torch.no_grad()
    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor | None,
        positions: Tensor | None,
        edits: Edits,
        start: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """Logits at every token, or only at `positions` [batch, P]: the head then runs on those alone."""
        if self.head is None:
            raise LayerprobeError("this model has no language-model head: it gives activations but no logits")
        taps = self._taps((), None, edits, attention_mask, stop=False)
        out = self._pass(taps, self._inputs(input_ids, attention_mask, position_ids), start)
        hidden: Tensor = out.last_hidden_state
        if positions is not None:
            index = positions.to(hidden.device).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
            hidden = hidden.gather(1, index)
        return self.head.project(hidden)

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, edits: Edits, options: Mapping[str, Any]
    ) -> Tensor:
        """transformers' own `generate`, with the edits in force at every step."""
        generate: Any = getattr(self.model, "generate", None)
        if self.head is None or generate is None:
            raise LayerprobeError("this model has no language-model head: it cannot generate")
        taps = self._taps((), None, edits, attention_mask, stop=False)
        with taps.around(self.body), self._attention_for(taps):
            ids: Tensor = generate(input_ids=input_ids, attention_mask=attention_mask, **options)
        return ids

    def _pass(self, taps: Taps, inputs: dict[str, Any], start: tuple[int, Tensor] | None) -> Any:
        """One pass through the body; what it returns, or None if it was stopped early."""
        if start is not None:
            self._blocks_return_tuples()  # learnt by a pass of its own, which no edit or tap may see
        try:
            with taps.around(self.body), self._attention_for(taps), self._started(start):
                return self.body(**inputs)
        except Stop:
            return None

    def _taps(
        self, sites: Sequence[SiteAt], select: Select | None, edits: Edits, mask: Tensor, *, stop: bool
    ) -> Taps:
        points = {at: self.point(at) for at in dict.fromkeys([*sites, *edits])}
        return Taps(self.model, points, sites, select, edits, attention_mask=mask, stop=stop)

    def point(self, at: SiteAt) -> Point:
        """Where this engine finds a site."""
        return find_point(self.anatomy, self.model, at)

    def _inputs(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor | None
    ) -> dict[str, Any]:
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if position_ids is not None and "position_ids" in self._accepts:
            inputs["position_ids"] = position_ids + self._position_shift
        if "use_cache" in self._accepts:
            inputs["use_cache"] = False
        return inputs

    def _attention_for(self, taps: Taps) -> Any:
        """Eager attention if, and only if, the attention probabilities are read or edited."""
        if any(at.site == "attn_pattern" for at in taps.points):
            return eager_attention(self.model)
        return nullcontext()

    @contextmanager
    def _started(self, start: tuple[int, Tensor] | None) -> Iterator[None]:
        """Blocks before `start[0]` pass their input through, and block `start[0]` gets `start[1]` instead of
        it."""
        if start is None:
            yield
            return
        layer, resid = start
        blocks = [self.model.get_submodule(parts.block) for parts in self.anatomy.blocks]
        returns_tuple = self._blocks_return_tuples()
        changed = blocks[:layer]
        saved = [block.__dict__.get("forward") for block in changed]

        def pass_through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            return (hidden_states, None) if returns_tuple else hidden_states

        def begin(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (resid.to(args[0].device), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": resid.to(kwargs["hidden_states"].device)}

        handle = blocks[layer].register_forward_pre_hook(begin, with_kwargs=True, prepend=True)
        try:
            for block in changed:
                block.__dict__["forward"] = pass_through  # past any __setattr__ of the block's own
            yield
        finally:
            handle.remove()
            for block, forward in zip(changed, saved, strict=True):
                del block.__dict__["forward"]
                if forward is not None:  # accelerate's own wrapper
                    block.__dict__["forward"] = forward

    def _blocks_return_tuples(self) -> bool:
        """Whether a block returns a tuple around its tensor: learnt from one token, once."""
        if not hasattr(self, "_tuples"):
            seen: list[bool] = []
            block = self.model.get_submodule(self.anatomy.blocks[0].block)
            handle = block.register_forward_hook(
                lambda module, args, out: seen.append(isinstance(out, tuple))
            )
            one = torch.zeros((1, 1), dtype=torch.long, device=input_device(self.body))
            try:
                self.body(**self._inputs(one, torch.ones_like(one), None))
            finally:
                handle.remove()
            self._tuples = seen[0]
        return self._tuples


@contextmanager
def eager_attention(model: nn.Module) -> Iterator[None]:
    """Switch a model's attention to eager within the block: the only implementation that forms the
    probabilities."""
    modules: list[Any] = [
        m for m in model.modules() if hasattr(getattr(m, "config", None), "_attn_implementation")
    ]
    configs = {id(module.config): module.config for module in modules}
    before = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]


def _position_shift(body: nn.Module) -> int:
    """RoBERTa, MPNet and their like count positions from padding_idx + 1: their table says so."""
    table = getattr(getattr(body, "embeddings", None), "position_embeddings", None)
    unused = getattr(table, "padding_idx", None)
    return 0 if unused is None else int(unused) + 1
