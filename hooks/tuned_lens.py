"""The tuned lens: an affine translator per layer in front of the logit lens (Belrose et al. 2023,
2303.08112)."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .architecture.head import Head
from .errors import LayerprobeError
from .in_memory import pad
from .lenses import Lens
from .sites import SiteAt

if TYPE_CHECKING:
    from .model import Model

FORMAT = "layerprobe-tuned-lens-1"


class TunedLens(Lens):
    """Reads layer l as `unembed(h + A_l h + b_l)`; with A and b zero, as untrained, it is the logit lens.

    Args:
        head: the model's final norm and unembedding.
        translators: layer -> (A [d_model, d_model], b [d_model]); the last layer needs none.
        name: the name it goes by.
        device: where to compute.
        weights_sha256: of the model it was trained for.
    """

    def __init__(
        self,
        head: Head,
        translators: dict[int, tuple[Tensor, Tensor]],
        *,
        name: str = "tuned",
        device: torch.device | str = "cpu",
        weights_sha256: str = "",
    ) -> None:
        last = max(translators, default=-1) + 1  # the last layer has none
        super().__init__(head, name=name, device=device, n_layers=last + 1 if translators else None)
        self.translators = translators
        self.weights_sha256 = weights_sha256

    def translate(self, resid: Tensor, layer: int | None) -> Tensor:
        """`h + A h + b` of that layer; h as it is for the last layer, or where no layer is named."""
        if layer is None or layer not in self.translators:
            return resid
        matrix, bias = (t.to(device=resid.device, dtype=torch.float32) for t in self.translators[layer])
        x = resid.float()
        return (x + x @ matrix.T + bias).to(resid.dtype)

    def save(self, path: str | Path) -> None:
        """Write the translators as safetensors, with the model's identity in the header."""
        from safetensors.torch import save_file

        tensors = {}
        for layer, (matrix, bias) in self.translators.items():
            tensors[f"layers.{layer}.weight"] = matrix.detach().cpu().contiguous()
            tensors[f"layers.{layer}.bias"] = bias.detach().cpu().contiguous()
        header = {"format": FORMAT, "name": self.name, "weights_sha256": self.weights_sha256}
        save_file(tensors, str(path), metadata={"layerprobe": json.dumps(header)})


