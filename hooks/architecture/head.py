"""From the stream after the last block to logits: final norm, optional projection, unembedding, softcap."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .anatomy import Anatomy, text_config


@dataclass(frozen=True, eq=False)
class Head:
    """The last steps of a language model.

    Attributes:
        norm: the final norm, or None.
        after_norm: a projection between norm and unembedding (OPT-350m), or None.
        unembed: the language-model head.
        scale: factor on the logits (Cohere's logit_scale, 1 / Granite's logits_scaling).
        softcap: c in c · tanh(logits / c) (Gemma-2), or None.
    """

    norm: nn.Module | None
    after_norm: nn.Module | None
    unembed: nn.Module
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: nn.Module, anatomy: Anatomy) -> "Head | None":
        """The head of a model, or None where it has no unembedding."""
        if anatomy.unembed is None:
            return None
        config: Any = text_config(model.config)
        scaling = float(getattr(config, "logits_scaling", None) or 1.0)
        scaling = 1.0 / scaling if config.model_type == "hyperclovax" else scaling  # it multiplies by it
        scale = float(getattr(config, "logit_scale", None) or 1.0) / scaling
        return cls(
            norm=model.get_submodule(anatomy.final_norm) if anatomy.final_norm else None,
            after_norm=model.get_submodule(anatomy.after_norm) if anatomy.after_norm else None,
            unembed=model.get_submodule(anatomy.unembed),
            scale=scale * float(getattr(config, "lm_head_multiplier", None) or 1.0),
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def normed(self, resid: Tensor) -> Tensor:
        """Final norm (and projection) of the stream."""
        x = resid if self.norm is None else unhooked(self.norm, resid)
        return x if self.after_norm is None else unhooked(self.after_norm, x)

    def project(self, hidden: Tensor) -> Tensor:
        """Logits of what `normed` returned."""
        logits = unhooked(self.unembed, hidden.to(_device_of(self.unembed, hidden)))
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def __call__(self, resid: Tensor) -> Tensor:
        """Logits of the stream after the last block."""
        return self.project(self.normed(resid))


def unhooked(module: nn.Module, x: Tensor) -> Tensor:
    """A module's own computation. A lens read in the middle of a pass must not set off that pass's hooks:
    neither those of a call, nor what nnsight puts in place of `forward`. Only accelerate's, which brings
    offloaded weights, is
    wanted."""
    out: Tensor = module.forward(x) if hasattr(module, "_hf_hook") else type(module).forward(module, x)
    return out


def _device_of(module: nn.Module, tensor: Tensor) -> torch.device:
    parameter = next(module.parameters(), None)
    # accelerate keeps offloaded weights on meta and brings them when the module is called
    return tensor.device if parameter is None or parameter.device.type == "meta" else parameter.device
