"""Reading the residual stream of any layer as a distribution over tokens: the logit lens, and a tuned one on
top of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .architecture.head import Head
from .errors import LayerprobeError
from .selections import check_layer

CHUNK_ELEMENTS = 1 << 24  # logits held at once (64 MB of float32), whatever the number of rows


@dataclass(frozen=True)
class LensReadout:
    """What a lens says about N rows, without ever holding N x vocabulary.

    Attributes:
        logsumexp: float32 [N], log of the softmax denominator: `logit - logsumexp` is a log-probability.
        top_ids: int64 [N, k], the likeliest tokens, best first.
        top_logits: float32 [N, k].
        candidate_logits: float32 [N, C], NaN where the candidate id is -1.
        candidate_ranks: int64 [N, C], number of tokens with a larger logit (0: the top token), -1 where the
            id is -1.
        kl_to_final: float32 [N], KL(final || lens) in nats, or None where no final distribution was given.
    """

    logsumexp: Tensor
    top_ids: Tensor
    top_logits: Tensor
    candidate_logits: Tensor
    candidate_ranks: Tensor
    kl_to_final: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "LensReadout":
        """The same readout with every tensor changed."""
        fields: dict[str, Any] = {k: None if v is None else change(v) for k, v in vars(self).items()}
        return LensReadout(**fields)


class Lens:
    """The logit lens: final norm and unembedding applied to any layer (nostalgebraist 2020).

    Args:
        head: the model's final norm, unembedding, scale and softcap.
        name: the name results carry.
        device: where to compute.
        n_layers: blocks of the model, so that a layer that is not there is refused; None where unknown.
    """

    def __init__(
        self,
        head: Head,
        *,
        name: str = "logit",
        device: torch.device | str = "cpu",
        n_layers: int | None = None,
    ) -> None:
        self.head = head
        self.name = name
        self.device = torch.device(device)
        self.n_layers = n_layers

    def translate(self, resid: Tensor, layer: int | None) -> Tensor:
        """What is fed to the final norm; the logit lens feeds the stream as it is."""
        return resid

    @torch.no_grad()
    def unembed(self, resid: Tensor, *, layer: int | None = None) -> Tensor:
        """Logits [..., vocabulary] of a stream [..., d_model]: final norm, unembedding, softcap."""
        dtype = next((p.dtype for p in self.head.unembed.parameters()), resid.dtype)
        dtype = dtype if dtype.is_floating_point else resid.dtype
        return self.head(self.translate(resid.to(device=self.device, dtype=dtype), layer))

    @torch.no_grad()
    def read(
        self,
        resid: Tensor,
        *,
        layer: int,
        candidate_ids: Tensor | None = None,
        top_k: int = 5,
        final_log_probs: Tensor | None = None,
    ) -> LensReadout:
        """Read rows of the stream after a block.

        Args:
            resid: [N, d_model], `resid_post` of that layer.
            layer: the block (a tuned lens has a translator for each).
            candidate_ids: int64 [N, C] token ids whose logits are wanted; -1 pads.
            top_k: how many of the likeliest tokens to keep.
            final_log_probs: [N, vocabulary] log-probabilities of the model's output, for the KL; None to
                leave it out.
        """
        if resid.dim() != 2:
            raise LayerprobeError(
                f"lens.read takes rows [N, d_model], got shape {tuple(resid.shape)}: flatten the tokens first"
            )
        if self.n_layers is not None:
            layer = check_layer(layer, self.n_layers, f"lens.read(..., layer={layer})")
        if candidate_ids is None:
            candidate_ids = torch.empty((len(resid), 0), dtype=torch.long)
        rows = max(1, CHUNK_ELEMENTS // self.vocab_size)
        parts = [
            self._read(
                resid[i : i + rows],
                layer,
                candidate_ids[i : i + rows],
                top_k,
                None if final_log_probs is None else final_log_probs[i : i + rows],
            )
            for i in range(0, max(len(resid), 1), rows)
        ]
        kl = None if final_log_probs is None else torch.cat([part["kl_to_final"] for part in parts])
        names = ("logsumexp", "top_ids", "top_logits", "candidate_logits", "candidate_ranks")
        return LensReadout(
            **{name: torch.cat([part[name] for part in parts]) for name in names}, kl_to_final=kl
        )

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        weight: Any = getattr(self.head.unembed, "weight", None)
        return int(getattr(self.head.unembed, "out_features", 0) or weight.shape[0])

    def _read(
        self, resid: Tensor, layer: int, ids: Tensor, k: int, final: Tensor | None
    ) -> dict[str, Tensor]:
        logits = self.unembed(resid, layer=layer).float()
        top = logits.topk(min(k, logits.shape[-1]), dim=-1)
        ids = ids.to(logits.device)
        absent = ids < 0
        picked = logits.gather(1, ids.clamp(min=0))
        # one candidate at a time: rows x candidates x vocabulary would not fit
        ranks = [(logits > picked[:, c : c + 1]).sum(1) for c in range(ids.shape[1])]
        rank = torch.stack(ranks, 1) if ranks else torch.empty_like(ids)
        lse = torch.logsumexp(logits, dim=-1)
        out = {
            "logsumexp": lse,
            "top_ids": top.indices,
            "top_logits": top.values,
            "candidate_logits": picked.masked_fill(absent, float("nan")),
            "candidate_ranks": rank.masked_fill(absent, -1),
        }
        if final is not None:
            log_p = final.to(logits.device).float()
            log_q = logits - lse.unsqueeze(1)
            # p log p is 0 where p underflows
            out["kl_to_final"] = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q)).sum(1)
        return out
