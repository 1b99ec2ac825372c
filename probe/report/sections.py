"""A section of the report: picture, findings and table of one question, whichever analysis answered it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...analyses.result import registry
from ...analyses.result.tables import wide
from ...analyses.result.words import sentence
from ...hooks.errors import LayerprobeError
from ..results.folder import explain
from .collect import Question
from .parts import figure, frame_table, section, table

ROWS = 400


def section_of(question: Question, models: Sequence[str]) -> dict[str, Any]:
    """Everything that the report says of one question; a part that fails costs only itself."""
    notes = list(question.result.notes)
    if question.told[1]:
        notes.append(f"The sentences of this section could not be made: {question.told[1]}")
    parts: dict[str, Any] = {"kind": question.kind, "sentences": [], "figures": [], "tables": []}
    for name, make in (("figures", _figures), ("sentences", _sentences), ("tables", _tables)):
        try:
            parts[name] = make(question, models)
        except Exception as error:  # the rest of the report must not be lost with it
            notes.append(f"The {name} of this section could not be made: {explain(error)}")
    lead = registry.find(question.kind).about
    return section(question.title, **parts, lead=lead, notes=notes)


def _sentences(question: Question, models: Sequence[str]) -> list[dict[str, str]]:
    return [
        {"text": sentence(finding), "verdict": finding.verdict, "claim": finding.claim.name}
        for finding in question.findings
    ]


def _figures(question: Question, models: Sequence[str]) -> list[dict[str, Any]]:
    draw = registry.find(question.kind).picture
    if draw is None:
        return []
    try:
        chart = draw(question.result)
    except LayerprobeError:  # nothing in it can be drawn
        return []
    return [figure(chart, name=question.title, caption="")]


def _tables(question: Question, models: Sequence[str]) -> list[dict[str, Any]]:
    columns, rows = wide(question.result.table, models)
    caption = "Every estimate with its 95 % interval"
    if len(rows) > ROWS:
        caption += f" (the first {ROWS} of {len(rows):,} rows; all are in the Parquet files)"
    tables = [table(columns, rows[:ROWS], caption=caption, folded=True)]
    for name, about in registry.find(question.kind).frames.items():
        frame = question.result.frames.get(name)
        if frame is not None and len(frame):
            tables.append(frame_table(frame, caption=about))
    return tables
