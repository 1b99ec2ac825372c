"""TransformerLens 4 as an engine: reads and edits are made at the hook points of its TransformerBridge."""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..architecture.anatomy import Anatomy, input_device
from ..architecture.points import Point, _heads, _pattern, _stream
from ..errors import LayerprobeError
from ..interventions import ablate
from ..sites import SiteAt
from .base import Edits, library
from .huggingface import HuggingFaceEngine
from .taps import Stop, Taps

# The hook point of each site; of several, the first that the architecture has. Only those that were seen to
# carry the very
# tensor are listed (hook_attn_out, say, is after BERT's norm, and BLOOM's attn.hook_out is the stream).
HOOKS: dict[str, tuple[str, ...]] = {
    "embed": ("blocks.0.hook_in",),
    "resid_pre": ("blocks.{l}.hook_in",),
    "resid_mid": ("blocks.{l}.ln2.hook_in",),
    "resid_post": ("blocks.{l}.hook_out",),
    "lens": ("blocks.{l}.hook_out",),
    "attn_out": ("blocks.{l}.ln1_post.hook_out", "blocks.{l}.attn.o.hook_out"),
    "mlp_out": ("blocks.{l}.ln2_post.hook_out", "blocks.{l}.mlp.out.hook_out", "blocks.{l}.mlp.hook_out"),
    "head_out": ("blocks.{l}.attn.o.hook_in",),
    "q": ("blocks.{l}.attn.q.hook_out",),
    "k": ("blocks.{l}.attn.k.hook_out",),
    "v": ("blocks.{l}.attn.v.hook_out",),
    "attn_pattern": ("blocks.{l}.attn.hook_pattern",),
    "mlp_act": ("blocks.{l}.mlp.out.hook_in",),
    "final_norm": ("ln_final.hook_out",),
}
BRIDGE = "bridge:"


