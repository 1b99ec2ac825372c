"""A model without its weights: enough to check sites, prompts and identity before any long work."""

from pathlib import Path
from typing import Any

from ..architecture.names import Names
from ..devices import read_device
from ..model import Model
from .assemble import assemble
from .load import chosen_dtype
from .sources import auto_class, load_config, load_tokenizer


def outline_model(
    source: str,
    *,
    revision: str | None = None,
    dtype: Any = None,
    device: Any = "auto",
    trust_remote_code: bool = False,
    name: str | None = None,
    names: Names | None = None,
) -> Model:
    """The model on torch's meta device: configuration, tokenizer, anatomy, sites and identity, but it cannot
    run.

    Args:
        source: local folder or hub id.
        revision, dtype, trust_remote_code, name, names: as in `load_model`.
        device: where the model would go, which decides its dtype where none is given.

    Raises:
        LayerprobeError: there is no such model, or it has no tokenizer.
    """
    import torch

    config = load_config(source, revision, trust_remote_code)
    tokenizer = load_tokenizer(source, revision, trust_remote_code)
    with torch.device("meta"):
        hollow = auto_class(config).from_config(config, trust_remote_code=trust_remote_code).eval()
        kind = chosen_dtype(dtype, read_device(device, default="auto"))
        hollow = hollow if kind == "auto" else hollow.to(kind)
    named = name or Path(source).name
    return assemble(hollow, tokenizer, "huggingface", named, source, revision, {}, names=names)
