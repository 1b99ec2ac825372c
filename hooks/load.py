"""`load_model`: a local folder, a hub id or a model in memory, checked before it runs."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import identity as ids
from .anatomy import Anatomy, discover
from .engines.base import Engine
from .errors import LayerprobeError
from .model import Model
from .tokens import check_tokenizer

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
        **engine_options: passed to the engine (nnsight: remote=True).

    Raises:
        LayerprobeError: there is no such model, part of it is missing or not finite, or an option makes no
            sense here.
    """
    if engine not in ENGINES:
        raise LayerprobeError(f"engine={engine!r}: choose one of {', '.join(ENGINES)}")
    if isinstance(source, nn.Module):
        model = _from_module(source, tokenizer, engine, name, engine_options)
    else:
        where = str(source)
        _check_source(where)
        target = "cpu" if device_map is not None else _device(device)
        kind = _dtype(dtype, target)
        hf = _load_module(where, revision, kind, target, device_map, quantization, trust_remote_code, check)
        if adapter is not None:
            from .adapters import with_adapter

            hf = with_adapter(hf, str(adapter), merge=merge_adapter)
        tok = tokenizer if tokenizer is not None else _load_tokenizer(where, revision, trust_remote_code)
        model = _assemble(hf, tok, engine, name or Path(where).name, where, revision, engine_options)
    if check:
        model.check()
    return model


def _from_module(
    source: nn.Module, tokenizer: Any, engine: str, name: str | None, options: dict[str, Any]
) -> Model:
    if tokenizer is None:
        raise LayerprobeError(
            "a model object was given without its tokenizer: pass "
            "tokenizer=AutoTokenizer.from_pretrained(...)"
        )
    check_tokenizer(tokenizer)
    if source.training:
        raise LayerprobeError("the model is in training mode (dropout is on): call .eval() on it first")
    where = str(getattr(source.config, "_name_or_path", "") or type(source).__name__)  # type: ignore[union-attr]
    return _assemble(
        source, tokenizer, engine, name or Path(where).name, where, None, options, in_memory=True
    )


def _assemble(
    hf: nn.Module,
    tokenizer: Any,
    engine: str,
    name: str,
    source: str,
    revision: str | None,
    options: dict[str, Any],
    *,
    in_memory: bool = False,
) -> Model:
    anatomy = discover(hf)
    runner = _make_engine(engine, hf, anatomy, tokenizer, in_memory, options)
    folder = None if in_memory else _folder(source, revision)
    commit = getattr(hf.config, "_commit_hash", None)  # type: ignore[union-attr]

    def identify() -> ids.ModelIdentity:
        weights = (
            ids.weights_sha256(folder)
            if folder is not None and not options.get("adapter")
            else ids.module_sha256(hf)
        )
        extra = {"transformer_lens": ["transformer-lens"], "nnsight": ["nnsight"]}.get(engine, [])
        return ids.ModelIdentity(
            source=source,
            revision=commit,
            weights_sha256=weights,
            config_sha256=ids.config_sha256(hf.config),
            tokenizer_sha256=ids.tokenizer_sha256(tokenizer),
            chat_template_sha256=ids.text_sha256(_template(tokenizer)),
            dtype=str(model.dtype).removeprefix("torch."),
            engine=engine,
            n_layers=anatomy.n_layers,
            d_model=anatomy.d_model,
            versions=ids.versions(extra),
        )

    model = Model(
        hf, engine=runner, anatomy=anatomy, tokenizer=tokenizer, name=name, source=source, identity=identify
    )
    return model


def _template(tokenizer: Any) -> str | None:
    template = getattr(tokenizer, "chat_template", None)
    return template if template is None or isinstance(template, str) else json.dumps(template, sort_keys=True)


def _make_engine(
    name: str, hf: nn.Module, anatomy: Anatomy, tokenizer: Any, in_memory: bool, options: dict[str, Any]
) -> Engine:
    if name == "huggingface":
        if options:
            raise LayerprobeError(
                f"load_model has no option {next(iter(options))!r} for engine 'huggingface'"
            )
        from .engines.huggingface import HuggingFaceEngine

        return HuggingFaceEngine(hf, anatomy)
    raise LayerprobeError(f"engine {name!r} is not available yet: use engine='huggingface'")


# -- where the files are -----------------------------------------------------------------------------------


def _check_source(source: str) -> None:
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


def _folder(source: str, revision: str | None) -> Path | None:
    """The folder of the files, also for a hub id (its snapshot in the cache)."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    try:
        from transformers.utils import cached_file

        found = cached_file(source, "config.json", revision=revision, local_files_only=True)
        return Path(found).parent if found else None
    except (OSError, ValueError):
        return None


def _device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise LayerprobeError(
            f"device={str(device)!r} cannot be used ({reason}): try device='cpu' or 'auto'"
        ) from None
    return chosen


def _dtype(dtype: str | torch.dtype | None, device: Any) -> torch.dtype | str:
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


# -- loading -----------------------------------------------------------------------------------------------


def _load_module(
    source: str,
    revision: str | None,
    dtype: Any,
    device: Any,
    device_map: Any,
    quantization: str | None,
    trust_remote_code: bool,
    check: bool,
) -> nn.Module:
    from transformers import AutoConfig
    from transformers.utils import logging

    common = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError, HTTP errors, ...
        raise LayerprobeError(f"cannot load {source!r}: {_reason(error)}. {_advice(source)}") from error
    options: dict[str, Any] = {**common, "dtype": dtype, "output_loading_info": True}
    if device_map is not None:
        options["device_map"] = device_map
    if quantization is not None:
        from .adapters import quantization_config

        options["quantization_config"] = quantization_config(quantization)
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        hf, info = _auto_class(config).from_pretrained(source, config=config, **options)
    except Exception as error:
        raise LayerprobeError(
            f"cannot load the weights of {source!r}: {_reason(error)}. {_advice(source)}"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    _check_weights(source, hf, info, check)
    placed = device_map is not None or quantization is not None
    return hf.eval() if placed else hf.to(device).eval()


def _auto_class(config: Any) -> Any:
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
    return transformers.AutoModel


def _check_weights(source: str, hf: nn.Module, info: dict[str, Any], check: bool) -> None:
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
    if not check:
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


def _load_tokenizer(source: str, revision: str | None, trust_remote_code: bool) -> Any:
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
            f"cannot load the tokenizer of {source!r}: {_reason(error)}. Pass tokenizer= to give another"
        ) from error
    check_tokenizer(tokenizer)
    return tokenizer


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer_config.json",
)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


def _advice(source: str) -> str:
    if Path(source).expanduser().is_dir():
        return "Check that the folder is complete"
    return "Check the id on huggingface.co, or give a local folder (offline, it must be downloaded already)"
