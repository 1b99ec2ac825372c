"""Files written whole or not at all, and what goes wrong with a disk in one line."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...hooks.errors import LayerprobeError

_SAYS = {
    errno.ENOSPC: "no space left on its disk; free some and run again: what is finished is kept",
    errno.EDQUOT: "the disk quota is used up; free some and run again: what is finished is kept",
    errno.EACCES: "it may not be written by this user; name another --out",
    errno.EPERM: "it may not be written by this user; name another --out",
    errno.EROFS: "its disk is read-only; name another --out",
    errno.EMFILE: "this process has too many files open; raise `ulimit -n`",
    errno.ENFILE: "this machine has too many files open",
    errno.ENOTDIR: "a file stands where a folder should be; name another --out",
    errno.EEXIST: "a file stands where a folder should be; name another --out",
    errno.ENAMETOOLONG: "its name is too long for this disk",
}


def system_error(error: OSError, path: str | Path | None = None) -> str:
    """What the operating system refused, in one line: the place, the reason, the way out.

    >>> system_error(OSError(errno.EROFS, "Read-only file system", "/cd/report.html"))
    '/cd/report.html: its disk is read-only; name another --out'
    """
    place = path or error.filename or "a file"
    reason = _SAYS.get(error.errno or 0, f"it could not be written ({error.strerror or error})")
    return " ".join(f"{place}: {reason}".split())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses while `path` is written into a `LayerprobeError`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise LayerprobeError(system_error(error, path)) from error


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it: readers see the old one or the new one.

    Raises:
        LayerprobeError: the disk is full or read-only, or a file stands where a folder should be.
    """
    draft = path.with_name(f".{path.name[:100]}-{secrets.token_hex(4)}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(draft, "x", encoding="utf-8") as file:  # with the rights that the umask leaves
                file.write(text)
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
