"""What a user may hand in instead of a plain module, and faults of transformers that we know of."""

import warnings
from typing import Any

from torch import nn

from .. import identity as ids
from ..errors import LayerprobeError


def unwrapped(source: nn.Module) -> nn.Module:
    """The transformers module inside DataParallel, DistributedDataParallel or `torch.compile`.

    Its weights are the same; it is run by itself, uncompiled, since hooks are not seen by compiled code.

    Raises:
        LayerprobeError: a compiled forward that cannot be taken off, weights on the meta device, or a module
            that is no transformers model.
    """
    while True:
        kind = type(source).__name__
        if kind in ("DataParallel", "DistributedDataParallel"):
            source = source.module  # type: ignore[assignment]
        elif kind == "OptimizedModule":
            source = source._orig_mod  # type: ignore[assignment]
        else:
            break
    if getattr(source, "_compiled_call_impl", None) is not None:
        raise LayerprobeError(
            f"{type(source).__name__} was compiled in place (model.compile()), and hooks are not seen by "
            "compiled code: hand it in before it is compiled"
        )
    if not hasattr(source, "config"):
        raise LayerprobeError(
            f"load_model takes a transformers model, a folder or a hub id, got a {type(source).__name__} "
            "without a config"
        )
    empty = (name for name, p in source.named_parameters() if p.is_meta and not _brought(source, name))
    hollow = next(empty, None)
    if hollow is not None:
        raise LayerprobeError(
            f"{type(source).__name__} has no weights: {hollow} is on the meta device. Load it with "
            "from_pretrained, or give load_model its folder"
        )
    return source


def _brought(model: nn.Module, name: str) -> bool:
    """Whether accelerate brings this weight from elsewhere when its module runs."""
    return hasattr(model.get_submodule(name.rpartition(".")[0]), "_hf_hook")


def warn_of_known_faults(config: Any) -> None:
    """Say what this version of transformers is known to compute wrongly."""
    installed = ids.versions()["transformers"]
    version = tuple(int(part) for part in installed.split(".")[:2] if part.isdigit())
    if getattr(config, "model_type", "") == "olmo3" and (5, 0) <= version <= (5, 12):
        warnings.warn(
            f"transformers {installed} computes OLMo-3's rotary embedding wrongly (5.0 to 5.12 do): its "
            "activations are not those of the trained model; pip install --upgrade transformers",
            stacklevel=3,
        )
