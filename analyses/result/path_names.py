"""Names that become paths: what a file says is looked at before it is one."""

import re
from pathlib import Path

from ...hooks.errors import LayerprobeError

LONGEST = 200  # bytes; endings come to it, and file systems take 255


def plain_name(name: str, where: str | Path) -> str:
    """The name, which is the stem of a file and nothing else: letters, digits, `-` and `_`.

    Args:
        name: what was read.
        where: the file that says it, for the message.

    Raises:
        LayerprobeError: it could lead elsewhere.

    >>> plain_name("separation-y-base", "manifest.json")
    'separation-y-base'
    """
    if not re.fullmatch(r"\w[\w-]*", name) or len(name.encode()) > LONGEST:
        shown = repr(name if len(name) < 60 else name[:60] + "…")
        raise LayerprobeError(
            f"{where} names {shown}, which is no plain name of a result (letters, digits, - and _); "
            "if you did not write that, do not trust the folder: start again in another"
        )
    return name
