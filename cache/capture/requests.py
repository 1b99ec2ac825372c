"""Questions about a capture that need no loaded model: is it done already, and would it be accepted?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from ...hooks.errors import LayerprobeError
from ...hooks.sites import parse_sites
from ...hooks.tokens import encode
from ...hooks.identity import weights_sha256
from ..prompts.table import PromptTable
from ..prompts.token_rules import parse_rule
from ..store.activations import ActivationStore
from ..store.reader import open_file
from ..store.sameness import differences
from .options import request_fields
from .prepare import prepare


def matches(
    path: str | Path,
    prompts: PromptTable,
    *,
    source: str,
    revision: str | None = None,
    dtype: str | None = None,
    sites: Sequence[str] | str,
    tokens: str = "last",
    chat_template: bool | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    top_k: int = 5,
    on_long: Literal["error", "truncate"] = "error",
) -> bool:
    """Whether a file is a finished capture of exactly this request.

    A local folder is compared by the hash of its weights (remembered by path, size and time), a hub id by
    name and revision. `dtype=None` accepts whatever type was stored.
    """
    try:
        return Path(path).exists() and not differing(
            open_file(Path(path)),
            prompts,
            source=source,
            revision=revision,
            sites=sites,
            tokens=tokens,
            chat_template=chat_template,
            lens_tokens=lens_tokens,
            lens_first_difference=lens_first_difference,
            dtype=dtype,
            top_k=top_k,
            on_long=on_long,
        )
    except LayerprobeError:
        return False  # a damaged file is not a finished one; `capture` says what is wrong with it


def differing(
    store: ActivationStore,
    prompts: PromptTable,
    *,
    source: str,
    revision: str | None = None,
    model_dtype: str | None = None,
    sites: Sequence[str] | str,
    tokens: str = "last",
    chat_template: bool | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    dtype: str | None = None,
    top_k: int = 5,
    on_long: Literal["error", "truncate"] = "error",
) -> list[str]:
    """What differs between a store and a request, field by field; [] where the store answers it.

    Args:
        model_dtype: the type that the model would be loaded in; None accepts any.
        store, prompts, source, revision, sites, tokens, chat_template, lens_tokens, lens_first_difference,
            dtype, top_k, on_long: as in `matches`.
    """
    identity, model = store.identity, store.provenance.get("model", {})
    wanted = request_fields(
        prompts,
        parse_sites(sites, int(identity["model.n_layers"])),
        parse_rule(tokens),
        n_layers=int(identity["model.n_layers"]),
        chat_template=chat_template,
        lens_tokens=tuple(lens_tokens),
        lens_first_difference=lens_first_difference,
        dtype=dtype or store.dtype,
        top_k=top_k,
        on_long=on_long,
    )
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
        return weights_sha256(folder) == identity["model.weights_sha256"]
    known = model.get("revision")
    return model.get("source") == source and (revision is None or revision == known)


def check_request(
    tokenizer: Any,
    prompts: PromptTable,
    *,
    max_length: int,
    tokens: str = "last",
    chat_template: bool | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    on_long: Literal["error", "truncate"] = "error",
) -> None:
    """Tokenise everything and apply the token rule, as `capture` will.

    Args:
        tokenizer: the model's fast tokenizer.
        prompts: the prompt table.
        max_length: the model's context in tokens.
        tokens, chat_template, lens_tokens, lens_first_difference, on_long: as in `capture`.

    Raises:
        LayerprobeError: a prompt longer than the context, a rule that picks nothing, lens tokens that begin
            alike.
    """
    model: Any = SimpleNamespace(
        tokenizer=tokenizer, max_length=max_length, encode=lambda prompt: encode(tokenizer, prompt)
    )
    rule = parse_rule(tokens)
    rule.check_columns(prompts)
    prepare(
        model,
        prompts,
        rule,
        chat_template=chat_template,
        lens_tokens=tuple(lens_tokens),
        first_difference=lens_first_difference,
        on_long=on_long,
    )
