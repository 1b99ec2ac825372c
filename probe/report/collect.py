"""The results of a folder, put together by the question that they answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analyses.result import registry
from ...analyses.result.analysis import AnalysisResult, joined
from ...analyses.result.words import fill
from ...hooks.errors import LayerprobeError
from ..results.folder import ResultsFolder, explain

if TYPE_CHECKING:
    from ...analyses.result.findings import Finding


@dataclass(frozen=True)
class Entry:
    """One stored result with what the manifest says of it."""

    name: str
    result: AnalysisResult
    models: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One question, asked of one model or of several: one section of the report."""

    entries: tuple[Entry, ...]
    shared: str = ""
    """The row filter that all questions of the report have, which its head states once for all."""

    @property
    def kind(self) -> str:
        """Which analysis answered it."""
        return self.entries[0].result.kind

    @cached_property
    def result(self) -> AnalysisResult:
        """The answers of all models as one result."""
        one_each = all(len(entry.models) == 1 for entry in self.entries)
        models = [entry.models[0] for entry in self.entries] if one_each else []
        return joined([entry.result for entry in self.entries], models)

    @property
    def title(self) -> str:
        """Its heading: the analysis's title with the options filled in, and which prompts were looked at."""
        heading = fill(registry.find(self.kind).title, self._asked)
        return f"{heading} ({self.where})" if self.where and self.where != self.shared else heading

    @property
    def where(self) -> str:
        """The row filter in words; empty where all prompts were looked at."""
        where = self.entries[0].options.get("where") or {}
        return " and ".join(f"{column} = {value}" for column, value in where.items())

    @cached_property
    def told(self) -> tuple[Sequence[Finding], str]:
        """What was found, of every model, and why that could not be said; a failure costs only itself."""
        try:
            return list(self.result.findings), ""
        except Exception as error:  # the rest of the report must not be lost with it
            return [], explain(error)

    @property
    def findings(self) -> Sequence[Finding]:
        """What was found, of every model."""
        return self.told[0]

    @property
    def _asked(self) -> dict[str, Any]:
        """The options given, and what the table says where one was left to its default."""
        table = self.result.table
        said = {"label": table["target"].iloc[0]} if "target" in table and len(table) else {}
        return {**said, **self.entries[0].options}


def read_entries(out: Path) -> tuple[dict[str, Any], list[Entry]]:
    """The manifest and the results of a folder that a study or an analysis wrote.

    Raises:
        LayerprobeError: there are none.
    """
    folder = ResultsFolder(out)
    manifest = folder.manifest()
    if not manifest["results"]:
        raise LayerprobeError(
            f"no results in {str(out)!r}: name the folder that was --out of `layerprobe run` or `probe`"
        )
    entries = [
        Entry(name, result, tuple(entry.get("models", ())), entry.get("options", {}))
        for name, entry, result in folder.read_all()
    ]
    return manifest, entries


def questions(entries: Iterable[Entry]) -> list[Question]:
    """Entries that ask the same of several models, together; in the order of the groups of analyses."""
    asked: dict[str, list[Entry]] = {}
    for entry in entries:
        options = {k: v for k, v in entry.options.items() if k != "models" and v not in (None, [], {}, ())}
        key = repr((entry.result.kind, sorted((k, repr(v)) for k, v in options.items())))
        asked.setdefault(key, []).append(entry)
    order = list(registry.GROUPS)
    found = [Question(tuple(group)) for group in asked.values()]
    filters = {question.where for question in found}
    if len(filters) == 1:
        found = [replace(question, shared=question.where) for question in found]
    return sorted(found, key=lambda one: order.index(registry.find(one.kind).group))
