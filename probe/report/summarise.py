"""Results folder → one plain dict that holds the whole report; `render` only lays it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..results.folder import plain
from .collect import Entry, Question, questions, read_entries
from .notes import notes_for
from .overview import at_a_glance, summary
from .sections import section_of


def summarise(out: str | Path) -> dict[str, Any]:
    """Everything that the report says, as plain values.

    Args:
        out: a folder with `results/`.

    Returns:
        title, facts, findings, glance, sections, methods, limits; figures as Vega-Lite.
    """
    manifest, entries = read_entries(Path(out))
    facts = manifest.get("facts", {})
    models = model_names(facts, entries)
    asked = questions(entries)
    sections = [section_of(question, models) for question in asked]
    unique_ids(sections)
    notes = notes_for({name for question in asked for name in (question.kind,)})
    return dict(
        plain(
            {
                "title": facts.get("title") or "Layer by layer",
                "facts": facts,
                "models": models,
                "where": asked[0].shared if asked else "",
                "findings": summary(asked, [part["id"] for part in sections]),
                "failures": manifest.get("failures", {}),
                "glance": at_a_glance(asked, models),
                "sections": sections,
                "records": _records(asked, sections),
                "methods": notes,
                "limits": [line for note in notes for line in note["limits"]],
            }
        )
    )


def model_names(facts: dict[str, Any], entries: Iterable[Entry]) -> list[str]:
    """Every model, in the study's order."""
    names = [model["name"] for model in facts.get("models", [])]
    return list(dict.fromkeys([*names, *(name for entry in entries for name in entry.models)]))


def _records(asked: Sequence[Question], sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every finding as data, with the section that says it."""
    return [
        {"section": part["id"], **finding.to_dict()}
        for question, part in zip(asked, sections, strict=True)
        for finding in question.findings
    ]


def unique_ids(sections: Sequence[dict[str, Any]]) -> None:
    """Number the ids that would occur twice."""
    seen: dict[str, int] = {}
    for part in [one for section in sections for one in (section, *section["figures"])]:
        seen[part["id"]] = seen.get(part["id"], 0) + 1
        if seen[part["id"]] > 1:
            part["id"] += f"-{seen[part['id']]}"
