"""What a model is at this moment: its weights as they lie in memory, its adapters, hooks that are not ours.

In-place changes (a training step), another adapter and hooks put on by hand come after a model is loaded;
they are noticed here, whenever its identity is asked for or it runs.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from .errors import LayerprobeError

# Whose hooks and replaced forwards are part of how a model is run, and no change by hand
LIBRARIES = ("transformers", "accelerate", "torch", "peft", "bitsandbytes", "nnsight", "transformer_lens")
SAMPLE = 1024  # values of a tensor that are looked at
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Fingerprint = tuple[tuple[str, int, tuple[int, ...], str, int], ...]


@torch.no_grad()
def fingerprint(model: nn.Module) -> Fingerprint:
    """What tells weights that were changed in place from those that were not, at the cost of a look at each.

    Per tensor: name, PyTorch's version counter (every in-place operation raises it), shape, dtype, and a
    checksum of a sample, since what is done to `parameter.data` passes the counter by.
    """
    named = sorted(_kept(model))
    sums = _checksums([tensor for _, tensor in named])
    return tuple(
        (
            name,
            -1 if tensor.is_inference() else tensor._version,
            tuple(tensor.shape),
            str(tensor.dtype),
            total,
        )
        for (name, tensor), total in zip(named, sums, strict=True)
    )


def _kept(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and the buffers that are saved with them: others are scratch that a pass may change."""
    yield from model.named_parameters()
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}", buffer


def _checksums(tensors: list[Tensor]) -> list[int]:
    """Of the bits of at most SAMPLE values of each; one transfer per device."""
    found: dict[int, int] = {}
    by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
    for i, tensor in enumerate(tensors):
        plain = tensor.detach().data
        if plain.device.type == "meta" or not plain.numel() or plain.itemsize not in BITS:
            continue
        flat = plain.reshape(-1)
        bits = flat[:: max(1, flat.numel() // SAMPLE)][:SAMPLE].contiguous().view(BITS[plain.itemsize]).long()
        weights = torch.arange(1, len(bits) + 1, device=bits.device)
        by_device.setdefault(plain.device, []).append((i, (bits * weights).sum()))
    for several in by_device.values():
        values = torch.stack([value for _, value in several]).tolist()
        found |= {i: value for (i, _), value in zip(several, values, strict=True)}
    return [found.get(i, 0) for i in range(len(tensors))]


def adapters(model: nn.Module) -> str | None:
    """Which PEFT adapters run, and how; None where the model has none.

    >>> adapters(nn.Linear(2, 2)) is None
    True
    """
    states = []
    for name, module in model.named_modules():
        active = getattr(module, "active_adapters", None)
        if not isinstance(active, list) or not hasattr(module, "merged_adapters"):
            continue
        merged = list(getattr(module, "merged_adapters", ()))
        off = bool(getattr(module, "disable_adapters", False))
        states.append((name, "off" if off and not merged else f"active {sorted(active)} merged {merged}"))
    if not states:
        return None
    kinds = sorted({state for _, state in states})
    return kinds[0] if len(kinds) == 1 else "; ".join(f"{name}: {state}" for name, state in states)


def foreign_hooks(model: nn.Module) -> tuple[str, ...]:
    """Forward hooks, and replaced forwards, of nobody who is known to run models; as `module: function`.

    Those of layerprobe, transformers (which leaves some of its own behind after `output_hidden_states=True`),
    accelerate, PEFT and the engines are not foreign.
    """
    found = []
    every = torch_module._global_forward_hooks, torch_module._global_forward_pre_hooks
    found += [
        f"every module: {_called(hook)}" for hooks in every for hook in hooks.values() if _foreign(hook)
    ]
    for path, module in model.named_modules():
        found += [f"{path or 'the model'}: {_called(hook)}" for hook in _hooks(module) if _foreign(hook)]
    return tuple(found)


def _hooks(module: nn.Module) -> Iterator[Any]:
    yield from module._forward_hooks.values()
    yield from module._forward_pre_hooks.values()
    if "forward" in module.__dict__:
        yield module.__dict__["forward"]


def _unwrapped(hook: Any) -> Any:
    while hasattr(hook, "func"):  # functools.partial
        hook = hook.func
    return hook


def _foreign(hook: Any) -> bool:
    hook = _unwrapped(hook)
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.split(".")[0] not in (*LIBRARIES, __name__.split(".")[0])


def _called(hook: Any) -> str:
    hook = _unwrapped(hook)
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return f"{home}.{getattr(hook, '__qualname__', type(hook).__qualname__)}"


def check_ready(model: nn.Module, *, name: str, allow_hooks: bool) -> None:
    """Refuse to run a model whose numbers would not be those of the model that is named.

    Raises:
        LayerprobeError: a module in training mode, or a hook put on by hand that was not allowed.
    """
    training = next((path for path, module in model.named_modules() if module.training), None)
    if training is not None:
        raise LayerprobeError(
            f"{name}: {training or 'the model'} is in training mode (dropout is on): call .eval() on the "
            "model first, model.hf.eval() if it is loaded"
        )
    foreign = () if allow_hooks else foreign_hooks(model)
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise LayerprobeError(
            f"{name} runs a hook that was put on by hand ({foreign[0]}{more}): remove it, say what it does "
            "with model.edit(...), or load_model(..., allow_hooks=True), which records it"
        )
