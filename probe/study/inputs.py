"""What a study reads, looked at before any long work: prompts, columns, labels, models, sites, lengths."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hooks.errors import LayerprobeError
from .checks import check_analyses
from .pool import LENS, check_model
from .spec import ModelSpec, PromptsSpec, Study
from .toml import SHIPPED

if TYPE_CHECKING:
    from ...cache.prompts.table import PromptTable


def prompts_path(file: str) -> Path:
    """The prompt file; `demo:prompts` is the shipped one."""
    if not file.startswith(SHIPPED):
        return Path(file).expanduser()
    from .. import demo

    if file != "demo:prompts":
        raise LayerprobeError(f"no shipped prompts {file!r}; there is demo:prompts")
    return demo.prompts_file()


def checked_inputs(study: Study) -> tuple[Study, PromptTable]:
    """The study with everything filled in, and its prompts; whatever can be wrong with them is said here.

    Raises:
        LayerprobeError: a path, column, label, model, site or length does not fit.
    """
    path = prompts_path(study.prompts.file)
    study = filled_in(study)
    answers = answers_of(study)
    literal = [answer for answer in answers if not is_column(path, answer, study.prompts)]
    columns = [answer for answer in answers if answer not in literal]
    prompts = load_prompts(study.prompts, [*label_columns(study), *columns])
    if not len(prompts):
        raise LayerprobeError(f"{study.prompts.file} has no rows; give at least a few dozen prompts")
    if answers:
        prompts = with_literals(prompts, literal)
        study = with_lens(study, answers)
    check_analyses(study, prompts)
    for name, spec in study.models.items():
        check_model(name, spec, study.capture, prompts)
    return study, prompts


def answers_of(study: Study) -> list[str]:
    """Targets and foils of every analysis: label columns, or literal answers."""
    named = [answers for item in study.analysis for answers in item.named("answer").values()]
    return list(dict.fromkeys(answer for answers in named for answer in answers))


def is_column(path: Path, name: str, spec: PromptsSpec) -> bool:
    """Whether the prompt file has this column.

    Raises:
        LayerprobeError: it has not, but the name looks like one of its columns misspelt.
    """
    from ...cache.prompts.tabular import MissingColumn, read_columns

    try:
        read_columns(path, [("target or foil", name)], 1, sep=spec.sep, encoding=spec.encoding)
    except MissingColumn as error:
        if error.nearest is not None:
            raise
        return False
    return True


def with_literals(prompts: PromptTable, answers: Iterable[str]) -> PromptTable:
    """A literal answer such as "unknown" becomes a column of its own that says the same in every row."""
    constant = {answer: np.array([answer] * len(prompts), dtype=object) for answer in answers}
    return replace(prompts, labels={**prompts.labels, **constant})


def with_lens(study: Study, answers: Iterable[str]) -> Study:
    """The same study, its capture reading these answers through the lens."""
    sites = study.capture.sites if LENS in study.capture.sites else (*study.capture.sites, LENS)
    tokens = tuple(dict.fromkeys([*study.capture.lens_tokens, *answers]))
    capture = study.capture.model_copy(update={"sites": sites, "lens_tokens": tokens})
    return study.model_copy(update={"capture": capture})


def label_columns(study: Study) -> tuple[str, ...]:
    """Every label column that the study uses, whether or not [prompts] lists it."""
    used = list(study.prompts.labels) + list(study.capture.lens_tokens)
    for item in study.analysis:
        used += item.option_columns()
    return tuple(dict.fromkeys(used))


def load_prompts(spec: PromptsSpec, labels: Iterable[str]) -> PromptTable:
    """The prompt table with these label columns."""
    from ...cache.prompts.table import read_prompts

    text = None if spec.messages or spec.token_ids else (spec.text or "prompt")
    return read_prompts(
        prompts_path(spec.file),
        text=text,
        messages=spec.messages,
        token_ids=spec.token_ids,
        labels=tuple(labels),
        group=spec.group,
        pair=spec.pair,
        split=spec.split,
        spans=spec.spans,
        id=spec.id,
        limit=spec.limit,
        sep=spec.sep,
        encoding=spec.encoding,
    )


def filled_in(study: Study) -> Study:
    """The study with what a comparison may leave unsaid: it asks what probe and suppression ask."""
    labels = (getattr(i, "label", None) for i in study.analysis)
    first_label = next((label for label in labels if isinstance(label, str)), None)
    first_lens = next((i for i in study.analysis if i.kind == "suppression"), None)
    analyses = []
    for item in study.analysis:
        named = [getattr(item, name, None) for name in ("label", "target")]
        if item.kind in ("compare", "two_by_two") and not any(named):
            asked: dict[str, Any] = {"label": first_label}
            if first_lens:
                asked |= {field: getattr(first_lens, field) for field in ("target", "foil", "by")}
                asked["where"] = item.where or first_lens.where
            item = item.model_copy(update={k: v for k, v in asked.items() if v})
        analyses.append(item)
    return study.model_copy(update={"analysis": tuple(analyses)})


def request_key(spec: ModelSpec, weights: Any, prompts_sha256: str, study: Study) -> str:
    """Eight hex digits that stand for everything a capture depends on; part of the store's file name.

    A changed study therefore captures to a new file, and a finished file never changes.
    """
    untold = {"source", "device", "trust_remote_code"}
    if not spec.chat_options:
        untold.add("chat_options")  # files of studies that never named it keep their names
    asked = {
        "model": spec.model_dump(exclude=untold),
        "weights": weights,
        "prompts": prompts_sha256,
        "capture": study.capture.model_dump(
            exclude={"batch_tokens"} if study.capture.generate else {"batch_tokens", "generate"}
        ),
    }
    return fingerprint(asked)[:8]


def fingerprint(data: Any) -> str:
    """sha256 of the data as canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()
