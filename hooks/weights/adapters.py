"""What stands beside plain weights: PEFT adapters and quantised weights, each with its optional library."""

from pathlib import Path
from typing import Any

from torch import nn

from .. import identity
from ..errors import LayerprobeError
from .sources import folder_of, reason


def with_adapter(model: nn.Module, adapter: str, *, merge: bool) -> nn.Module:
    """Put a PEFT adapter on a model.

    Args:
        model: the base model.
        adapter: folder or hub id of the adapter.
        merge: fold it into the weights (one matrix product per layer, rounded once); else it runs beside
            them, and the sites carry the sum of both either way.

    Returns:
        The transformers model itself, its adapted layers in place, so that its parts are found where they
        always are.

    Raises:
        LayerprobeError: peft is not installed, or the adapter does not fit.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise LayerprobeError("adapter= needs peft: pip install peft") from None
    try:
        adapted: Any = PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # peft raises ValueError, OSError, HTTP errors, ...
        raise LayerprobeError(f"cannot put the adapter {adapter!r} on the model: {reason(error)}") from error
    plain = adapted.merge_and_unload() if merge else adapted.get_base_model()
    result: nn.Module = plain.eval()
    return result


def adapter_sha256(adapter: str) -> str:
    """Hash of an adapter's weights and configuration, part of the model's identity."""
    folder = folder_of(adapter, None, file="adapter_config.json")
    if folder is None:
        return str(identity.text_sha256(adapter))
    files = [folder / "adapter_config.json", *sorted(Path(folder).glob("adapter_model*"))]
    return str(identity.text_sha256("".join(identity.file_sha256(file) for file in files if file.is_file())))


def quantization_config(kind: str) -> Any:
    """transformers' configuration for weights of 8 or 4 bits.

    Args:
        kind: "8bit" or "4bit".

    Raises:
        LayerprobeError: another kind, or bitsandbytes is not installed.
    """
    if kind not in ("8bit", "4bit"):
        raise LayerprobeError(f"quantization={kind!r}: choose '8bit' or '4bit', or None")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise LayerprobeError("quantization= needs bitsandbytes: pip install bitsandbytes") from None
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return config(load_in_8bit=kind == "8bit", load_in_4bit=kind == "4bit")
