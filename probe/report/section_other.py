"""Any other kind of result: its own sentences, its own figure, its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...analyses.result.contrasts import joined_contrasts
from ...hooks.errors import LayerprobeError
from .collect import Entry, number, where_words, words
from .parts import figure, frame_table, section
from .plots import restyled

TITLES = {
    "aqi": "Alignment Quality Index",
    "alignment_quality": "Alignment Quality Index",
    "drift": "Drift between two reference clusters",
    "behaviour": "What the models answer",
    "attribution": "Which parts write the answer?",
    "ablation": "Which parts cause it?",
    "patching": "Where does it pass through?",
    "patching_causal": "Which parts cause it?",
    "topic_control": "How much of the separation is topic?",
    "unsupervised": "Structure without labels",
    "similarity": "Similarity of representations",
    "linear_probe_curves": "How much data does a probe of {label} need?",
    "linear_probe_transfer": "Does a probe of {label} hold from one {across} to another?",
    "leave_one_domain_out": "Does a probe of {label} hold on a {domain} it has not seen?",
    "selectivity": "Does a probe read {label}, or remember words?",
    "preferences": "What does the reward rest on?",
    "refusal_direction": "Is there one direction of refusal?",
    "comparison_factorial": "Is it the tuning or the template?",
    "comparison_readout": "Which words does the difference point to?",
}
FRAMES = {
    "patching_causal": (
        ("verdicts", "every part: what it writes, what restoring it brings back alone, and what others do"),
    ),
    "comparison_readout": (("tokens", "tokens that the mean difference points to, by layer"),),
    "patching": (("paths", "single paths between the parts that do most, and from them to the logits"),),
}


def other_sections(entries: Sequence[Entry], names: Sequence[str]) -> list[dict[str, Any]]:
    """One section per result."""
    return [_section(entry, len(entries) > 1) for entry in entries]


def _section(entry: Entry, several: bool) -> dict[str, Any]:
    title = _title(entry)
    if several and entry.models:
        title += f": {', '.join(entry.models)}"
    figures = []
    try:
        # attribution is drawn below, one map per kind of prompt
        drawn = None if entry.result.kind == "attribution" else restyled(entry.result.plot())
    except LayerprobeError:
        drawn = None
    sentences = entry.sentences()
    if drawn is not None:
        caption = f"{title}" + (f", {where_words(entry.options)}" if entry.options.get("where") else "")
        figures.append(
            figure(drawn, name=entry.name, caption=caption, alt=" ".join(sentences[:3]) or caption)
        )
    figures += _component_maps(entry, title)
    tables = [
        frame_table(entry.result.frames[frame], caption=f"{entry.name}: {said}", folded=False)
        for frame, said in FRAMES.get(entry.result.kind, ())
        if frame in entry.result.frames
    ]
    tables.append(frame_table(entry.result.table, caption=f"{entry.name}: every row"))
    return section(title, id=f"{entry.name.lower()}", sentences=sentences, figures=figures, tables=tables)


def _title(entry: Entry) -> str:
    """The question of a section, with the columns that it is about."""
    title = TITLES.get(entry.result.kind, words(entry.result.kind).capitalize())
    label = str(entry.options.get("label", "the label"))
    named = {"label": f"“{label}”", **{k: str(entry.options.get(k, k)) for k in ("across", "domain")}}
    return title.format(**named)


def _component_maps(entry: Entry, title: str) -> list[dict[str, Any]]:
    """Layer × head maps of attribution and patching, one per kind of prompt."""
    frame = entry.result.frames.get("map")
    frame = frame if frame is None else joined_contrasts(frame)
    if entry.result.kind not in UNITS or frame is None or not len(frame):
        return []
    from ...analyses.causes.attribution import component_map

    unit = UNITS[entry.result.kind]
    parts = frame.groupby("subset", sort=False) if "subset" in frame else [("all", frame)]
    maps = []
    for subset, part in list(parts)[:3]:
        where = "all prompts" if subset == "all" else str(subset)
        most = part.iloc[int(part["estimate"].abs().to_numpy().argmax())]
        maps.append(
            figure(
                restyled(component_map(part, f"{title} {where}", unit)),
                name=f"{entry.name} map {subset}",
                caption=f"{title} By layer and part, in {unit}; {where}.",
                alt=f"{where}: the largest is {most['component']}, {number(most['estimate'], 2)} {unit}.",
            )
        )
    return maps


UNITS = {"attribution": "logits", "patching": "recovery"}
