"""The per-layer report: one HTML file that opens offline, and the same as JSON."""

from pathlib import Path
from typing import Any


def write_report(out: str | Path) -> Path:
    """Write `report.html` and `results.json` from the results in a folder.

    Args:
        out: folder with `results/`, as a study or an analysis on the command line leaves it.

    Returns:
        The path of the HTML file.

    Raises:
        LayerprobeError: there are no results in the folder.
    """
    import json

    from ..results.folder import write_whole
    from .render import render
    from .summarise import summarise

    out = Path(out)
    report = summarise(out)
    write_whole(out / "results.json", json.dumps(without_figures(report), indent=1, ensure_ascii=False))
    write_whole(out / "report.html", render(report))
    return out / "report.html"


def read_findings(out: str | Path) -> list[str]:
    """The sentences at the top of the report in a folder."""
    import json

    report = json.loads((Path(out) / "results.json").read_text(encoding="utf-8"))
    return [finding["sentence"] for finding in report["findings"]]


def without_figures(report: dict[str, Any]) -> dict[str, Any]:
    """The report without drawing instructions: captions and numbers stay, their Vega-Lite goes."""
    sections = []
    for part in report["sections"]:
        figures = [{k: v for k, v in f.items() if k != "vega"} for f in part["figures"]]
        sections.append({**part, "figures": figures})
    return {**report, "sections": sections}
