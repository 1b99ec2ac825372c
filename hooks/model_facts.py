"""What a loaded model is: its sizes, its sites and their shapes, its lenses, its identity."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from . import edits as edit_rules
from .architecture.anatomy import Anatomy, input_device, text_config
from .engines.base import Engine
from .errors import LayerprobeError
from .identity import ModelIdentity
from .lenses import Lens
from .selections import parse_sites
from .sites import SITES, SiteAt, Sites, site_info
from .token_inputs import context_length
from .tokens import Encoding, check_tokenizer, encode

# by module: two models around one module share its hooks, hence its lock
_LOCKS: "WeakKeyDictionary[nn.Module, Any]" = WeakKeyDictionary()


class ModelFacts:
    """The part of `Model` that runs nothing."""

    def __init__(
        self,
        hf: nn.Module,
        *,
        engine: Engine,
        anatomy: Anatomy,
        tokenizer: Any,
        name: str,
        source: str,
        identity: Callable[[], ModelIdentity],
        allow_hooks: bool = False,
    ) -> None:
        self.hf = hf
        self.engine = engine
        self.anatomy = anatomy
        self.tokenizer = tokenizer
        self.name = name
        self.source = source
        self._identify = identity
        self.allow_hooks = allow_hooks
        self.lenses: dict[str, Lens] = {}
        self.unavailable: dict[str, str] = {}
        self.lock = _LOCKS.setdefault(hf, RLock())

    @property
    def config(self) -> Any:
        """The transformers configuration, of the text model where the model is a multimodal wrapper."""
        return text_config(self.hf.config)

    @property
    def n_layers(self) -> int:
        """Number of blocks L; layers are 0 to L - 1."""
        return self.anatomy.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.anatomy.d_model

    @property
    def n_heads(self) -> int:
        """Query heads of a layer."""
        return self.anatomy.n_heads

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads of a layer."""
        return self.anatomy.n_kv_heads

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.anatomy.d_head

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding matrix."""
        return int(self.anatomy.names.value(self.config, "vocab_size") or 0)

    @cached_property
    def max_length(self) -> int:
        """Context length in tokens; 2**30 where the architecture sets no limit (ALiBi)."""
        return context_length(self.config, self.anatomy.names)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the residual stream."""
        body = self.hf.get_submodule(self.anatomy.body)
        return next(p.dtype for p in body.parameters() if p.is_floating_point())

    @property
    def device(self) -> torch.device:
        """Where token ids go: the device of the embedding (the first one, where layers are spread over
        several)."""
        return input_device(self.hf.get_submodule(self.anatomy.body))

    @property
    def identity(self) -> ModelIdentity:
        """Hashes and versions that say exactly what this is at this moment: weights changed in place, another
        adapter, or hooks put on by hand give another one."""
        return self._identify()

    def _need(self, what: str) -> None:
        """Refuse what failed the self-check: a site, or "generate"."""
        if what in self.unavailable:
            raise LayerprobeError(
                f"{self.name}, engine {self.engine.name}: {what} is not available, since its self-check "
                f"failed: {self.unavailable[what]}"
            )

    @property
    def lens(self) -> Lens:
        """The logit lens.

        Raises:
            LayerprobeError: the model has no unembedding.
        """
        head = self.engine.head
        if head is None:
            raise LayerprobeError(
                f"{self.name} has no unembedding, hence no lens: load a causal language model"
            )
        self._need("lens")
        return Lens(head, device=self.device, n_layers=self.n_layers)

    def get_lens(self, name: str = "logit") -> Lens:
        """The lens of this name: "logit", or a tuned one that was trained for this model or loaded.

        Raises:
            LayerprobeError: there is none of that name.
        """
        if name == "logit":
            return self.lens
        if name not in self.lenses:
            raise LayerprobeError(
                f"no lens {name!r}: there are {', '.join(['logit', *self.lenses])}; load_tuned_lens adds one"
            )
        return self.lenses[name]

    def __repr__(self) -> str:
        without = f", without {', '.join(self.unavailable)}" if self.unavailable else ""
        return (
            f"Model({self.name!r}: {self.n_layers} layers x {self.d_model}, {self.n_heads} heads, "
            f"{str(self.dtype).removeprefix('torch.')}, {self.device}, engine {self.engine.name}{without})"
        )

    def parse_sites(self, sites: Sequence[str | SiteAt] | str) -> tuple[SiteAt, ...]:
        """Expand a selection such as `["resid_post[-4:]", "embed"]` and check that this model has it all."""
        parsed = parse_sites(sites, self.n_layers)
        self.check_sites(parsed)
        return parsed

    def check_sites(self, sites: Sequence[SiteAt]) -> None:
        """Refuse sites that this model or engine cannot give.

        Raises:
            LayerprobeError: naming the first such site and why.
        """
        for at in sites:
            if at.layer is not None and not 0 <= at.layer < self.n_layers:
                raise LayerprobeError(
                    f"{at} is out of range: {self.name} has layers 0 to {self.n_layers - 1}"
                )
            reason = self.why_not(at)
            if reason is not None:
                raise LayerprobeError(f"{self.name}, engine {self.engine.name}: {reason}")

    def why_not(self, at: SiteAt) -> str | None:
        """None where a site can be read; else why not: it is lacking, or its self-check failed."""
        failed = self.unavailable.get(at.site)
        if failed is not None:
            return f"{at} is not available, since its self-check failed: {failed}"
        return self.engine.available(at)

    @property
    def sites(self) -> Sites:
        """Every site, with the layers that have it or the reason why none has; shows itself as a table."""
        found: dict[str, tuple[int, ...] | str] = {}
        for name, info in SITES.items():
            layers: Sequence[int | None] = range(self.n_layers) if info.layered else (None,)
            reasons = {layer: self.why_not(SiteAt(name, layer)) for layer in layers}
            held = tuple(layer for layer, reason in reasons.items() if reason is None and layer is not None)
            whole = not info.layered and reasons[None] is None
            found[name] = held if held or whole else str(next(iter(reasons.values())))
        return Sites(found)

    def site_shape(self, site: str | SiteAt) -> tuple[int, ...]:
        """Per-token shape of a site: (d_model,), (heads, d_head), (d_ff,); -1 for the keys of an attention
        pattern."""
        name = site.site if isinstance(site, SiteAt) else site
        layer = site.layer if isinstance(site, SiteAt) else None
        site_info(name)
        if name == "attn_pattern":
            return (self.n_heads, -1)
        if name in ("head_out", "q", "k", "v"):
            blocks = self.anatomy.blocks if layer is None else [self.anatomy.blocks[layer]]
            shape = next((parts.shapes[name] for parts in blocks if parts.shapes), None)
            if shape is None:
                raise LayerprobeError(str(self.engine.available(SiteAt(name, layer or 0))))
            return shape
        if name in ("mlp_act", "router_logits"):
            return (edit_rules.inner_width(self.hf, self.anatomy, name, layer),)
        return (self.d_model,)

    def encode(
        self, prompt: Any, *, chat_options: Mapping[str, Any] | None = None, now: datetime | None = None
    ) -> Encoding:
        """Tokenise a text, a list of chat messages, or token ids, see `tokens.encode`."""
        return encode(self.tokenizer, prompt, chat_options, now=now)

    def check_tokenizer(self) -> None:
        """Raise where there is no fast tokenizer."""
        check_tokenizer(self.tokenizer)
