"""When, where and with what a capture was made: recorded, never compared byte for byte."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError

if TYPE_CHECKING:
    from ...hooks.model import Model


#: what differs between two runs of the same command; nothing else in a file's `created` is believed
VOLATILE = ("created", "versions", "engine", "attention", "device", "device_name", "threads", "rendered")


def volatile_provenance(model: Model, rendered: datetime.datetime | None = None) -> dict[str, Any]:
    """What differs between two runs of the same command.

    Args:
        model: the model.
        rendered: the moment that its chat template was told, where it writes the date.
    """
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
        **({} if rendered is None else {"rendered": rendered.isoformat()}),
    }


def rendered_moment(volatile: Mapping[str, Any]) -> datetime.datetime | None:
    """The moment that a capture's chat template was told, in its own local time; in files that do not say,
    when they were made.

    Raises:
        LayerprobeError: what the file says is no time.
    """
    said = volatile.get("rendered", volatile.get("created"))
    if said is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(said)
        return moment.astimezone().replace(tzinfo=None) if moment.tzinfo else moment
    except (TypeError, ValueError, OverflowError, OSError):
        raise LayerprobeError(
            f"the file says {str(said)[:40]!r} where the time of its making belongs: it is damaged, capture "
            f"again to another path"
        ) from None
