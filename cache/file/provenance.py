"""When, where and with what a capture was made: recorded, never compared byte for byte."""

from __future__ import annotations

import datetime
import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...hooks.model import Model


#: what differs between two runs of the same command; nothing else in a file's `created` is believed
VOLATILE = ("created", "versions", "engine", "attention", "device", "device_name", "threads")


def volatile_provenance(model: Model) -> dict[str, Any]:
    """What differs between two runs of the same command."""
    import h5py
    import torch

    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            **model.identity.as_dict().get("versions", {}),
            "h5py": h5py.__version__,
            "python": platform.python_version(),
        },
        "engine": model.engine.name,
        "attention": attention,
        "device": str(model.device),
        "device_name": torch.cuda.get_device_name(model.device)
        if model.device.type == "cuda"
        else platform.machine(),
        "threads": torch.get_num_threads(),
    }
