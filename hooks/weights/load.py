"""`load_model`: a local folder, a hub id or a model in memory, checked before it runs."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..architecture.names import Names
from ..devices import read_device
from ..errors import LayerprobeError
from ..model import Model
from ..present_state import check_ready
from ..tokens import check_tokenizer
from .assemble import assemble
from .given_module import unwrapped, warn_of_known_faults
from .sources import check_source, load_tokenizer
from .tensors import load_weights

DTYPES = {
    **dict.fromkeys(("float32", "fp32", "float"), torch.float32),
    **dict.fromkeys(("bfloat16", "bf16"), torch.bfloat16),
    **dict.fromkeys(("float16", "fp16", "half"), torch.float16),
    **dict.fromkeys(("float64", "fp64", "double"), torch.float64),
}
ENGINES = ("huggingface", "transformer_lens", "nnsight")


def load_model(
    source: str | os.PathLike[str] | nn.Module,
    *,
    engine: str = "huggingface",
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device = "auto",
    device_map: Any = None,
    quantization: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    merge_adapter: bool = False,
    tokenizer: Any = None,
    trust_remote_code: bool = False,
    check: bool = True,
    name: str | None = None,
    names: Names | None = None,
    allow_hooks: bool = False,
    **engine_options: Any,
) -> Model:
    """Load a model to be read and edited.

    Args:
        source: local folder, hub id, or a transformers model that is already loaded (then pass `tokenizer`).
        engine: "huggingface" (plain hooks, the fast default), "transformer_lens" or "nnsight".
        revision: hub branch, tag or commit.
        dtype: "float32", "bfloat16", "float16", a torch dtype, or None: the checkpoint's, and float32 on CPU.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda:1", ...
        device_map: "auto" or a map of modules to devices, for models larger than one device; overrides
            `device`.
        quantization: "8bit" or "4bit", with bitsandbytes.
        adapter: folder or hub id of a PEFT adapter to put on the model, with peft.
        merge_adapter: merge the adapter into the weights instead of running it beside them.
        tokenizer: a fast tokenizer to use instead of the source's own.
        trust_remote_code: run code that the hub repository brings.
        check: run `model.check()` once for these weights (remembered by their hash) and look for non-finite
            weights.
        name: short name for tables; None takes it from the source.
        names: what the model calls its parts, where layerprobe does not know them, see `Names`.
        allow_hooks: run with forward hooks that were put on the model by hand; they become part of its
            identity, by name. Else every run refuses them.
        **engine_options: passed to the engine (nnsight: remote=True).

    Returns:
        A `Model`: `run` reads sites, `edit` changes what passes them, `capture` takes it.

    Raises:
        LayerprobeError: there is no such model, part of it is missing or not finite, or an option makes no
            sense here.

    >>> from layerprobe.probe.demo import models
    >>> model = load_model(models()["base"], device="cpu")
    >>> model.run("the baker was late", sites="resid_post[-1]", tokens="last")["resid_post[7]"][0].shape
    torch.Size([96])
    """
    if engine not in ENGINES:
        raise LayerprobeError(f"engine={engine!r}: choose one of {', '.join(ENGINES)}")
    if isinstance(source, nn.Module):
        model = _from_module(source, tokenizer, engine, name, engine_options, names, allow_hooks)
    else:
        where = str(source)
        check_source(where)
        target = torch.device("cpu") if device_map is not None else read_device(device, default="auto")
        kind = chosen_dtype(dtype, target)
        hf = load_weights(where, revision, kind, target, device_map, quantization, trust_remote_code, check)
        if adapter is not None:
            from .adapters import with_adapter

            hf = with_adapter(hf, str(adapter), merge=merge_adapter)
        tok = tokenizer if tokenizer is not None else load_tokenizer(where, revision, trust_remote_code)
        extras: dict[str, Any] = {
            "adapter": None if adapter is None else str(adapter),
            "quantization": quantization,
            "names": names,
            "allow_hooks": allow_hooks,
        }
        named = name or Path(where).name
        model = assemble(hf, tok, engine, named, where, revision, engine_options, **extras)
    warn_of_known_faults(model.config)
    if check:
        model.check()
    return model


def _from_module(
    source: nn.Module,
    tokenizer: Any,
    engine: str,
    name: str | None,
    options: dict[str, Any],
    names: Names | None,
    allow_hooks: bool,
) -> Model:
    source = unwrapped(source)
    if tokenizer is None:
        raise LayerprobeError(
            "a model object was given without its tokenizer: pass "
            "tokenizer=AutoTokenizer.from_pretrained(...)"
        )
    check_tokenizer(tokenizer)
    check_ready(source, name=name or type(source).__name__, allow_hooks=allow_hooks)
    where = str(getattr(source.config, "_name_or_path", "") or type(source).__name__)
    named = name or Path(where).name
    given: dict[str, Any] = {"in_memory": True, "names": names, "allow_hooks": allow_hooks}
    return assemble(source, tokenizer, engine, named, where, None, options, **given)


def chosen_dtype(dtype: str | torch.dtype | None, device: Any) -> torch.dtype | str:
    """The type that weights are loaded in, or "auto": the checkpoint's."""
    if dtype is None:
        return torch.float32 if str(device) == "cpu" else "auto"
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        return dtype
    if dtype == "auto":
        return "auto"
    if isinstance(dtype, str) and dtype.removeprefix("torch.") in DTYPES:
        return DTYPES[dtype.removeprefix("torch.")]
    raise LayerprobeError(
        f"dtype={dtype!r}: choose float32, bfloat16, float16, float64 or None (the checkpoint's)"
    )
