"""Results folder → one plain dict that holds the whole report; `render` only lays it out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...hooks.errors import LayerprobeError
from ..results.folder import ResultsFolder, explain, plain
from .collect import SEVERAL, Entry, same_question, where_words, words
from .methods import notes_for
from .overview import (
    at_a_glance,
    difference_sentence,
    headline,
    nested_sentence,
    probe_sentence,
    separation_sentence,
)
from .parts import frame_table, section
from .section_compare import compare_sections
from .section_lens import lens_sections
from .section_other import other_sections
from .section_probes import probe_sections
from .section_separation import separation_sections
from .section_targets import target_sections, targets_sentence

Sections = Callable[[Sequence[Entry], Sequence[str]], list[dict[str, Any]]]
LEAD_SENTENCES = 2
LEAD = 5
MINUS = re.compile(r"(?<![\w.])-(?=\d)")
LENS_KINDS = ("suppression", "comparison")
# In the order in which a reader wants them.
SECTIONS: dict[str, Sections] = {
    "suppression": lens_sections,
    "comparison": compare_sections,
    "linear_probe": probe_sections,
    SEVERAL: target_sections,
    "nested_cv": probe_sections,
    "separation": separation_sections,
}
# One sentence for all models, per question.
SENTENCES: dict[str, Callable[[list[Entry]], str]] = {
    "linear_probe": probe_sentence,
    SEVERAL: targets_sentence,
    "nested_cv": nested_sentence,
    "separation": separation_sentence,
}


def read_entries(out: Path) -> tuple[dict[str, Any], list[Entry]]:
    """The manifest and the results of a folder that a study or an analysis wrote."""
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


def summarise(out: str | Path) -> dict[str, Any]:
    """Everything that the report says, as plain values.

    Args:
        out: a folder with `results/`.

    Returns:
        title, facts, findings, glance, sections, methods, limits; figures as plotly JSON.
    """
    manifest, entries = read_entries(Path(out))
    facts = manifest.get("facts", {})
    kinds = list(dict.fromkeys(e.kind for e in entries))
    names = [m["name"] for m in facts.get("models", [])]
    names += [m for e in entries for m in e.models if m not in names]
    names = list(dict.fromkeys(names))
    sections: list[dict[str, Any]] = []
    for kind in [k for k in SECTIONS if k in kinds] + [k for k in kinds if k not in SECTIONS]:
        mine = [e for e in entries if e.kind == kind]
        sections += [
            {**part, "kind": kind} for part in _made(SECTIONS.get(kind, other_sections), mine, names)
        ]
    _unique_ids(sections)
    notes = notes_for([*kinds, *(str(e.options.get("kind")) for e in entries)])
    _say_once(sections)
    return plain(
        {
            "title": facts.get("title") or "Layer by layer",
            "facts": facts,
            "models": names,
            "findings": findings_of(entries, sections),
            "failures": manifest.get("failures", {}),
            "glance": at_a_glance(entries, names),
            "sections": sections,
            "methods": notes,
            "limits": [line for note in notes for line in note["limits"]],
        }
    )


def _made(make: Sections, entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """The sections of one kind; where they cannot be drawn, the plain table and why."""
    try:
        return make(entries, names)
    except Exception as error:  # one section that fails must not cost the report
        tables = [frame_table(e.result.table, caption=f"{e.name}: every row") for e in entries]
        note = f"This section could not be drawn: {explain(error)}"
        return [section(words(entries[0].kind).capitalize(), tables=tables, notes=[note])]


def findings_of(entries: Sequence[Entry], sections: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summary at the top: what the suppression analyses concluded, then what each section leads with.

    At most `LEAD` of them are marked as the lead; the page folds the others.
    """
    lens = next((s["id"] for s in sections if s["kind"] in LENS_KINDS), "summary")
    concluded = [*headline(entries), *difference_sentence(entries)]
    found = [{"section": lens, "sentence": line} for line in concluded]
    for part in sections:
        if part["kind"] == "comparison":
            found += [{"section": part["id"], "sentence": line} for line in leading(part)]
    for kind, sentence in SENTENCES.items():
        groups = same_question(e for e in entries if e.kind == kind).values()
        parts = [s for s in sections if s["kind"] == kind]
        if len(parts) == len(groups):
            pairs = zip(parts, groups, strict=True)
            for part, group in pairs:
                found += [{"section": part["id"], "sentence": line} for line in _said(sentence, part, group)]
    said = {finding["section"] for finding in found}
    for part in sections:
        if part["id"] in said or part["kind"] in LENS_KINDS:
            continue
        found += [{"section": part["id"], "sentence": line} for line in leading(part)]
    for finding in found:  # one minus sign for all, whichever analysis wrote the sentence
        finding["sentence"] = MINUS.sub("−", finding["sentence"])
    told = with_prompts(found, entries, {part["id"]: part["kind"] for part in sections})
    chosen = lead(told, len(concluded), {part["id"] for part in sections if part["kind"] == "comparison"})
    return [{**finding, "lead": i in chosen} for i, finding in enumerate(told)]


