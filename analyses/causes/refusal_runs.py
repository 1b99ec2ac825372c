"""Running a model for its refusals: what it says to prompts, as it is and under an edit of its stream."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...hooks.errors import LayerprobeError
from ...hooks.in_memory import pad
from ...hooks.interventions import add, project_out
from ...hooks.sites import SiteAt

Prompts = Sequence[Any]


def ablate_everywhere(model: Any, vector: Any) -> list[Any]:
    """Edits after which no layer can read or write a direction: the stream's inputs and what is added.

    Args:
        model: a loaded model.
        vector: [d_model] the direction, of any length.

    Returns:
        Interventions for `model.edit`, three per layer.

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["base"])
    >>> edits = ablate_everywhere(model, torch.eye(model.d_model)[0])
    >>> with model.edit(*edits):
    ...     stream = model.run(["the ambrel was late ."], sites=["resid_pre[3]"])["resid_pre[3]"][0]
    >>> float(abs(stream[..., 0]).max()) < 1e-5
    True
    """
    return [
        project_out(site, layer=layer, directions=vector)
        for layer in range(model.n_layers)
        for site in ("resid_pre", "attn_out", "mlp_out")
    ]


def first_tokens(model: Any, strings: Sequence[str]) -> Tensor:
    """Ids of the first token of each string, written with and without a space before it."""
    unknown = model.tokenizer.unk_token_id
    ids = {
        model.tokenizer(prefix + text, add_special_tokens=False)["input_ids"][0]
        for text in strings
        for prefix in ("", " ")
    } - {unknown}
    if not ids:
        raise LayerprobeError(
            f"refusal_tokens={list(strings)}: none of them begins with a token of this vocabulary"
        )
    return torch.tensor(sorted(ids))


def batches(model: Any, prompts: Prompts, size: int) -> Any:
    """(ids, mask) of left-padded prompts."""
    for start in range(0, len(prompts), size):
        yield pad(
            [model.encode(prompt).input_ids for prompt in prompts[start : start + size]],
            side="left",
            device=model.device,
        )


@torch.no_grad()
def stream_means(model: Any, prompts: Prompts, positions: Sequence[int], size: int) -> Tensor:
    """[L, positions, d_model] mean of `resid_pre` at positions from the end, over prompts that reach there.

    Raises:
        LayerprobeError: a position not counted from the end, or one that fewer than two prompts reach.
    """
    if any(position >= 0 for position in positions):
        raise LayerprobeError(f"positions={list(positions)}, expected numbers below 0, counted from the end")
    sites = [SiteAt("resid_pre", layer) for layer in range(model.n_layers)]
    total: Any = 0
    reached = torch.zeros(len(positions), dtype=torch.float64, device=model.device)
    for ids, mask in batches(model, prompts, size):
        columns = torch.tensor([ids.shape[1] + position for position in positions], device=ids.device)
        # a shorter prompt has padding there, which says nothing of it
        real = mask[:, columns.clamp(min=0)].bool() & (columns >= 0)
        where = columns.clamp(min=0)
        got = model.forward(
            ids,
            mask,
            sites=sites,
            select=lambda at, value, where=where, real=real: torch.where(
                real[..., None], value[:, where].double(), 0.0
            ).sum(0),
        )
        total = total + torch.stack([got[site] for site in sites])
        reached += real.sum(0)
    short = [position for position, count in zip(positions, reached.tolist(), strict=True) if count < 2]
    if short:
        raise LayerprobeError(
            f"positions {short} lie before the start of all but {int(reached.min())} of {len(prompts)} "
            "prompts, so there is no mean to take there; give longer prompts, or other positions="
        )
    return total / reached[:, None]


@torch.no_grad()
def last_logits(model: Any, prompts: Prompts, size: int, edits: Sequence[Any] = ()) -> Tensor:
    """[prompts, vocabulary] logits after the last token."""
    parts = []
    with model.edit(*edits):
        for ids, mask in batches(model, prompts, size):
            parts.append(model.logits(ids, mask, positions=torch.full((len(ids),), ids.shape[1] - 1)).float())
    return torch.cat(parts)


def log_odds(logits: Tensor, tokens: Tensor) -> Tensor:
    """[prompts] log of P(a refusal token) / P(any other)."""
    p = (
        torch.log_softmax(logits.double(), dim=-1)[:, tokens.to(logits.device)]
        .exp()
        .sum(-1)
        .clamp(1e-12, 1 - 1e-12)
    )
    return torch.log(p) - torch.log1p(-p)


def evaluate(
    model: Any,
    vector: Tensor,
    layer: int,
    valid: Mapping[str, Prompts],
    plain: Tensor,
    tokens: Tensor,
    size: int,
) -> dict[str, float]:
    """What removing and adding one candidate does on held-out prompts."""
    gone = ablate_everywhere(model, vector.float())
    harmful = last_logits(model, valid["harmful"], size, gone)
    harmless = last_logits(model, valid["harmless"], size, gone)
    added = last_logits(
        model, valid["harmless"], size, [add("resid_pre", layer=layer, vector=vector.float())]
    )
    before, after = torch.log_softmax(plain.double(), -1), torch.log_softmax(harmless.double(), -1)
    return {
        "refusal_ablated": float(log_odds(harmful, tokens).mean()),
        "refusal_added": float(log_odds(added, tokens).mean()),
        "kl_ablated": float((before.exp() * (before - after)).sum(-1).mean()),
    }
