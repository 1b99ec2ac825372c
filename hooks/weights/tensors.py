"""Weights from disk or the hub: complete, of the right shape, finite."""

from typing import Any

import torch
from torch import nn

from ..errors import LayerprobeError
from .sources import advice, auto_class, load_config, reason


def load_weights(
    source: str,
    revision: str | None,
    dtype: Any,
    device: Any,
    device_map: Any,
    quantization: str | None,
    trust_remote_code: bool,
    finite: bool,
) -> nn.Module:
    """Load a model's weights and make sure that they are all there.

    Args:
        source, revision, device_map, quantization, trust_remote_code: as in `load_model`.
        dtype: a torch dtype, or "auto".
        device: where to put the model, unless device_map or quantization places it.
        finite: look for NaN and infinity in the weights.

    Raises:
        LayerprobeError: the model or a part of it cannot be loaded.
    """
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging

    config = load_config(source, revision, trust_remote_code)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    options |= {"dtype": dtype, "output_loading_info": True}
    if device_map is not None:
        options["device_map"] = device_map
    if quantization is not None:
        from .adapters import quantization_config

        options["quantization_config"] = quantization_config(quantization)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        hf, info = auto_class(config).from_pretrained(source, config=config, **options)
    except Exception as error:
        raise LayerprobeError(
            f"cannot load the weights of {source!r}: {reason(error)}. {advice(source)}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    _check_weights(source, hf, info, finite)
    placed = device_map is not None or quantization is not None
    ready: nn.Module = hf.eval() if placed else hf.to(device).eval()
    return ready


def _check_weights(source: str, hf: nn.Module, info: dict[str, Any], finite: bool) -> None:
    # a bare body loads without the head's tensors, and some bodies add a pooler that a language model never
    # had
    missing = [key for key in info.get("missing_keys", ()) if "pooler" not in key]
    if missing:
        raise LayerprobeError(
            f"{source!r} lacks {len(missing)} weights, first {sorted(missing)[0]!r} (transformers would "
            f"fill them with random numbers): "
            "download the model again"
        )
    if info.get("mismatched_keys"):
        raise LayerprobeError(
            f"{source!r}: weight {sorted(info['mismatched_keys'])[0]} does not have the shape config.json "
            f"says"
        )
    if not finite:
        return
    for key, tensor in hf.named_parameters():
        if (
            tensor.device.type != "meta"
            and tensor.is_floating_point()
            and not bool(torch.isfinite(tensor).all())
        ):
            raise LayerprobeError(
                f"{source!r}: weight {key} holds NaN or infinity: the file is damaged, or overflowed in "
                f"this dtype"
            )
