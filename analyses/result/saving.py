"""Pictures on disk and in notebooks: SVG, PDF, PNG, JSON and HTML without a browser."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ...hooks.errors import LayerprobeError
from .pdf_bytes import in_order
from .theme import Theme, themed

AnyChart = TypeVar("AnyChart")

if TYPE_CHECKING:
    import altair as alt

FORMATS = (".svg", ".pdf", ".png", ".json", ".html")


def specification(chart: "alt.TopLevelMixin", theme: Theme = "light") -> dict[str, Any]:
    """The chart as a Vega-Lite specification in a theme; whatever theme Altair itself has is not applied."""
    import altair as alt

    with alt.theme.enable("none"):
        return themed(chart.to_dict(validate=False), theme)


def to_svg(chart: "alt.TopLevelMixin", theme: Theme = "print") -> str:
    """The chart as SVG, nothing fetched.

    Args:
        chart: from one of the functions in `charts`.
        theme: `light`, `dark` or `print`.
    """
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(specification(chart, theme), allowed_base_urls=[])
    return svg


def save_figure(chart: "alt.TopLevelMixin", path: str | Path, *, theme: Theme = "print") -> Path:
    """Write a picture; its format is the ending of its name.

    Args:
        chart: from one of the functions in `charts`.
        path: ending in `.svg`, `.pdf` (vectors, fonts embedded), `.png` (twice the size in pixels), `.json`
            (Vega-Lite) or `.html` (interactive, opens offline).
        theme: `print` (black on white), `light` or `dark`.

    Returns:
        The path.

    Raises:
        LayerprobeError: an ending of no known format, or a folder that does not exist.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise LayerprobeError(f"{path.name!r} ends in no known format; name it *{', *'.join(FORMATS)}")
    if not path.parent.is_dir():
        raise LayerprobeError(f"there is no folder {str(path.parent)!r} to write {path.name!r} into")
    path.write_bytes(_bytes(chart, ending, theme))
    return path


def _bytes(chart: "alt.TopLevelMixin", ending: str, theme: Theme) -> bytes:
    import vl_convert

    spec = specification(chart, theme)
    if ending == ".json":
        return (json.dumps(spec, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    if ending == ".html":
        page: str = vl_convert.vegalite_to_html(spec, bundle=True)
        return page.encode()
    if ending == ".pdf":
        return in_order(vl_convert.svg_to_pdf(to_svg(chart, theme)))
    if ending == ".png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=2.0, allowed_base_urls=[]))
    return to_svg(chart, theme).encode()


def notebook_bundle(chart: "alt.TopLevelMixin") -> dict[str, Any]:
    """The chart for a notebook, offline: Vega-Lite for those that draw it themselves, SVG for all others."""
    import altair as alt

    version = alt.SCHEMA_VERSION.lstrip("v").split(".")[0]
    spec = specification(chart, "light")
    return {
        f"application/vnd.vegalite.v{version}+json": {**spec, "background": "#ffffff"},
        "image/svg+xml": to_svg(chart, "print"),
        "text/plain": str(spec.get("description", "a chart")),
    }


def offline(chart: AnyChart) -> AnyChart:
    """The same chart, which shows itself by `notebook_bundle`: Altair's own renderer fetches its scripts.

    Charts made from it (`chart.properties(…)`) do as well.
    """
    kind = type(chart)
    if not kind.__dict__.get("_shown_offline"):
        shows = {"_repr_mimebundle_": _shown, "_shown_offline": True, "__module__": kind.__module__}
        object.__setattr__(chart, "__class__", type(kind.__name__, (kind,), shows))
    return chart


def _shown(chart: "alt.TopLevelMixin", *args: Any, **kwargs: Any) -> dict[str, Any]:
    return notebook_bundle(chart)