def _said(sentence: Callable[[list[Entry]], str], part: dict[str, Any], group: list[Entry]) -> list[str]:
    """One sentence for all models; where it fails, those of the section, for the report must not be lost."""
    try:
        return [sentence(group)]
    except Exception as error:
        explain(error)  # to the log
        return leading(part)


def lead(found: Sequence[Mapping[str, str]], concluded: int, compared: set[str]) -> set[int]:
    """Which few findings the page opens with: conclusions first, then the first sentence of each section.

    The last of the conclusions, which sets the kinds of prompts against each other, is always among them;
    what a comparison adds to it comes after all else.
    """
    first = list(range(concluded))
    if len(first) > LEAD - 1:
        first = [*first[: LEAD - 2], first[-1]]
    opening = {found[i]["section"]: i for i in reversed(range(concluded, len(found)))}
    openers = sorted(i for section, i in opening.items() if section not in compared)
    later = [i for i in range(len(found)) if i not in first and i not in openers]
    later.sort(key=lambda i: found[i]["section"] in compared)
    return set([*first, *openers, *later][:LEAD])


def with_prompts(
    found: Sequence[dict[str, str]], entries: Sequence[Entry], kinds: Mapping[str, str]
) -> list[dict[str, str]]:
    """Sentences of analyses on different rows say which rows, so that nobody sets them side by side."""
    filters: dict[str, set[str]] = {}
    for entry in entries:
        filters.setdefault(entry.kind, set()).add(where_words(entry.options))
    if len(set().union(*filters.values())) < 2:
        return list(found)
    told = []
    for finding in found:
        of_kind = filters.get(kinds.get(finding["section"], ""), set())
        sentence = finding["sentence"].rstrip(".")
        if len(of_kind) == 1:
            (where,) = of_kind
            sentence += f" ({'prompts with ' + where if where else 'all prompts'})"
        told.append({**finding, "sentence": sentence + "."})
    return told


def leading(part: dict[str, Any]) -> list[str]:
    """What a section contributes to the summary; of a comparison, its differences."""
    if part["kind"] == "comparison":
        return [s for s in part["sentences"] if " minus " in s and "covers zero" not in s][:3]
    return list(part["sentences"][:LEAD_SENTENCES])


def _say_once(sections: Sequence[dict[str, Any]]) -> None:
    """A comparison repeats what the suppression analysis said of each model; the reader needs it once."""
    if not any(part["kind"] == "suppression" for part in sections):
        return
    for part in sections:
        if part["kind"] == "comparison":
            part["sentences"] = [
                s for s in part["sentences"] if "suppression index" not in s or " minus " in s
            ]


def _unique_ids(sections: Sequence[dict[str, Any]]) -> None:
    seen: dict[str, int] = {}
    for part in [p for s in sections for p in (s, *s["figures"])]:
        seen[part["id"]] = seen.get(part["id"], 0) + 1
        if seen[part["id"]] > 1:
            part["id"] += f"-{seen[part['id']]}"
