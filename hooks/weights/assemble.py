"""A module, its tokenizer and an engine, put together as a `Model`."""

import json
from typing import Any

from torch import nn

from .. import identity as ids
from .. import present_state as state
from ..architecture.anatomy import Anatomy, discover
from ..architecture.names import Names
from ..engines.base import Engine
from ..errors import LayerprobeError
from ..model import Model
from .adapters import adapter_sha256
from .sources import folder_of


def assemble(
    hf: nn.Module,
    tokenizer: Any,
    engine: str,
    name: str,
    source: str,
    revision: str | None,
    options: dict[str, Any],
    *,
    in_memory: bool = False,
    adapter: str | None = None,
    quantization: str | None = None,
    names: Names | None = None,
    allow_hooks: bool = False,
) -> Model:
    """Find the model's parts, put the engine on it and wrap both.

    Args:
        hf: the transformers module, in eval mode.
        tokenizer: its fast tokenizer.
        engine: name of the engine.
        name, source, revision: for tables and provenance.
        options: the engine's own.
        adapter, quantization: what stands beside the plain weights, for the identity.
        names: what its parts are called, where they are not known.
        allow_hooks: run hooks that were put on by hand, and record them.
        in_memory: the module was handed in by the user (hash its tensors, and never change it).

    Raises:
        LayerprobeError: its parts cannot be found, or the engine is not installed.
    """
    anatomy = discover(hf, names)
    runner = _make_engine(engine, hf, anatomy, tokenizer, in_memory, options)
    where = None if in_memory else folder_of(source, revision)
    commit = getattr(hf.config, "_commit_hash", None)
    # an engine may run a copy of the module it was given, or rebuild it
    ran = runner.model
    loaded, first_adapters = state.fingerprint(ran), state.adapters(ran)

    def weights(seen: state.Fingerprint) -> str:
        """Hash of the weights: of the files they were loaded from, unless they have changed since."""
        if seen != loaded:
            return ids.module_sha256(ran)
        found = ids.weights_sha256(where) if where is not None else ids.module_sha256(hf)
        for beside in (None if adapter is None else adapter_sha256(adapter), quantization):
            found = found if beside is None else str(ids.text_sha256(found + beside))
        return found

    known: dict[state.Fingerprint, str] = {}

    def identify() -> ids.ModelIdentity:
        seen, adapters = state.fingerprint(ran), state.adapters(ran)
        if seen not in known:
            known.clear()
            known[seen] = weights(seen)
        digest = known[seen]
        # an adapter that load_model put on is part of the hash already, as it was then
        if adapters != (first_adapters if adapter is not None else None):
            digest = str(ids.text_sha256(f"{digest}adapters: {adapters}"))
        hooks = state.foreign_hooks(ran)
        if hooks:
            digest = str(ids.text_sha256(f"{digest}hooks: {hooks}"))
        extra = {"transformer_lens": ["transformer-lens"], "nnsight": ["nnsight"]}.get(engine, [])
        return ids.ModelIdentity(
            source=source,
            revision=commit,
            weights_sha256=digest,
            config_sha256=ids.config_sha256(hf.config),
            tokenizer_sha256=ids.tokenizer_sha256(tokenizer),
            chat_template_sha256=ids.text_sha256(_template(tokenizer)),
            dtype=str(model.dtype).removeprefix("torch."),
            engine=engine,
            n_layers=anatomy.n_layers,
            d_model=anatomy.d_model,
            versions=ids.versions(extra),
            adapters=adapters,
            hooks=hooks,
        )

    model = Model(
        ran,
        engine=runner,
        anatomy=anatomy,
        tokenizer=tokenizer,
        name=name,
        source=source,
        identity=identify,
        allow_hooks=allow_hooks,
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
        from ..engines.huggingface import HuggingFaceEngine

        return HuggingFaceEngine(hf, anatomy)
    if name == "nnsight":
        from ..engines.nnsight import NNsightEngine

        return NNsightEngine(hf, anatomy, tokenizer, options)
    from ..engines.transformer_lens import TransformerLensEngine

    if options:
        raise LayerprobeError(f"load_model has no option {next(iter(options))!r} for engine {name!r}")
    return TransformerLensEngine(hf, anatomy, tokenizer, copy_first=in_memory)
