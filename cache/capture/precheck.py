"""Questions about a capture that need no loaded model: is it done already, and would it be accepted?"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ...hooks.identity import weights_sha256
from ...hooks.selections import parse_sites
from ...hooks.tokens import encode
from ..prompts.table import PromptTable
from ..store.activations import ActivationStore
from ..store.sameness import differences
from .prepare import prepare_options
from .request import CaptureRequest, identity_of_request


def differing(
    store: ActivationStore,
    prompts: PromptTable,
    request: CaptureRequest,
    *,
    source: str,
    revision: str | None = None,
    model_dtype: str | None = None,
) -> list[str]:
    """What differs between a store and a request, field by field; [] where the store answers it.

    A local folder is compared by the hash of its weights (remembered by path, size and time), a hub id by
    name and revision.

    Args:
        store: what there is, complete or not.
        prompts: the prompts asked about.
        request: what is asked; `dtype=None` accepts whatever type was stored.
        source: the model, as for `load_model`.
        revision: of a hub model; None accepts any.
        model_dtype: the type that the model would be loaded in; None accepts any.
    """
    identity, model = store.identity, store.provenance.get("model", {})
    n_layers = int(identity["model.n_layers"])
    resolved = request.resolve_sites(
        parse_sites(request.sites, n_layers), prompts, n_layers=n_layers, dtype=store.dtype
    )
    wanted = {"chat_options": None, "generate": None, **identity_of_request(resolved, prompts)}
    if model_dtype is not None:
        wanted["model.dtype"] = str(model_dtype).removeprefix("torch.")
    found = differences(wanted, {name: identity.get(name) for name in wanted})
    if not store.complete:
        found.append("it is incomplete")
    if not _same_source(source, revision, model, identity):
        found.append(f"the model ({model.get('source')} in the file, {source} asked for)")
    return found


def _same_source(source: str, revision: str | None, model: dict[str, Any], identity: dict[str, Any]) -> bool:
    folder = Path(source)
    if folder.is_dir():
        return bool(weights_sha256(folder) == identity["model.weights_sha256"])
    known = model.get("revision")
    return bool(model.get("source") == source and (revision is None or revision == known))


def check_request(tokenizer: Any, prompts: PromptTable, request: CaptureRequest, *, max_length: int) -> None:
    """Tokenise everything and apply the token rule, as `capture` will.

    Args:
        tokenizer: the model's fast tokenizer.
        prompts: the prompt table.
        request: what is asked.
        max_length: the model's context in tokens.

    Raises:
        LayerprobeError: a prompt longer than the context, a rule that picks nothing, lens tokens that begin
            alike.
    """
    model: Any = SimpleNamespace(
        tokenizer=tokenizer, max_length=max_length, encode=partial(encode, tokenizer)
    )
    request.rule.check_columns(prompts)
    prepare_options(model, prompts, request.resolve_sites((), prompts, n_layers=0, dtype="float32"))
