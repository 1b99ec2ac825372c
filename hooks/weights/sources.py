"""Where a model's files are, and whether they are all there: asked before anything is loaded."""

import json
from pathlib import Path
from typing import Any

from ..errors import LayerprobeError
from ..tokens import check_tokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer_config.json",
)


def check_source(source: str) -> None:
    """Refuse a folder that is no model, or that lacks a weights file its index names.

    Raises:
        LayerprobeError: saying what is missing.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if source.startswith((".", "/", "~")) or source.count("/") > 1 or "\\" in source:
            raise LayerprobeError(
                f"no folder {source!r}: check the path, or give a hub id such as 'openai-community/gpt2'"
            )
        return
    if not path.is_dir():
        raise LayerprobeError(f"{source!r} is a file: give the folder that holds config.json and the weights")
    if not (path / "config.json").is_file():
        raise LayerprobeError(
            f"{source!r} is not a model folder: it has no config.json (save one with model.save_pretrained)"
        )
    for index in (*path.glob("*.safetensors.index.json"), *path.glob("*.bin.index.json")):
        try:
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError) as error:
            raise LayerprobeError(f"{index} cannot be read ({error}): download the model again") from None
        missing = [shard for shard in shards if not (path / shard).is_file()]
        if missing:
            raise LayerprobeError(
                f"{source!r} lacks {len(missing)} of {len(shards)} weight files, first {missing[0]}: "
                f"download it again"
            )


def folder_of(source: str, revision: str | None, *, file: str = "config.json") -> Path | None:
    """The folder of the files, also for a hub id (its snapshot in the cache)."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    try:
        from transformers.utils.hub import cached_file

        found = cached_file(source, file, revision=revision, local_files_only=True)
        return Path(found).parent if found else None
    except (OSError, ValueError):
        return None


def auto_class(config: Any) -> Any:
    """The class with the head the checkpoint was saved with; the bare body for encoders, reward models and
    the like."""
    import transformers

    if getattr(config, "is_encoder_decoder", False):
        raise LayerprobeError(
            f"{config.model_type} is an encoder-decoder: layerprobe reads decoders and encoders"
        )
    name = (getattr(config, "architectures", None) or [""])[0]
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return transformers.AutoModelForCausalLM
    if name.endswith("ForConditionalGeneration"):
        return transformers.AutoModelForImageTextToText
    if not name and _is_causal(config.model_type):
        return transformers.AutoModelForCausalLM
    return transformers.AutoModel


def _is_causal(model_type: str) -> bool:
    """Whether an architecture that names no class has a next-token head and no masked one."""
    from transformers.models.auto import modeling_auto as auto

    masked = model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not masked


def load_config(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The transformers configuration of a folder or hub id.

    Raises:
        LayerprobeError: there is none, or it cannot be read.
    """
    from transformers import AutoConfig

    check_source(source)
    try:
        return AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, HTTP errors, ...
        raise LayerprobeError(f"cannot load {source!r}: {reason(error)}. {advice(source)}") from error


def load_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The fast tokenizer of a folder or hub id.

    Raises:
        LayerprobeError: there is none, or it is not a fast one.
    """
    from transformers import AutoTokenizer

    folder = Path(source).expanduser()
    if folder.is_dir() and not any((folder / f).is_file() for f in TOKENIZER_FILES):
        raise LayerprobeError(
            f"{source!r} has no tokenizer (looked for {', '.join(TOKENIZER_FILES)}): save one there with "
            "tokenizer.save_pretrained, or pass tokenizer="
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise LayerprobeError(
            f"cannot load the tokenizer of {source!r}: {reason(error)}. Pass tokenizer= to give another"
        ) from error
    check_tokenizer(tokenizer)
    return tokenizer


def reason(error: Exception) -> str:
    """The first line of what a library said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def advice(source: str) -> str:
    """What to do about a source that does not load."""
    if Path(source).expanduser().is_dir():
        return "Check that the folder is complete"
    return "Check the id on huggingface.co, or give a local folder (offline, it must be downloaded already)"
