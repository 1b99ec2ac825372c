"""study.toml: read, checked with errors that say what to type instead, and written back."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ...analyses.result import catalogue
from ...hooks.errors import LayerprobeError
from . import spec as study_spec
from .nearest import suggest
from .option_models import table_of
from .spec import Study

SHIPPED = "demo:"


def read_study(source: Study | Mapping[str, Any] | str | Path) -> Study:
    """A checked `Study` from a TOML file, a mapping or a `Study`.

    Relative paths in a file are relative to the file's folder, so that a study runs from anywhere.

    Args:
        source: path of a TOML file, a mapping of the same shape, or a `Study`, which is returned as it is.

    Raises:
        LayerprobeError: the file is missing, is no TOML, or has an option that studies do not have.
    """
    if isinstance(source, Study):
        return source
    if isinstance(source, Mapping):
        return check_study(source, "the study")
    path = Path(source).expanduser()
    if path.is_dir() and (path / "study.toml").is_file():
        path = path / "study.toml"
    if not path.is_file():
        raise LayerprobeError(f"no study file at {str(path)!r}; docs/study_file.md shows a first one to copy")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LayerprobeError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, tables in tables in tables
        raise LayerprobeError(
            f"{path} is not valid TOML: {error}; correct that line and run again"
        ) from error
    return anchored(check_study(data, str(path)), path.resolve().parent)


def check_study(data: Mapping[str, Any], name: str) -> Study:
    """The mapping as a `Study`, or one sentence that names the first thing wrong with it."""
    try:
        return Study.model_validate(dict(data))
    except ValidationError as error:
        raise LayerprobeError(f"{name}: {_sentence(error, data)}") from None


def _sentence(error: ValidationError, data: Mapping[str, Any]) -> str:
    # A misspelt option often also counts as a missing one: say the misspelling.
    problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    first = problems[0]
    where, option = _place(first["loc"])
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _options_at(first["loc"], data)
        return f"{where} has no option {option!r}; {suggest(option, known)}{more}"
    if first["type"] == "missing":
        return f"{where} needs {option!r}; add it{more}"
    if first["type"] == "too_short":
        return f"{where} needs at least one of {option!r}; docs/study_file.md shows one to copy{more}"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        known = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
        return f"{where}, {option}: {first['input']!r} is unknown; {suggest(first['input'], known)}{more}"
    message = first["msg"].removeprefix("Value error, ")
    given = f", got {first['input']!r}" if not isinstance(first["input"], Mapping | list) else ""
    here = f"{where}, {option}: " if option else (f"{where}: " if where != "the study" else "")
    return f"{here}{message}{given}{more}"


def _place(loc: tuple[int | str, ...]) -> tuple[str, str]:
    """The table as it stands in the file, and the option within it."""
    if not loc:
        return "the study", ""
    head = loc[0]
    if head == "models" and len(loc) > 1:
        return f"[models.{loc[1]}]", ".".join(map(str, loc[2:]))
    if head == "analysis" and len(loc) > 1:
        return f"[[analysis]] number {int(loc[1]) + 1}", ".".join(map(str, loc[2:]))
    if len(loc) > 1:
        return f"[{head}]", ".".join(map(str, loc[1:]))
    return "the study", str(head)


def _options_at(loc: tuple[int | str, ...], data: Mapping[str, Any]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "models": study_spec.ModelSpec,
        "prompts": study_spec.PromptsSpec,
        "capture": study_spec.CaptureSpec,
    }
    owner = tables.get(str(loc[0]), Study) if len(loc) > 1 else Study
    if loc[0] == "analysis" and len(loc) > 2:
        kind = catalogue.name_of(str(data["analysis"][int(loc[1])]["kind"]))
        owner = table_of(kind) if kind else Study
    return list(owner.model_fields)


def anchored(study: Study, folder: Path) -> Study:
    """The same study with its relative paths made absolute from `folder`."""

    def from_folder(value: str, must_exist: bool) -> str:
        path = Path(value).expanduser()
        if value.startswith(SHIPPED) or path.is_absolute():
            return str(path) if path.is_absolute() else value
        written_as_path = value.startswith((".", "~"))
        if must_exist and not written_as_path and not (folder / path).exists():
            return value  # a hub id
        return str((folder / path).resolve())

    models = {
        name: spec.model_copy(update={"source": from_folder(spec.source, must_exist=True)})
        for name, spec in study.models.items()
    }
    prompts = study.prompts.model_copy(update={"file": from_folder(study.prompts.file, must_exist=False)})
    return study.model_copy(update={"models": models, "prompts": prompts})


def study_toml(study: Study) -> str:
    """The study as TOML; reading it gives an equal `Study`.

    >>> study = check_study({"models": {"a": {"source": "gpt2"}}, "prompts": {"file": "p.csv"},
    ...                      "analysis": [{"kind": "separation", "label": "y"}]}, "example")
    >>> check_study(tomllib.loads(study_toml(study)), "again") == study
    True
    """
    data = study.model_dump(exclude_defaults=True, exclude_none=True)
    lines = [f"title = {_value(study.title)}"]
    for name, spec in data["models"].items():
        lines += ["", f"[models.{_key(name)}]", *_pairs(spec)]
    lines += ["", "[prompts]", *_pairs(data["prompts"])]
    if data.get("capture"):
        lines += ["", "[capture]", *_pairs(data["capture"])]
    for item, spec in zip(study.analysis, data["analysis"], strict=True):
        lines += ["", "[[analysis]]", *_pairs({"kind": item.kind, **spec})]
    return "\n".join(lines) + "\n"


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(k)} = {_value(v)}" for k, v in table.items()]


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(k))} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON's strings (escapes included), numbers and booleans are TOML's; only DEL needs help.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