class TransformerLensEngine(HuggingFaceEngine):
    """Runs a `TransformerBridge`: attention is always eager, and the module it is given is rebuilt in place.

    Args:
        model: the transformers module.
        anatomy: where it keeps its parts.
        tokenizer: for the bridge's own use.
        copy_first: give the bridge a deep copy, so that a model that belongs to the user is never changed.
    """

    name = "transformer_lens"

    def __init__(self, model: nn.Module, anatomy: Anatomy, tokenizer: Any, *, copy_first: bool) -> None:
        bridge = library(
            "transformer_lens.model_bridge", engine="transformer_lens", package="transformer-lens"
        )
        self._pattern_is_live: bool | None = None  # not asked yet
        own = copy.deepcopy(model) if copy_first else model
        super().__init__(
            own, anatomy
        )  # keeps final norm and unembedding as they are before the bridge wraps them
        parameter = next(p for p in own.parameters() if p.is_floating_point())
        try:
            with warnings.catch_warnings(), _quiet(), _nothing_installed():
                warnings.simplefilter("ignore")
                self.bridge: Any = bridge.TransformerBridge.boot_transformers(
                    str(getattr(own.config, "_name_or_path", "") or "model"),
                    hf_model=own,
                    tokenizer=_with_a_name(tokenizer),
                    dtype=parameter.dtype,
                    device=None if hasattr(own, "hf_device_map") else parameter.device,
                )
                self._try_one_token()
        except LayerprobeError:
            raise
        except Exception as error:  # whatever an adapter trips over
            reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise LayerprobeError(
                f"TransformerLens cannot run {type(model).__name__} ({reason}): use engine='huggingface'"
            ) from error

    def available(self, at: SiteAt) -> str | None:
        """None where the bridge has a hook point that carries this site; else why not."""
        reason = super().available(at)
        if reason is not None:
            return reason
        if self._hook_name(at) is None:
            return (
                f"TransformerLens has no hook point for {at} of this architecture: use engine='huggingface'"
            )
        return None

    def editable(self, at: SiteAt) -> str | None:
        """The attention pattern of some architectures is shown after it was used, where an edit is lost."""
        if at.site != "attn_pattern" or at.layer is None:
            return None
        if self._pattern_is_live is None:
            zero = ablate("attn_pattern", layer=at.layer)
            one = torch.zeros((1, 2), dtype=torch.long, device=input_device(self.body))
            taps = self._taps((), None, {at: [zero]}, torch.ones_like(one), stop=False)
            with warnings.catch_warnings(record=True) as caught, torch.no_grad():
                warnings.simplefilter("always")
                self._pass(taps, self._inputs(one, torch.ones_like(one), None), None)
            self._pattern_is_live = not any("edit is discarded" in str(w.message) for w in caught)
        if self._pattern_is_live:
            return None
        return f"TransformerLens shows {at} of this architecture but cannot edit it: use engine='huggingface'"

    def point(self, at: SiteAt) -> Point:
        """The hook point of a site; its tensor is [batch, tokens, heads, d_head] or flat, whatever the
        adapter does."""
        name = self._hook_name(at)
        if name is None:
            raise LayerprobeError(str(self.available(at)))
        view: Any = _stream
        if at.site == "attn_pattern":
            view = _pattern
        elif at.site in ("head_out", "q", "k", "v"):
            assert at.layer is not None
            view = partial(_maybe_heads, n=self.anatomy.blocks[at.layer].shapes[at.site][0])
        # the block goes on with its own reference to the stream, so an edit between the sublayers is made in
        # place
        shared = at.site == "resid_mid" and name.endswith("hook_in")
        return Point(name, BRIDGE, view, in_place=shared, scale=super().point(at).scale)

    def _hook_name(self, at: SiteAt) -> str | None:
        layer = at.layer if at.layer is not None else 0
        names: tuple[str, ...] = HOOKS.get(at.site, ())
        parts = self.anatomy.blocks[layer]
        if at.site == "resid_mid" and parts.mid_is_output:
            names = ("blocks.{l}.ln1.hook_out",)
        elif at.site == "resid_mid" and parts.mid_norm == parts.mlp:
            names = ("blocks.{l}.mlp.hook_in",)
        known = self.bridge.hook_dict
        return next((name for name in (n.format(l=layer) for n in names) if name in known), None)

    def _pass(self, taps: Taps, inputs: dict[str, Any], start: tuple[int, Tensor] | None) -> Any:
        if start is not None:
            self._blocks_return_tuples()
        try:
            with taps.around(self.body, ()), self._hooks(taps), self._started(start):
                return self.body(**inputs)
        except Stop:
            return None

    @torch.no_grad()
    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, edits: Edits, options: Mapping[str, Any]
    ) -> Tensor:
        """transformers' `generate` on the bridged model, with the edits at its hook points."""
        model: Any = self.model
        if self.head is None:
            raise LayerprobeError("this model has no language-model head: it cannot generate")
        taps = self._taps((), None, edits, attention_mask, stop=False)
        with taps.around(self.body, ()), self._hooks(taps):
            ids: Tensor = model.generate(input_ids=input_ids, attention_mask=attention_mask, **options)
        return ids

    def _hooks(self, taps: Taps) -> Any:
        hooks = [(name, partial(self._visit, taps, sites)) for (name, _), sites in taps.by_module().items()]
        return self.bridge.hooks(fwd_hooks=hooks)

    @staticmethod
    def _visit(taps: Taps, sites: list[SiteAt], tensor: Tensor, hook: Any) -> Tensor | None:
        new = taps.visit_all(sites, tensor)
        taps.finish()
        return None if new is tensor else new

    def _try_one_token(self) -> None:
        device = input_device(self.body)
        one = torch.zeros((1, 2), dtype=torch.long, device=device)
        with torch.no_grad():
            self.body(**self._inputs(one, torch.ones_like(one), None))


def _maybe_heads(tensor: Tensor, tokens: tuple[int, int], *, n: int) -> Tensor:
    return tensor if tensor.dim() == 4 else _heads(tensor, tokens, n=n)


def _with_a_name(tokenizer: Any) -> Any:
    """A copy that the bridge does not try to load again by name; it tokenises nothing for us."""
    own = copy.deepcopy(tokenizer)
    if own is not None:
        own.init_kwargs.setdefault("name_or_path", "")
        own.init_kwargs["add_bos_token"] = True
    return own


@contextmanager
def _nothing_installed() -> Iterator[None]:
    """For a multimodal model TransformerLens runs `pip install torchvision`, which can replace torch itself;
    text needs no image processor, and nobody's environment changes because a model was loaded.
    """
    from transformer_lens.model_bridge.sources.transformers import helpers

    before = getattr(helpers, "_ensure_torchvision", None)
    helpers._ensure_torchvision = lambda: False
    try:
        yield
    finally:
        if before is None:
            del helpers._ensure_torchvision
        else:
            helpers._ensure_torchvision = before


class _quiet:
    """TransformerLens and transformers talk while they build a bridge."""

    def __enter__(self) -> None:
        self._before = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(self._before)
