"""The scalar head of a reward model: the direction that a reward is read along."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hooks.errors import LayerprobeError

HEADS = ("score", "classifier", "v_head", "reward_head")
ADVICE = "no scalar head (score, classifier, v_head or reward_head) on this model; pass its weight yourself"


def reward_head(model: Any) -> tuple[NDArray[np.float32], float]:
    """Direction [width] and bias of a reward model's scalar head.

    Args:
        model: an `AutoModelForSequenceClassification` with one output, a layerprobe model of it, or its
            folder. `load_model` on a folder keeps the body alone, since that is what is probed; the head is
            then read from the folder.

    Raises:
        LayerprobeError: no such head, or one with several outputs.
    """
    if isinstance(model, (str, os.PathLike)):
        return _from_folder(Path(model))
    module = getattr(model, "hf", model)
    for name in HEADS:
        head = getattr(module, name, None)
        weight = getattr(head, "weight", None)
        if weight is not None:
            bias = getattr(head, "bias", None)
            return _one_output(
                name, weight.detach().float().cpu().numpy(), 0.0 if bias is None else bias.detach().float()
            )
    source = getattr(model, "source", None)
    if source is not None and Path(source).is_dir():
        return _from_folder(Path(source))
    raise LayerprobeError(ADVICE)


def _from_folder(folder: Path) -> tuple[NDArray[np.float32], float]:
    """The head's tensors alone, from whichever safetensors file has them."""
    from safetensors import safe_open

    found: dict[str, NDArray[np.float32]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            wanted = {f"{name}.{part}" for name in HEADS for part in ("weight", "bias")}
            found |= {key: tensors.get_tensor(key).float().numpy() for key in wanted & set(tensors.keys())}
    for name in HEADS:
        if f"{name}.weight" in found:
            return _one_output(name, found[f"{name}.weight"], found.get(f"{name}.bias", 0.0))
    raise LayerprobeError(f"{folder}: {ADVICE}")


def _one_output(name: str, weight: NDArray[np.float32], bias: Any) -> tuple[NDArray[np.float32], float]:
    if weight.ndim != 2 or weight.shape[0] != 1:
        raise LayerprobeError(
            f"head {name!r} has {weight.shape[0]} outputs; a reward is one number: pass a row of it"
        )
    return weight[0], float(np.ravel(bias)[0])