def load_tuned_lens(model: "Model", path: str | Path) -> TunedLens:
    """Read a tuned lens and register it with the model under its name.

    Args:
        model: the model that it was trained for.
        path: what `TunedLens.save` wrote.

    Raises:
        LayerprobeError: no such file, not a tuned lens, or one that was trained for other weights.

    >>> import layerprobe as lp
    >>> from layerprobe.probe.demo import models
    >>> model = lp.load_model(models()["base"], device="cpu")
    >>> lp.load_tuned_lens(model, "nowhere.safetensors")
    Traceback (most recent call last):
    layerprobe.hooks.errors.LayerprobeError: no tuned lens at 'nowhere.safetensors': train one with ...
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise LayerprobeError(f"no tuned lens at {str(path)!r}: train one with train_tuned_lens and save it")
    try:
        with safe_open(str(path), "pt") as file:
            header = json.loads((file.metadata() or {}).get("layerprobe", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise LayerprobeError(f"{str(path)!r} cannot be read as safetensors ({error})") from None
    if header.get("format") != FORMAT:
        raise LayerprobeError(f"{str(path)!r} is not a tuned lens of layerprobe")
    if header["weights_sha256"] != model.identity.weights_sha256:
        raise LayerprobeError(
            f"the tuned lens {str(path)!r} was trained for other weights than {model.name}'s: train it anew"
        )
    layers = {int(key.split(".")[1]) for key in tensors}
    translators = {n: (tensors[f"layers.{n}.weight"], tensors[f"layers.{n}.bias"]) for n in sorted(layers)}
    lens = TunedLens(
        model.lens.head,
        translators,
        name=header["name"],
        device=model.device,
        weights_sha256=header["weights_sha256"],
    )
    model.lenses[lens.name] = lens
    return lens


def train_tuned_lens(
    model: "Model",
    texts: Sequence[Any],
    *,
    name: str = "tuned",
    steps: int = 250,
    tokens_per_step: int = 512,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> TunedLens:
    """Train a translator for every layer but the last, by KL(final || lens), on any texts; registered as
    `model.lenses[name]`.

    Args:
        model: a causal language model; it is not changed.
        texts: texts or chat messages.
        name: what to call the lens.
        steps: optimiser steps (Adam, learning rate falling linearly to 0).
        tokens_per_step: tokens read in each.
        learning_rate: of Adam.
        weight_decay: of Adam; it pulls towards the logit lens.
        seed: of the order of tokens.
        progress: show a bar.

    Raises:
        LayerprobeError: no texts, or a model without a language-model head.

    Source:
        Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned lens"
        (2303.08112).

    >>> import layerprobe as lp
    >>> from layerprobe.probe.demo import models
    >>> model = lp.load_model(models()["base"], device="cpu")
    >>> lens = lp.train_tuned_lens(model, ["the baker was late"] * 4, steps=2, progress=False)
    >>> model.get_lens("tuned") is lens
    True
    """
    from tqdm.auto import trange

    if not texts:
        raise LayerprobeError("no texts to train the tuned lens on: pass a list of texts")
    head = model.lens.head
    streams = _streams(model, texts)
    n_rows, last = len(streams[0]), model.n_layers - 1
    generator = torch.Generator().manual_seed(seed)
    translators = nn.ModuleList(_zero_translator(model) for _ in range(last))
    optimiser = torch.optim.AdamW(translators.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in trange(steps, desc="tuned lens", disable=not progress):
        rows = torch.randint(n_rows, (min(tokens_per_step, n_rows),), generator=generator)
        with torch.no_grad():
            final = head(streams[last][rows].to(model.device, model.dtype)).float().log_softmax(-1)
        for layer, translator in enumerate(translators):
            h = streams[layer][rows].to(model.device)
            logits = head((h + translator(h)).to(model.dtype)).float()
            # one layer at a time: their losses share no parameter
            loss = nn.functional.kl_div(logits.log_softmax(-1), final, reduction="batchmean", log_target=True)
            torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(translators.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    _clear_gradients(head)
    trained = {i: (t.weight.detach(), t.bias.detach()) for i, t in enumerate(_linears(translators))}
    lens = TunedLens(
        head, trained, name=name, device=model.device, weights_sha256=model.identity.weights_sha256
    )
    model.lenses[name] = lens
    return lens


def _streams(model: "Model", texts: Sequence[Any], batch_size: int = 16) -> list[Tensor]:
    """resid_post of every layer at every real token, float32 [tokens, d_model], on the CPU."""
    rows = sorted((model.encode(text).input_ids[: model.max_length] for text in texts), key=len)
    parts: list[list[Tensor]] = [[] for _ in range(model.n_layers)]
    for begin in range(0, len(rows), batch_size):
        ids, mask = pad(rows[begin : begin + batch_size], device=model.device)
        out = model.forward(ids, mask, sites=["resid_post"], select=partial(_real_tokens, mask.bool()))
        for layer in range(model.n_layers):
            parts[layer].append(out[SiteAt("resid_post", layer)])
    return [torch.cat(part) for part in parts]


def _real_tokens(real: Tensor, at: SiteAt, value: Tensor) -> Tensor:
    return value[real.to(value.device)].float().cpu()


def _zero_translator(model: "Model") -> nn.Linear:
    linear = nn.Linear(model.d_model, model.d_model, device=model.device)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _linears(translators: nn.ModuleList) -> list[nn.Linear]:
    return [module for module in translators if isinstance(module, nn.Linear)]


def _clear_gradients(head: Head) -> None:
    """The gradient reaches the translators through the head, whose own weights must be left without one."""
    for module in (head.norm, head.after_norm, head.unembed):
        for parameter in module.parameters() if module is not None else ():
            parameter.grad = None
