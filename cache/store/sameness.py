"""What makes two captures the same, and what to say when they are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hooks.edit_texts import describe
from ...hooks.errors import LayerprobeError

if TYPE_CHECKING:
    from ...hooks.model import Model

#: fields of a model's identity that decide; versions, engine and source are recorded and only warned about
MODEL_FIELDS = (
    "weights_sha256",
    "config_sha256",
    "tokenizer_sha256",
    "chat_template_sha256",
    "dtype",
    "n_layers",
    "d_model",
)


def model_fields(model: Model) -> dict[str, Any]:
    """The deciding fields of a model, and the interventions in force."""
    known = model.identity.as_dict()
    fields = {f"model.{name}": known.get(name) for name in MODEL_FIELDS}
    edits = [describe(edit) for edit in model.edits]
    if edits:
        fields["model.edits"] = edits
    return fields


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], prompts: Callable[[], str] | None = None
) -> list[str]:
    """Names of the fields that differ, with both values where they are short; of prompts, what `prompts`
    says."""
    out = []
    for name in sorted({*ours, *theirs}):
        a, b = ours.get(name), theirs.get(name)
        if a == b:
            continue
        if prompts is not None and name == "n_prompts":
            continue  # said with the prompts
        if prompts is not None and name == "prompts":
            out.append(f"prompts ({prompts()})")
        elif isinstance(a, list) and isinstance(b, list):
            out.append(f"{name} ({_listed(a, b)})")
        else:
            out.append(f"{name} ({_short(b)} in the file, {_short(a)} asked for)")
    return out


def _listed(ours: list[Any], theirs: list[Any]) -> str:
    """What only one of two lists has."""
    more = [value for value in theirs if value not in ours]
    less = [value for value in ours if value not in theirs]
    if not more and not less:
        return f"{_few(theirs)} in the file, {_few(ours)} asked for: another order"
    parts = [
        f"only in the file: {_few(more)}" if more else "",
        f"only asked for: {_few(less)}" if less else "",
    ]
    return "; ".join(part for part in parts if part)


def _few(values: list[Any], most: int = 6) -> str:
    shown = ", ".join(_short(value) for value in values[:most])
    return shown + (f" and {len(values) - most} more" if len(values) > most else "") or "none"


def check_same(
    path: Path,
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    prompts: Callable[[], str] | None = None,
) -> None:
    """Refuse to resume a file that holds something else.

    Args:
        path: the file.
        ours, theirs: what is asked for, and what is in the file.
        prompts: says in words in what the prompts differ.

    Raises:
        LayerprobeError: with every differing field and the way to a sibling store.
    """
    found = differences(ours, theirs, prompts)
    if found:
        raise LayerprobeError(
            f"{path} holds another capture; different are: {'; '.join(found)}. A store never changes: "
            f"capture to a sibling, --out {sibling_path(path)} (in Python path={str(sibling_path(path))!r}), "
            f"or where only sites or prompts are added, extend=True"
        )


def sibling_path(path: Path) -> Path:
    """The first free name beside a store: a.h5 -> a-2.h5, a-3.h5, ..."""
    number = 2
    while (candidate := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    return candidate


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) > 40 else text
