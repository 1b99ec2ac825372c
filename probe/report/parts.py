"""What a section of the report is made of; plain dicts, so that the JSON beside the report is the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ...analyses.result.words import missing, number

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd


def section(title: str, **parts: Any) -> dict[str, Any]:
    """A section: title, and any of lead, sentences, figures, tables, notes, details."""
    empty: dict[str, Any] = {"lead": "", "sentences": [], "figures": [], "tables": [], "notes": []}
    return {"id": slug(title), "title": title, **empty, **parts}


def figure(chart: alt.TopLevelMixin, *, name: str, caption: str) -> dict[str, Any]:
    """An Altair chart with a deterministic id; its description says in words what the picture shows."""
    from .embed import figure_json

    vega = figure_json(chart)
    alternative = vega.get("description", caption)
    return {"id": f"figure-{slug(name)}", "caption": caption, "alt": alternative, "vega": vega}


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str, folded: bool = False
) -> dict[str, Any]:
    """A table of text cells; the first column heads its row."""
    return {"columns": list(columns), "rows": [list(r) for r in rows], "caption": caption, "folded": folded}


def slug(text: str) -> str:
    """A name for an id in HTML.

    >>> slug("Linear probes: is it *sensitive*?")
    'linear-probes-is-it-sensitive'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def frame_table(
    frame: pd.DataFrame, *, caption: str, limit: int = 400, folded: bool = True
) -> dict[str, Any]:
    """A data frame as it is, numbers shortened."""

    def cell(value: Any) -> str:
        if isinstance(value, bool) or (isinstance(value, int) and not isinstance(value, float)):
            return str(value)
        if isinstance(value, float):
            return number(value)
        return "–" if missing(value) else str(value)

    shown = frame.head(limit).astype(object)
    rows = [[cell(v) for v in record] for record in shown.itertuples(index=False)]
    if len(frame) > limit:
        caption += f" (the first {limit} of {len(frame):,} rows; all of them are in the Parquet file)"
    return table([str(c) for c in frame.columns], rows, caption=caption, folded=folded)
