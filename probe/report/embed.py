"""Pictures in the page: Vega's JavaScript once, each picture as JSON, nothing fetched and nothing evaluated.

The page draws with vega-embed's `ast` option: expressions are interpreted, so that the page's policy needs
no `unsafe-eval`. Pictures come in the light theme; the page changes their colours for the dark one.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt


def figure_json(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """The chart as the page takes it: Vega-Lite without a theme, which the page holds once for all."""
    from ...analyses.result.saving import specification

    spec = specification(chart, "light")
    return {key: value for key, value in spec.items() if key != "config"}


@cache
def bundle() -> str:
    """JavaScript that defines `vegaEmbed` and the themes of the page; to stand in one script element."""
    import vl_convert

    library = (
        vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        .replace("</script", "<\\/script")
        .replace("<!--", "<\\!--")
    )
    return f"(function () {{\n{library}\n}})();\nwindow.layerprobeThemes = {script_json(page_themes())};"


def page_themes() -> dict[str, Any]:
    """The two themes without a background of their own, and the colours to exchange for the dark one."""
    from ...analyses.result.theme import UNCOLOURED, config, dark_colours

    themes = {name: {**config(name), "background": "transparent"} for name in ("light", "dark")}
    return {**themes, "exchange": dark_colours(), "keep": list(UNCOLOURED)}


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in.

    >>> script_json({"a": "</script>"})
    '{"a": "\\\\u003c/script\\\\u003e"}'
    """
    text = json.dumps(value, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
