"""One reading of `device=`, for models, probes, separation and studies alike."""

from typing import TYPE_CHECKING, Union

from .errors import LayerprobeError

if TYPE_CHECKING:
    import torch

KINDS = ("cpu", "cuda", "mps")


def read_device(
    given: Union[str, "torch.device", None], *, default: str = "cpu", name: str = "device"
) -> "torch.device":
    """The torch device meant by `device=`, which is there and can be used.

    Args:
        given: "cpu", "cuda", "cuda:1", "mps", a torch device; "auto" is CUDA, then MPS, then CPU; None is
            `default`.
        default: "cpu" or "auto".
        name: of the argument, for the message.

    Raises:
        LayerprobeError: another word, or a device that this machine does not have.

    >>> read_device("cpu"), read_device(None)
    (device(type='cpu'), device(type='cpu'))
    """
    import torch

    wanted = default if given is None else given
    if isinstance(wanted, str) and wanted.strip() == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    expected = "expected 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"
    if not isinstance(wanted, (str, torch.device)):
        raise LayerprobeError(f"{name}={given!r}: {expected}, not a {type(given).__name__}")
    try:
        found = torch.device(wanted.strip() if isinstance(wanted, str) else wanted)
    except RuntimeError:
        raise LayerprobeError(f"{name}={str(given)!r} is unknown: {expected}") from None
    if found.type not in KINDS:
        raise LayerprobeError(f"{name}={str(given)!r} cannot be used: {expected}")
    reason = _why_absent(found)
    if reason:
        raise LayerprobeError(
            f"{name}={str(given)!r} cannot be used ({reason}): pass 'cpu', or 'auto' for whatever there is"
        )
    return found


def _why_absent(device: "torch.device") -> str:
    import torch

    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            return f"PyTorch sees {count} CUDA devices"
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "PyTorch sees no MPS device"
    if device.type == "cpu" and device.index:
        return "there is one CPU device, 'cpu'"
    return ""
