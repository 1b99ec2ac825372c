"""What a section of the report is made of; plain dicts, so that the JSON beside the report is the report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd
    from plotly.graph_objects import Figure


def section(title: str, **parts: Any) -> dict[str, Any]:
    """A section: title, and any of lead, sentences, figures, tables, notes, details."""
    empty: dict[str, Any] = {"lead": "", "sentences": [], "figures": [], "tables": [], "notes": []}
    return {"id": slug(title), "title": title, **empty, **parts}


def figure(
    spec: Figure | alt.TopLevelMixin, *, name: str, caption: str, alt: str | None = None
) -> dict[str, Any]:
    """A figure with a deterministic id.

    Args:
        spec: an Altair chart, or a plotly figure.
        name: of the figure, for its id.
        caption: below it.
        alt: what it shows, in words; default: the chart's own description.
    """
    from .embed import figure_json

    told = {"id": f"figure-{slug(name)}", "caption": caption}
    if hasattr(spec, "to_plotly_json"):
        return {**told, "alt": alt or caption, "plotly": json.loads(spec.to_json())}
    vega = figure_json(spec)
    return {**told, "alt": alt or vega.get("description", caption), "vega": vega}


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
    from .collect import missing, number

    def cell(value: Any) -> str:
        if isinstance(value, bool) or (isinstance(value, int) and not isinstance(value, float)):
            return str(value)
        if isinstance(value, float):
            return number(value, 4)
        return "–" if missing(value) else str(value)

    shown = frame.head(limit).astype(object)
    rows = [[cell(v) for v in record] for record in shown.itertuples(index=False)]
    if len(frame) > limit:
        caption += f" (the first {limit} of {len(frame):,} rows; all of them are in the Parquet file)"
    return table([str(c) for c in frame.columns], rows, caption=caption, folded=folded)
