"""How every picture looks: one theme in light, dark and print, and colours that mean one thing.

Pictures are written in the colours of the light theme; `themed` gives the same picture another theme, by
exchanging colours one for one. Colours are told apart by the colour-blind (Okabe and Ito's, darkened where
they are too pale for a line on white).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

Theme = Literal["light", "dark", "print"]

PANEL = (260, 180)
"""Width and height of one facet in pixels."""
SINGLE = (460, 260)
"""Width and height of a picture of one panel in pixels."""
FACET_COLUMNS = 4
MANY_FACETS = 12
"""With more panels than this nobody compares curves; draw a map."""

SCREEN_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif'
PRINT_FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
"""vl-convert carries Liberation Sans, so that a saved file looks the same from every machine."""

# light, dark: the same meaning on white and on near black
_MODELS = (
    ("#0072b2", "#4ea8e0"),
    ("#d55e00", "#f28a3c"),
    ("#00855f", "#2cc199"),
    ("#b4518f", "#dd8cbd"),
    ("#8a6d00", "#d9b13b"),
    ("#5b4fb0", "#9d94ea"),
    ("#2a93a8", "#6fd0e2"),
    ("#7a4a2b", "#c79570"),
)
_OTHER = (
    ("#44607a", "#9db8d0"),
    ("#aa3377", "#e07fb2"),
    ("#228833", "#6cc878"),
    ("#c27a00", "#f0b24e"),
    ("#66458c", "#b79ad8"),
    ("#a23b3b", "#e58a8a"),
    ("#1f8a8a", "#66caca"),
    ("#6b6b2f", "#bcbc74"),
)
INK, SOFT, FAINT, SURFACE = "#1b1f24", "#59636e", "#dfe4e9", "#ffffff"
CHANCE = "#59646f"
"""Of chance, zero and other levels that mean “nothing”."""
NULL = "#8b949e"
"""Of the band in which scores lie when there is nothing to find."""
BASELINE = "#7d5a3c"
"""Of what is known without the model's activations: bag of words, prompt length."""
UNTRUSTED = "#c9ced4"
"""Of layers whose numbers are not to be quoted."""
_DARK = {
    INK: "#e6e9ed",
    SOFT: "#9aa4af",
    FAINT: "#2b3138",
    SURFACE: "#14171b",
    CHANCE: "#aab4be",
    NULL: "#6f7983",
    BASELINE: "#c9a184",
    UNTRUSTED: "#4a525b",
    **dict(_MODELS),
    **dict(_OTHER),
}
SEQUENTIAL = ("#eef4fa", "#bdd7ec", "#73b2d8", "#2b7bba", "#0c4a8a", "#062a57")
DIVERGING = ("#1f5fa8", "#6ea6d4", "#c6ddee", "#f5f5f4", "#f8d2bd", "#e08a62", "#a83a1c")
_SEQUENTIAL_DARK = ("#1d2630", "#1f4265", "#27659b", "#4290cc", "#86bfe8", "#d8ecfb")
_DIVERGING_DARK = ("#8cc4f5", "#4e8fca", "#2a5075", "#262b31", "#73402c", "#c5683f", "#ffab85")
ORDERED = ("#2d1e5f", "#35488f", "#2b7b8f", "#2f9e78", "#6fb83f", "#c9b300")
"""Early to late, for lines: no step too pale for white."""
_ORDERED_DARK = ("#8f7fe0", "#6f9bee", "#48b8cc", "#4cc99a", "#9bd86a", "#f0dc4e")


def colours(names: Sequence[str], kind: Literal["model", "other"] = "model") -> dict[str, str]:
    """A colour for each name, by its place in the list.

    Args:
        names: of models, always the whole list of a study in its order, so that a model keeps its colour in
            every picture; or of anything else that is told apart by colour.
        kind: names of models have colours of their own, which nothing else has.

    Returns:
        Hexadecimal colours of the light theme.

    >>> colours(["base", "instruct"])
    {'base': '#0072b2', 'instruct': '#d55e00'}
    """
    pairs = _MODELS if kind == "model" else _OTHER
    return {name: pairs[i % len(pairs)][0] for i, name in enumerate(dict.fromkeys(names))}


def themed(spec: Mapping[str, Any], theme: Theme = "light") -> dict[str, Any]:
    """A Vega-Lite specification in one of the themes.

    Args:
        spec: as `Chart.to_dict()` gives it.
        theme: `light` or `dark` for screens, `print` for paper.
    """
    drawn = recoloured(spec, _DARK) if theme == "dark" else dict(spec)
    return {**drawn, "config": config(theme)}


def dark_colours() -> dict[str, str]:
    """Colours of the light theme and what stands for each in the dark one."""
    return dict(_DARK)


