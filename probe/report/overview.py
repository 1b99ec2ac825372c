"""What the page opens with: the leading finding of every question, in sentences and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...analyses.result.findings import Finding, leads
from ...analyses.result.words import cell, listed, sentence
from .collect import Question
from .parts import table

ORDER = ("found", "undecided", "not_found", "not_tested")
COLUMNS = 8
LEAD = 5


def at_a_glance(asked: Sequence[Question], models: Sequence[str]) -> dict[str, Any] | None:
    """The table at the top: one row per model, one column per question; None without a leading finding."""
    columns: list[tuple[str, dict[str, str]]] = []
    for question in asked:
        told = [finding for finding in leads(question.findings) if finding.model]
        targets = list(dict.fromkeys(finding.target for finding in told))
        for target in targets:
            cells = {str(f.model): cell(f) for f in told if f.target == target}
            title = question.title if len(targets) == 1 else f"{question.title} “{target}”"
            columns.append((title, cells))
    columns = columns[:COLUMNS]
    rows = [name for name in models if any(name in cells for _, cells in columns)]
    if not rows:
        return None
    body = [[name, *(cells.get(name, "–") for _, cells in columns)] for name in rows]
    caption = "Estimates with 95 % intervals; verdicts at the level of 5 %, corrected for all layers"
    return table(["model", *(title for title, _ in columns)], body, caption=caption)


def summary(asked: Sequence[Question], ids: Sequence[str]) -> list[dict[str, Any]]:
    """The leading findings as sentences, models of one verdict without numbers of their own told together.

    Each names the section that it opens; `LEAD` of them are marked for the top of the page, the first of
    every question before any second one.

    Args:
        asked: questions in the order of the page.
        ids: the section of each.
    """
    told: list[dict[str, Any]] = []
    for question, section in zip(asked, ids, strict=True):
        for i, line in enumerate(told_together(leads(question.findings))):
            told.append({"section": section, "sentence": line, "rank": i})
    first = sorted(range(len(told)), key=lambda i: (told[i]["rank"], i))[:LEAD]
    return [
        {"section": one["section"], "sentence": one["sentence"], "lead": i in first}
        for i, one in enumerate(told)
    ]


def told_together(findings: Sequence[Finding]) -> list[str]:
    """One sentence for each finding, what was found first; then one for all models of which nothing was."""
    nothing = [f for f in findings if f.verdict == "not_found" and f.model and not f.reference]
    rest = sorted((f for f in findings if f not in nothing), key=lambda f: ORDER.index(f.verdict))
    if len(nothing) < 2:
        return [sentence(finding) for finding in (*rest, *nothing)]
    names = listed(dict.fromkeys(str(f.model) for f in nothing))
    claim = nothing[0].claim.not_found
    numbers = "; ".join(f"{f.model} {cell(f).partition(': ')[0]}" for f in nothing)
    return [*map(sentence, rest), f"{names}: {claim} ({numbers})."]
