"""The models of a study: outlined before any long work, loaded one at a time when needed."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...hooks.errors import LayerprobeError
from .spec import CaptureSpec, ModelSpec
from .toml import SHIPPED

if TYPE_CHECKING:
    from ...cache.prompts.table import PromptTable
    from ...hooks.model import Model

LENS = "lens"


def model_source(source: str) -> str:
    """The folder or hub id behind a source; `demo:base` and its like are the shipped models."""
    if not source.startswith(SHIPPED):
        return source
    from .. import demo

    name, shipped = source.removeprefix(SHIPPED), demo.models()
    if name not in shipped:
        choices = ", ".join(SHIPPED + known for known in shipped)
        raise LayerprobeError(f"no shipped model {source!r}; choose from {choices}")
    return str(shipped[name])


def check_model(name: str, spec: ModelSpec, capture: CaptureSpec, prompts: PromptTable) -> None:
    """Sites, token rule, template, answers and lengths, from the outline alone.

    Raises:
        LayerprobeError: naming the model and what does not fit.
    """
    from ...cache.capture.precheck import check_request
    from ...cache.capture.request import CaptureRequest
    from ...hooks.weights.outline import outline_model

    try:
        hollow = outline_model(
            model_source(spec.source),
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            name=name,
        )
        sites = [s for s in capture.sites if s.partition("[")[0] != LENS]
        if sites:
            _check_sites(hollow, sites, spec.engine)
        check_request(
            hollow.tokenizer,
            prompts,
            CaptureRequest.from_fields(
                capture, chat_template=spec.chat_template, chat_options=spec.chat_options
            ),
            max_length=hollow.max_length,
        )
    except LayerprobeError as error:
        message = str(error)
        raise LayerprobeError(message if name in message else f"model {name!r}: {message}") from error


def _check_sites(hollow: Model, sites: list[str], engine: str) -> None:
    from ...hooks.selections import parse_sites

    wanted = parse_sites(sites, hollow.n_layers)
    if engine == "huggingface":  # other engines say at load what they lack
        hollow.check_sites(wanted)


def weights_hash(spec: ModelSpec) -> str | None:
    """Hash of the weights without loading them; None for a hub model that is not on this machine yet."""
    from ...hooks import identity
    from ...hooks.weights import sources

    folder = sources.folder_of(model_source(spec.source), spec.revision)
    if folder is None or not any(any(Path(folder).glob(p)) for p in identity.WEIGHT_FILES):
        return None
    return identity.weights_sha256(folder)


class ModelPool:
    """Loads a study's models when they are needed, and holds no more of them than are needed at once."""

    def __init__(self, models: Mapping[str, ModelSpec]) -> None:
        self._specs = dict(models)
        self._held: dict[str, Model] = {}

    @contextmanager
    def loaded(self, *names: str) -> Iterator[tuple[Model, ...]]:
        """These models, ready to run."""
        self._held = {name: model for name, model in self._held.items() if name in names}
        gc.collect()
        for name in names:
            if name not in self._held:
                self._held[name] = load_spec(self._specs[name], name)
        yield tuple(self._held[name] for name in names)


def load_spec(spec: ModelSpec, name: str | None = None) -> Model:
    """Load the model that a spec describes."""
    from ...hooks.weights.load import load_model

    return load_model(
        model_source(spec.source),
        engine=spec.engine,
        revision=spec.revision,
        dtype=spec.dtype,
        device=spec.device,
        trust_remote_code=spec.trust_remote_code,
        name=name,
    )
