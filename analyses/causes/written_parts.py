"""Splitting a logit difference into what each head, MLP and the embedding wrote: direct logit attribution.

The final norm is not linear, but with its scale frozen at the observed value it is; so is a post-norm
(Gemma-2, OLMo-2), which is applied to the summed heads. With those scales frozen the contributions add up to
the logit difference before any softcap (Elhage et al. 2021; the freezing as in TransformerLens's
cache.apply_ln_to_stack).
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from ...hooks.errors import LayerprobeError
from ...hooks.sites import SiteAt
from .answer_task import Batch, best_ids

TOLERANCE = 1e-4


@dataclass(frozen=True)
class FrozenNorm:
    """A norm at given inputs: output = gain ∘ (input, centred or not) + bias, row by row."""

    gain: Tensor
    """[B, d] weight over the observed scale."""
    bias: Tensor
    """[d]."""
    centred: bool
    """LayerNorm subtracts the mean; RMSNorm does not."""

    def pull_back(self, direction: Tensor) -> Tensor:
        """[B, d] the direction before the norm that reads the same as `direction` [B, d] after it."""
        before = direction * self.gain
        return before - before.mean(dim=-1, keepdim=True) if self.centred else before


def freeze_norm(norm: nn.Module | None, observed: Tensor) -> FrozenNorm:
    """Find weight, bias and observed scale of any LayerNorm or RMSNorm from what it does, not from its class.

    Args:
        norm: the module; None is the identity.
        observed: [B, d] its inputs.

    Raises:
        LayerprobeError: the module is not a norm of that kind.
    """
    x = observed.double()
    if norm is None:
        return FrozenNorm(torch.ones_like(x), torch.zeros(x.shape[-1], dtype=x.dtype, device=x.device), False)
    signs = torch.ones(x.shape[-1], dtype=observed.dtype, device=observed.device)
    signs[1::2] = -1
    signs = signs - signs.mean()
    up, down, moved = (norm.forward(v[None])[0].double() for v in (signs, -signs, signs + 0.5))
    bias, weight = (up + down) / 2, (up - down) / 2 / signs.double()
    centred = bool(torch.allclose(moved, up, atol=1e-4, rtol=1e-3))
    inner = x - x.mean(dim=-1, keepdim=True) if centred else x
    out = norm.forward(observed).double() - bias
    shape = weight * inner
    scale = (out * shape).sum(-1, keepdim=True) / (shape * shape).sum(-1, keepdim=True).clamp(min=1e-30)
    if not torch.allclose(scale * shape, out, atol=1e-3 * float(out.detach().abs().max() + 1e-12)):
        raise LayerprobeError(
            f"{type(norm).__name__} is neither a LayerNorm nor an RMSNorm, so its scale cannot be frozen; "
            "use patching, which needs no linearity"
        )
    return FrozenNorm(scale * weight, bias, centred)


def output_projection(model: Any, layer: int) -> tuple[Tensor, Tensor | None]:
    """Weights [heads, d_head, d_model] and bias [d_model] of an attention output projection.

    Raises:
        LayerprobeError: the projection is not a plain linear layer (quantised, for example).
    """
    path = model.anatomy.blocks[layer].o_proj
    module = model.hf.get_submodule(path) if path else None
    weight = getattr(module, "weight", None)
    if weight is None or not weight.is_floating_point() or weight.dim() != 2:
        raise LayerprobeError(
            f"the output projection of layer {layer} ({path}) has no plain weight matrix: load the model "
            "without quantisation to attribute to heads"
        )
    matrix = weight if type(module).__name__ == "Conv1D" else weight.T
    bias = getattr(module, "bias", None)
    heads = rearrange(
        matrix.detach().double(), "(heads d_head) d_model -> heads d_head d_model", heads=model.n_heads
    )
    return heads, None if bias is None else bias.detach().double()


def post_norm(model: Any, layer: int) -> nn.Module | None:
    """The norm between the summed heads and the stream, where an architecture has one."""
    parts = model.anatomy.blocks[layer]
    if parts.attn_out in (parts.attention, parts.o_proj):
        return None
    return model.hf.get_submodule(parts.attn_out)


@dataclass(frozen=True)
class Parts:
    """Contributions to a logit difference in logits; float64."""

    embed: Tensor
    """[B]."""
    heads: Tensor
    """[B, L, H]."""
    attention_bias: Tensor
    """[B, L] bias of the output projection (and of a post-norm)."""
    attention: Tensor
    """[B, L] what the whole attention layer wrote."""
    mlp: Tensor
    """[B, L]."""
    constant: Tensor
    """[B] biases of the final norm and of the unembedding."""
    difference: Tensor
    """[B] the logit difference before any softcap."""


@torch.no_grad()
def attribute(model: Any, batch: Batch) -> Parts:
    """Direct logit attribution of a batch, its sums checked.

    Raises:
        LayerprobeError: a block that is not additive, or sums off by more than 1e-4 (of the largest term).
    """
    if not model.anatomy.additive:
        raise LayerprobeError(
            f"{model.name} does not add its sublayers to one stream (a post-norm encoder?), so logits do not "
            "split into their contributions; use patching instead"
        )
    layers = range(model.n_layers)
    sites = [
        SiteAt("embed", None),
        SiteAt("resid_post", model.n_layers - 1),
        *(SiteAt(site, layer) for site in ("attn_out", "mlp_out", "head_out") for layer in layers),
    ]
    seen = model.forward(
        batch.ids, batch.mask, sites=sites, select=lambda at, value: value[:, -1].detach().clone()
    )
    head, last = model.lens.head, seen[SiteAt("resid_post", model.n_layers - 1)]
    normed = head.normed(last)
    logits = head.unembed.forward(normed)
    ids = [best_ids(logits, candidates) for candidates in (batch.answers, batch.foils)]
    weight = head.unembed.weight.detach().double()
    direction = (weight[ids[0]] - weight[ids[1]]) * head.scale
    constant = torch.zeros(len(last), dtype=torch.float64, device=last.device)
    if getattr(head.unembed, "bias", None) is not None:
        constant = (
            constant + (head.unembed.bias.double()[ids[0]] - head.unembed.bias.double()[ids[1]]) * head.scale
        )
    if head.after_norm is not None:
        if getattr(head.after_norm, "bias", None) is not None:
            constant = constant + direction @ head.after_norm.bias.double()
        direction = direction @ head.after_norm.weight.detach().double()
    final = freeze_norm(head.norm, last)
    constant = constant + direction @ final.bias
    direction = final.pull_back(direction)
    picked = (
        logits.double().gather(1, ids[0][:, None]) - logits.double().gather(1, ids[1][:, None])
    ).squeeze(1) * head.scale
    per_head = [_heads(model, layer, seen[SiteAt("head_out", layer)], direction) for layer in layers]
    parts = Parts(
        embed=(seen[SiteAt("embed", None)].double() * direction).sum(-1),
        heads=torch.stack([part[0] for part in per_head], 1),
        attention_bias=torch.stack([part[1] for part in per_head], 1),
        attention=torch.stack(
            [(seen[SiteAt("attn_out", layer)].double() * direction).sum(-1) for layer in layers], 1
        ),
        mlp=torch.stack(
            [(seen[SiteAt("mlp_out", layer)].double() * direction).sum(-1) for layer in layers], 1
        ),
        constant=constant,
        difference=picked,
    )
    _check_sums(model, parts)
    return parts


def _heads(model: Any, layer: int, z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Contributions [B, H] of the heads of a layer, and [B] of the biases on their way."""
    weight, bias = output_projection(model, layer)
    written = torch.einsum("bhe,hed->bhd", z.double(), weight)
    direction = direction * model.anatomy.blocks[layer].branch_scale  # the stream gets that much of it
    constant = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    norm = post_norm(model, layer)
    if norm is not None:
        total = written.sum(1) + (0 if bias is None else bias)
        frozen = freeze_norm(norm, total.to(z.dtype))
        constant = constant + direction @ frozen.bias
        direction = frozen.pull_back(direction)
    if bias is not None:
        constant = constant + direction @ bias
    return torch.einsum("bhd,bd->bh", written, direction), constant


def _check_sums(model: Any, parts: Parts) -> None:
    terms = torch.cat([parts.heads.flatten(1), parts.mlp, parts.embed[:, None]], 1)
    allowed = TOLERANCE * terms.abs().amax(1).clamp(min=1.0)
    if model.dtype != torch.float32 and model.dtype != torch.float64:
        allowed = allowed * 100  # the model itself rounds its stream to half precision
    heads = (parts.heads.sum(2) + parts.attention_bias - parts.attention).abs().amax(1)
    total = parts.embed + parts.attention.sum(1) + parts.mlp.sum(1) + parts.constant
    for what, gap in (
        ("heads and the attention layer's output", heads),
        ("contributions and the logit difference", (total - parts.difference).abs()),
    ):
        if bool((gap > allowed).any()):
            raise LayerprobeError(
                f"{model.name}: the sums of {what} differ by {float(gap.max()):.2g} logits; this "
                f"architecture "
                "does something between its parts that attribution does not know: use patching"
            )
