"""The plain dict as one HTML page; everything from outside is escaped, nothing is fetched."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .embed import bundle, script_json

TEMPLATES = Path(__file__).parent / "templates"


def render(report: dict[str, Any]) -> str:
    """The report as one self-contained HTML file.

    Args:
        report: from `summarise`. Titles, labels, prompts and model names in it are treated as hostile.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    from ...analyses.result.theme import with_models

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["numbers"] = numbers
    environment.filters["unbroken"] = unbroken
    figures = {f["id"]: f["vega"] for s in report["sections"] for f in s["figures"]}
    figures = {name: with_models(spec, report["models"]) for name, spec in figures.items()}
    page = environment.get_template("report.html.j2").render(
        report=report,
        facts=report["facts"],
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
        library=Markup(bundle()) if figures else "",
        figures=Markup(script_json(figures)),
    )
    return page


def unbroken(cell: str) -> str:
    """A cell whose intervals and places stay on one line, so that it can break before them.

    >>> unbroken("0.90 [0.85, 0.95] at layer 3").replace("\\u00a0", "_")
    '0.90 [0.85,_0.95] at layer_3'
    """
    cell = re.sub(r"\[([^\[\]\s]+), ([^\[\]\s]+)\]", "[\\1,\u00a0\\2]", cell)
    return re.sub(r"\b(layers?|z|p) (?=[\d−-])", "\\1\u00a0", cell)


def numbers(sentence: str) -> Any:
    """The sentence with its numbers set in bold, one minus sign for all; the rest escaped.

    >>> str(numbers("index -0.05 [-0.14, 0.08] at resid_post[6]"))
    'index <b>−0.05</b> [<b>−0.14</b>, <b>0.08</b>] at resid_post[6]'
    """
    from markupsafe import Markup, escape

    found = re.compile(r"(?<![\w.])(?<!\w\[)([-−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+−]?\d+)?(?:\s?%)?)(?![\w])")
    parts = found.split(re.sub(r"(?<![\w.])-(?=\d)", "−", sentence))
    return Markup("").join(Markup("<b>{}</b>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))
