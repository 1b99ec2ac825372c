"""Running one batch: token selection and pooling on the device, then rows on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...hooks.sites import SiteAt
from ..file.layout import ArraySpec
from .prepare import Prepared
from .staging import DeviceRows

if TYPE_CHECKING:
    from ...hooks.model import Model

#: logits held at once by the lens (64 MB in float32)
LENS_ELEMENTS = 1 << 24

TORCH_TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
    "int32": torch.int32,
}
LENS_FIELDS = ("candidate_logits", "candidate_ranks", "logsumexp", "top_ids", "top_logits", "kl_to_final")


@dataclass(frozen=True)
class Reads:
    """What is taken from every batch."""

    sites: tuple[SiteAt, ...]
    """Activations to store."""
    lens_layers: tuple[int, ...]
    """Blocks to read through the lens; () for none."""
    top_k: int
    dtype: str
    arrays: tuple[ArraySpec, ...]
    pad_keys: int
    """Key positions that attention patterns are padded to."""

    @property
    def run_sites(self) -> tuple[SiteAt, ...]:
        """Sites that the model is asked for: the lens reads `resid_post`, the last of them for the KL."""
        extra = [SiteAt("resid_post", layer) for layer in self.lens_layers]
        return tuple(dict.fromkeys([*self.sites, *extra]))


@dataclass(frozen=True)
class Batch:
    """A padded batch and the rows wanted from it."""

    prompts: np.ndarray
    input_ids: Tensor
    attention_mask: Tensor
    row_of: Tensor
    """[picked] batch row of each picked token."""
    column_of: Tensor
    """[picked] position of each picked token."""
    segment: Tensor | None
    """[picked] output row of each picked token where rows are means."""
    candidates: Tensor | None
    """[rows, columns x variants]."""
    prompt_lengths: Tensor | None
    """[rows] tokens of each row that the model did not write itself; None where it wrote none."""
    n_tokens: int
    """Real tokens."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device: done once, ahead, or every layer's selection would wait for a copy."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
        return replace(self, **moved)


def make_batch(prepared: Prepared, prompts: np.ndarray) -> Batch:
    """Pad prompts on the right (exact under a causal mask, and positions start at 0) and index the rows
    wanted.
    """
    tokens = [prepared.tokens_of(int(prompt)) for prompt in prompts]
    width = max(len(one) for one in tokens)
    input_ids = np.zeros((len(tokens), width), dtype=np.int64)
    mask = np.zeros((len(tokens), width), dtype=np.int64)
    for row, one in enumerate(tokens):
        input_ids[row, : len(one)] = one
        mask[row, : len(one)] = 1
    picked = [prepared.picked_of(int(prompt)) for prompt in prompts]
    counts = [len(one) for one in picked]
    row_of = torch.from_numpy(np.repeat(np.arange(len(prompts)), counts))
    candidates = None
    if prepared.candidates is not None:
        per_row = prepared.candidates[np.repeat(prompts, prepared.rows_per_prompt[prompts])]
        candidates = torch.from_numpy(per_row.reshape(len(per_row), -1).astype(np.int64))
    return Batch(
        prompts,
        torch.from_numpy(input_ids),
        torch.from_numpy(mask),
        row_of,
        torch.from_numpy(np.concatenate(picked).astype(np.int64)),
        row_of if prepared.rule.pooled else None,
        candidates,
        None if prepared.n_new is None else torch.from_numpy(prepared.prompt_lengths[prompts]),
        sum(map(len, tokens)),
    )


