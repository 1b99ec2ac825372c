"""What exactly was run: hashes of weights, configuration, tokenizer and chat template, and library
versions."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from .remembered import recall, remember

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.safetensors.index.json", "*.bin.index.json")


@dataclass(frozen=True)
class ModelIdentity:
    """Names a model so that two runs can be told apart; `as_dict()` goes into every store.

    Attributes:
        source: folder or hub id it was loaded from.
        revision: the hub commit, or None for a local folder.
        weights_sha256, config_sha256, tokenizer_sha256, chat_template_sha256: contents; None where there is
            none.
        dtype: of the weights as loaded, for example "float32".
        engine: the engine that ran it.
        n_layers, d_model: its size.
        versions: of torch, transformers, layerprobe and the engine's library.
        adapters: which PEFT adapters run, where it has any; part of weights_sha256 too, if they are not those
            it was loaded with.
        hooks: forward hooks of the user's own that were allowed to run; part of weights_sha256 too.
    """

    source: str
    revision: str | None
    weights_sha256: str
    config_sha256: str
    tokenizer_sha256: str | None
    chat_template_sha256: str | None
    dtype: str
    engine: str
    n_layers: int
    d_model: int
    versions: dict[str, str] = field(default_factory=dict)
    adapters: str | None = None
    hooks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON; adapters and hooks only where there are any."""
        found = {**asdict(self), "hooks": list(self.hooks)}
        return {k: v for k, v in found.items() if v or k not in ("adapters", "hooks")}


def weights_sha256(folder: Path) -> str:
    """One hash of all weight files of a folder; each file's own is remembered by path, size and modification
    time."""
    files = sorted({path for pattern in WEIGHT_FILES for path in folder.glob(pattern)})
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}:{file_sha256(path)}\n".encode())
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, computed once for each (path, size, modification time)."""
    real = path.resolve()
    stat = real.stat()
    key = f"{real}:{stat.st_size}:{stat.st_mtime_ns}"
    known = recall("hashes.json", key)
    if isinstance(known, str):
        return known
    with real.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    remember("hashes.json", key, digest)
    return digest


def module_sha256(model: nn.Module) -> str:
    """Hash of a model in memory: names, shapes and bytes of its state."""
    import torch

    total = hashlib.sha256()
    elsewhere = _offloaded(model)
    for name, tensor in sorted(model.state_dict().items()):
        value = torch.as_tensor(elsewhere.get(name, tensor)).detach().cpu().contiguous()
        total.update(f"{name}:{tuple(value.shape)}:{value.dtype}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _offloaded(model: nn.Module) -> dict[str, Any]:
    """Weights that accelerate keeps elsewhere while they rest."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        hook = getattr(module, "_hf_hook", None)
        kept = getattr(hook, "weights_map", None)
        if kept is None:
            continue
        for name, tensor in module.state_dict().items():
            if "." not in name and tensor.is_meta:
                found[f"{path}.{name}" if path else name] = kept[name]
    return found


def text_sha256(text: str | None) -> str | None:
    """SHA-256 of a text; None stays None."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def config_sha256(config: Any) -> str:
    """Hash of a configuration, without what depends on where and by which version it was read."""
    skipped = {
        "_name_or_path",
        "transformers_version",
        "_commit_hash",
        "torch_dtype",
        "dtype",
        "_attn_implementation",
    }
    kept = {key: value for key, value in config.to_dict().items() if key not in skipped}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str | None:
    """Hash of a fast tokenizer's whole definition; None where there is no such tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # padding and truncation are settings of the last call, not part of what the tokenizer is
    definition = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")}
    return hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


def versions(extra: Iterable[str] = ()) -> dict[str, str]:
    """Installed versions of the libraries that numbers depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("torch", "transformers", "layerprobe", *extra):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
