"""The scalar head of a reward model: the direction that a reward is read along, where it is read directly."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError

HEADS = ("score", "classifier", "v_head", "reward_head")
ADVICE = (
    "no scalar head (score, classifier, v_head or reward_head) on this model; pass its weight yourself: "
    "reward_decomposition(reward=weight, rewards=the model's own, one per row)"
)
BETWEEN = ("pooler", "pre_classifier", "project_out", "dense", "out_proj", "head")
"""Layers that some models put between their body and the head, by the names they have."""


def reward_head(model: Any) -> tuple[NDArray[np.float32], float]:
    """Direction [width] and bias of a reward model's scalar head.

    The head must read the body's last state itself (`final_norm` of the last token): where a pooler or a
    dense layer lies between, the head's weight scores nothing that is captured.

    Args:
        model: an `AutoModelForSequenceClassification` with one output, a layerprobe model of it, or its
            folder. `load_model` on a folder keeps the body alone, since that is what is probed; the head is
            then read from the folder.

    Raises:
        LayerprobeError: no such head, one with several outputs, or one behind further layers, which are
            named.

    >>> import torch
    >>> class Reward(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.score = torch.nn.Linear(8, 1, bias=False)
    >>> direction, bias = reward_head(Reward())
    >>> direction.shape, bias
    ((8,), 0.0)
    """
    if isinstance(model, (str, os.PathLike)):
        return _from_folder(Path(model))
    module = getattr(model, "hf", model)
    for name in HEADS:
        head = getattr(module, name, None)
        weight = getattr(head, "weight", None)
        if weight is not None:
            _refuse_between(name, (key for key, _ in module.named_parameters()))
            bias = getattr(head, "bias", None)
            return _one_output(
                name, weight.detach().float().cpu().numpy(), 0.0 if bias is None else bias.detach().float()
            )
        if head is not None:
            _refuse_between(name, (key for key, _ in module.named_parameters()))
    source = getattr(model, "source", None)
    if source is not None and Path(source).is_dir():
        return _from_folder(Path(source))
    raise LayerprobeError(ADVICE)


def _from_folder(folder: Path) -> tuple[NDArray[np.float32], float]:
    """The head's tensors alone, from whichever safetensors file has them."""
    from safetensors import safe_open

    found: dict[str, NDArray[np.float32]] = {}
    every: set[str] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            wanted = {f"{name}.{part}" for name in HEADS for part in ("weight", "bias")}
            every |= set(tensors.keys())
            found |= {key: tensors.get_tensor(key).float().numpy() for key in wanted & set(tensors.keys())}
    for name in HEADS:
        if any(key.startswith(f"{name}.") for key in every):
            _refuse_between(name, every)
        if f"{name}.weight" in found:
            return _one_output(name, found[f"{name}.weight"], found.get(f"{name}.bias", 0.0))
    raise LayerprobeError(f"{folder}: {ADVICE}")


def _refuse_between(head: str, parameters: Iterable[str]) -> None:
    """Refuse a head that is not one linear layer on the body's last state.

    Args:
        head: its name.
        parameters: names of all of the model's parameters.
    """
    between: set[str] = set()
    for key in parameters:
        parts = key.split(".")
        if parts[0] == head and parts[1:] not in (["weight"], ["bias"]):
            between.add(".".join(parts[:2]))  # a head of several layers
        elif parts[0] in BETWEEN:
            between.add(parts[0])
        elif len(parts) > 1 and parts[1] in ("pooler", "project_out"):
            between.add(".".join(parts[:2]))
        elif "decoder.project_out" in key:
            between.add(key.rsplit(".", 1)[0])
    if between:
        raise LayerprobeError(
            f"head {head!r} does not read a captured state itself: {', '.join(sorted(between))} "
            f"{'lies' if len(between) == 1 else 'lie'} between, so no direction of a captured site is "
            "the reward's; pass reward_decomposition a direction that is (such as a ridge regression of the "
            "model's rewards on the states) and rewards= to have it checked"
        )


def _one_output(name: str, weight: NDArray[np.float32], bias: Any) -> tuple[NDArray[np.float32], float]:
    if weight.ndim != 2 or weight.shape[0] != 1:
        raise LayerprobeError(
            f"head {name!r} has {weight.shape[0]} outputs; a reward is one number: pass a row of it"
        )
    return weight[0], float(np.ravel(bias)[0])