def run_batch(model: Model, reads: Reads, batch: Batch) -> DeviceRows:
    """Run a batch and take its rows, in prompt order, still on the device, in the stored type.

    What `select` returns is gathered, hence a copy: no view keeps the batch's activations alive.
    """
    n_rows = len(batch.prompts)

    def select(site: SiteAt, value: Tensor) -> Tensor:
        picked = value[batch.row_of.to(value.device), batch.column_of.to(value.device)]
        if site.site == "attn_pattern":  # keys that are padding are no zeros of the pattern
            absent = batch.attention_mask[batch.row_of].to(value.device) == 0
            picked = picked.masked_fill(absent.unsqueeze(1), float("nan"))
        if batch.segment is not None:
            picked = _segment_means(picked, batch.segment.to(value.device), n_rows)
        return picked

    with torch.inference_mode():
        kept = model.forward(
            batch.input_ids,
            batch.attention_mask,
            sites=reads.run_sites,
            select=select,
            texts=batch.prompts.tolist() if model.edits else None,
            prompt_lengths=batch.prompt_lengths,
        )
        rows = _site_rows(reads, kept)
        if reads.lens_layers:
            rows |= _lens_rows(model, reads, kept, batch.candidates)
    return rows


def _site_rows(reads: Reads, kept: dict[SiteAt, Tensor]) -> DeviceRows:
    rows: DeviceRows = {}
    for spec in reads.arrays:
        if not spec.key.startswith("activations/"):
            continue
        site = spec.key.removeprefix("activations/")
        rows[spec.key] = {
            index: _padded(kept[SiteAt(site, layer)], spec, reads.pad_keys)
            .to(TORCH_TYPES[reads.dtype])
            .contiguous()
            for index, layer in enumerate(spec.layers or (None,))
        }
    return rows


def _padded(value: Tensor, spec: ArraySpec, width: int) -> Tensor:
    if spec.key.endswith("/attn_pattern"):
        return torch.nn.functional.pad(value, (0, width - value.shape[-1]), value=float("nan"))
    return value


def _segment_means(picked: Tensor, segment: Tensor, n_rows: int) -> Tensor:
    """Means in float32 whatever the model's type: rounded once, to the stored type."""
    total = torch.zeros((n_rows, *picked.shape[1:]), dtype=torch.float32, device=picked.device)
    total.index_add_(0, segment, picked.float())
    count = torch.bincount(segment, minlength=n_rows).reshape(-1, *[1] * (picked.dim() - 1))
    return total / count


def _lens_rows(
    model: Model, reads: Reads, kept: dict[SiteAt, Tensor], candidates: Tensor | None
) -> DeviceRows:
    kind = TORCH_TYPES[str(model.dtype).removeprefix("torch.")]  # pooled rows are float32
    streams = [kept[SiteAt("resid_post", layer)].to(kind) for layer in reads.lens_layers]
    final = reads.lens_layers[-1]
    chunk = max(1, LENS_ELEMENTS // model.vocab_size)
    parts: list[list[dict[str, Any]]] = [[] for _ in streams]
    for start in range(0, len(streams[0]), chunk):
        ids = None if candidates is None else candidates[start : start + chunk].to(streams[0].device)
        logits = model.lens.unembed(streams[-1][start : start + chunk], layer=final).float()
        final_log_probs = torch.log_softmax(logits, dim=-1)
        del logits
        for index, (layer, stream) in enumerate(zip(reads.lens_layers, streams, strict=True)):
            out = model.lens.read(
                stream[start : start + chunk],
                layer=layer,
                candidate_ids=ids,
                top_k=reads.top_k,
                final_log_probs=final_log_probs,
            )
            parts[index].append({name: getattr(out, name) for name in LENS_FIELDS})
    rows: DeviceRows = {}
    for spec in reads.arrays:
        if spec.key.startswith("lens/"):
            name = spec.key.removeprefix("lens/")
            layers = [torch.cat([part[name] for part in layer]) for layer in parts]
            wanted = [reads.lens_layers.index(layer) for layer in spec.layers or ()]
            rows[spec.key] = {
                index: layers[at].to(TORCH_TYPES[spec.dtype]).reshape(len(streams[0]), *spec.shape)
                for index, at in enumerate(wanted)
            }
    return rows


def concatenate(parts: Sequence[DeviceRows]) -> DeviceRows:
    """Rows of the halves of a batch, one after the other."""
    return {
        key: {layer: torch.cat([part[key][layer] for part in parts]) for layer in layers}
        for key, layers in parts[0].items()
    }
