"""nnsight as an engine: reads and edits are made inside its traces."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..architecture.anatomy import Anatomy, input_device
from ..architecture.points import first, with_first
from ..errors import LayerprobeError
from ..sites import SiteAt
from .base import Edits, library
from .huggingface import HuggingFaceEngine
from .taps import Stop, Taps

Steps = list[tuple[str, str, list[SiteAt]]]


class NNsightEngine(HuggingFaceEngine):
    """Runs the model in nnsight traces (0.8): `.output` and `.input` of envoys, in the order their modules
    run.

    Args:
        model: the transformers module; nnsight wraps it and leaves it as it is.
        anatomy: where it keeps its parts.
        tokenizer: for nnsight's own use.
        options: `remote=True` (or False) is handed on to nnsight's `trace`, to run on NDIF.
    """

    name = "nnsight"

    def __init__(
        self, model: nn.Module, anatomy: Anatomy, tokenizer: Any, options: Mapping[str, Any]
    ) -> None:
        super().__init__(model, anatomy)
        unknown = set(options) - {"remote"}
        if unknown:
            raise LayerprobeError(
                f"load_model has no option {sorted(unknown)[0]!r} for engine 'nnsight', only remote="
            )
        nnsight = library("nnsight", engine="nnsight", package="nnsight")
        # without a head there is no task nnsight could infer, and nothing to generate
        self.wrapped: Any = (
            nnsight.NNsight(model)
            if self.head is None or not hasattr(model, "generate")
            else nnsight.TransformersModel(model, tokenizer=tokenizer)
        )
        # by module, since a child called `output` (BERT) would be mistaken for a value when looked up by name
        self._by_module = {id(envoy._module): envoy for envoy in self.wrapped.modules()}
        self._trace_options = dict(options)
        self._order: dict[tuple[str, str], int] = {}

    def _pass(self, taps: Taps, inputs: dict[str, Any], start: tuple[int, Tensor] | None) -> Any:
        steps, envoys = self._steps(taps), self._envoys
        if not steps and start is None:  # nothing for nnsight to read: only values within a module's forward
            return super()._pass(taps, inputs, start)
        body = envoys(self.anatomy.body)
        blocks = [envoys(parts.block) for parts in self.anatomy.blocks]
        engine, stop = self, taps.stop
        tuples = start is not None and self._blocks_return_tuples()
        with taps.around(self.body, ("inside",)), self._attention_for(taps):
            try:
                with body.trace(**inputs, **self._trace_options) as tracer:
                    engine._skip_to(blocks, start, tuples)
                    engine._walk(taps, steps)
                    if taps.done:
                        tracer.stop()
                    elif not stop:
                        result = body.output.save()
            except Stop:
                return None
        return None if stop else result

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, edits: Edits, options: Mapping[str, Any]
    ) -> Tensor:
        """nnsight's traced `generate`, the edits made anew at every step."""
        if self.head is None or not hasattr(self.wrapped, "generate"):
            raise LayerprobeError("this model has no language-model head: it cannot generate")
        taps = self._taps((), None, edits, attention_mask, stop=False)
        steps, engine = self._steps(taps), self
        model: Any = self.model
        made: dict[str, Tensor] = {}

        def write(**given: Any) -> None:
            # kept here: what follows an open-ended `iter` in a trace is never reached
            made["ids"] = model.generate(**given, **options)

        with taps.around(self.body, ("inside",)), self._attention_for(taps), warnings.catch_warnings():
            # a text that ends early leaves the remaining steps unvisited, as it should
            warnings.simplefilter("ignore")
            if not steps:
                write(input_ids=input_ids, attention_mask=attention_mask)
            else:
                with self.wrapped.trace(
                    input_ids=input_ids, attention_mask=attention_mask, fn=write, **self._trace_options
                ) as tracer:
                    for _ in tracer.iter[:]:
                        engine._walk(taps, steps)
        return made["ids"]

    def _walk(self, taps: Taps, steps: Steps) -> None:
        """Inside a trace: visit every point in the order the modules run."""
        for path, side, sites in steps:
            envoy = self._envoys(path)
            if side == "in":
                tensor = envoy.input
                new = taps.visit_all(sites, tensor)
                if new is not tensor:
                    envoy.input = new
            else:
                value = envoy.output
                tensor = first(value)
                new = taps.visit_all(sites, tensor)
                if new is not tensor:
                    envoy.output = with_first(value, new)

    def _skip_to(self, blocks: Sequence[Any], start: tuple[int, Tensor] | None, tuples: bool) -> None:
        """Inside a trace: begin at block `start[0]` with the stream `start[1]`."""
        if start is None:
            return
        layer, resid = start
        value = (resid, None) if tuples else resid
        for block in blocks[:layer]:
            block.skip(value)
        if layer == 0:
            blocks[0].input = resid

    def _envoys(self, path: str) -> Any:
        return self._by_module[id(self.model.get_submodule(path))]

    def _steps(self, taps: Taps) -> Steps:
        grouped = {key: sites for key, sites in taps.by_module().items() if key[1] != "inside"}
        order = self._module_order() if len(grouped) > 1 else {}
        return [
            (path, side, grouped[path, side])
            for path, side in sorted(grouped, key=lambda key: order.get(key, 0))
        ]

    def _module_order(self) -> dict[tuple[str, str], int]:
        """When each module's input and output come up in a pass (nnsight refuses another order): learnt from
        one token."""
        if self._order:
            return self._order
        events: list[tuple[str, str]] = []
        handles = []
        for path, module in self.body.named_modules():
            full = ".".join(part for part in (self.anatomy.body, path) if part)
            handles.append(module.register_forward_pre_hook(lambda m, a, f=full: events.append((f, "in"))))
            handles.append(module.register_forward_hook(lambda m, a, o, f=full: events.append((f, "out"))))
        one = torch.zeros((1, 1), dtype=torch.long, device=input_device(self.body))
        try:
            with torch.no_grad():
                self.body(**self._inputs(one, torch.ones_like(one), None))
        finally:
            for handle in handles:
                handle.remove()
        self._order = {event: i for i, event in enumerate(dict.fromkeys(events))}
        return self._order