def recoloured(value: Any, exchange: Mapping[str, str]) -> Any:
    """The specification with its colours exchanged; data, names and texts stay as they are.

    >>> recoloured({"color": "#000000", "size": [1, "#000000"]}, {"#000000": "#ffffff"})
    {'color': '#ffffff', 'size': [1, '#ffffff']}
    """
    if isinstance(value, str):
        return exchange.get(value, value)
    if isinstance(value, Mapping):
        return {k: part if k in UNCOLOURED else recoloured(part, exchange) for k, part in value.items()}
    if isinstance(value, list | tuple):
        return [recoloured(part, exchange) for part in value]
    return value


def with_models(spec: Any, names: Sequence[str]) -> Any:
    """The specification with the colours that models have among all of a study's models.

    A picture of one model alone is drawn in the first colour; in a report of several it takes its own.

    Args:
        spec: as `Chart.to_dict()` gives it.
        names: of all models, in the order of the study.
    """
    known = colours(names)
    if isinstance(spec, list):
        return [with_models(part, names) for part in spec]
    if not isinstance(spec, dict):
        return spec
    spec = {key: part if key in _DATA else with_models(part, names) for key, part in spec.items()}
    domain = spec.get("domain")
    if isinstance(domain, list) and domain and "range" in spec and _all_in(domain, known):
        first = set(colours(domain).values())
        if set(spec["range"]) <= first:
            spec["range"] = [known[name] for name in domain]
    return spec


_DATA = ("values", "datasets")
UNCOLOURED = (*_DATA, "domain", "sort", "text", "title", "subtitle", "description", "labelExpr")
"""Keys of a specification that hold names and texts, never colours."""


def _all_in(domain: Iterable[Any], known: Mapping[str, str]) -> bool:
    return all(isinstance(name, str) and name in known for name in domain)


def config(theme: Theme = "light") -> dict[str, Any]:
    """The theme as a Vega-Lite `config`."""
    dark = theme == "dark"
    ink, soft, faint = (_DARK[c] if dark else c for c in (INK, SOFT, FAINT))
    if theme == "print":
        ink, soft = "#000000", "#3a3f45"
    font = PRINT_FONT if theme == "print" else SCREEN_FONT
    sequential = _SEQUENTIAL_DARK if dark else SEQUENTIAL
    text = {"labelFont": font, "titleFont": font, "labelColor": soft, "titleColor": ink}
    return {
        "background": _DARK[SURFACE] if dark else SURFACE,
        "font": font,
        "padding": 6,
        "mark": {
            "aria": False
        },  # the description tells the shape; hundreds of points read aloud tell nothing
        "view": {"stroke": None, "continuousWidth": SINGLE[0], "continuousHeight": SINGLE[1]},
        "axis": {
            **text,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "grid": True,
            "gridColor": faint,
            "gridWidth": 0.8,
            "domain": False,
            "tickColor": faint,
            "tickSize": 4,
            "labelPadding": 3,
        },
        "axisX": {"grid": False, "domain": True, "domainColor": soft, "domainWidth": 0.8, "tickColor": soft},
        "header": {
            **text,
            "labelColor": ink,
            "labelFontSize": 12,
            "labelFontWeight": 600,
            "labelLimit": PANEL[0],
            "labelPadding": 6,
            "title": None,
            "labelAnchor": "start",
        },
        "legend": {
            **text,
            "labelColor": ink,
            "labelFontSize": 11.5,
            "titleFontSize": 11.5,
            "titleFontWeight": "normal",
            "titleColor": soft,
            "symbolStrokeWidth": 2.4,
            "symbolOpacity": 1,
            "labelLimit": 260,
            "columnPadding": 16,
        },
        "title": {
            "font": font,
            "fontSize": 14,
            "fontWeight": 600,
            "color": ink,
            "anchor": "start",
            "frame": "group",
            "offset": 12,
            "subtitleFont": font,
            "subtitleFontSize": 11.5,
            "subtitleColor": soft,
            "subtitlePadding": 4,
        },
        "text": {"font": font, "fontSize": 11},
        "line": {"strokeWidth": 2, "strokeJoin": "round", "strokeCap": "round"},
        "facet": {"spacing": {"row": 26, "column": 22}, "columns": FACET_COLUMNS},
        "concat": {"spacing": 26},
        "range": {
            "category": [pair[dark] for pair in _MODELS],
            "diverging": list(_DIVERGING_DARK if dark else DIVERGING),
            "heatmap": list(sequential),
            "ramp": list(sequential),
            "ordinal": list(_ORDERED_DARK if dark else ORDERED),
        },
    }
