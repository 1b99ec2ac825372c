"""What the file system or HDF5 says, as one line that names the file, tells damage from circumstance and says
what to do next.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...hooks.errors import LayerprobeError


class Unreadable(LayerprobeError):
    """A file that cannot be read now: nothing is known of its bytes."""


#: errors of the machine or of permissions: they say nothing of the file's bytes
_CIRCUMSTANCES = {
    errno.EMFILE: "this process has too many files open: close some, or raise the limit (ulimit -n)",
    errno.ENFILE: "the machine has too many files open: try again later",
    errno.ENOMEM: "there is no memory left: free some and try again",
    errno.EACCES: "permission denied: ask for the right to it",
    errno.EPERM: "permission denied: ask for the right to it",
    errno.EIO: "the disk reports an error (EIO): look at the disk first, the file may be sound",
    errno.ESTALE: "the network file system has lost it (ESTALE): mount it again",
    errno.ELOOP: "its path is a loop of links: mend the links",
    errno.ENAMETOOLONG: "its name is too long: choose a shorter one",
    errno.EROFS: "the file system is read-only: choose another folder",
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: the place of whatever concerns the file as a whole
STRUCTURE = "its HDF5 structure"

#: what h5py raises where a file's structure is not what HDF5 expects
_HDF5 = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)


def errno_of(error: BaseException) -> int | None:
    """The error number behind an error, also where HDF5 mentions it only in its text."""
    known = getattr(error, "errno", None)
    if known:
        return int(known)
    found = re.search(r"errno = (\d+)", str(error))
    return int(found[1]) if found else None


def cannot_read(path: Path, error: OSError) -> Unreadable:
    """What to say when the file system refuses to give a file."""
    number = errno_of(error)
    if number == errno.ENOENT:
        return Unreadable(
            f"no store at {path}: check the path, or make it with capture(..., path={str(path)!r})"
        )
    why = _CIRCUMSTANCES.get(number or 0)
    if why is None:
        why = f"{os.strerror(number) if number else short(error)}: try again, or restore it"
    return Unreadable(f"cannot read {path}: {why}")


def cannot_write(path: Path, error: BaseException) -> LayerprobeError:
    """What to say when the file system refuses to take a file."""
    number = errno_of(error)
    if number in _NO_SPACE:
        return LayerprobeError(
            f"no space for {path} ({os.strerror(number or 0)}): free some or choose another disk; "
            f"what is committed stays, and the same command resumes"
        )
    if number in (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM):
        return LayerprobeError(
            f"cannot write {path}: {_CIRCUMSTANCES[number]}; then the same command resumes"
        )
    why = os.strerror(number) if number else short(error)
    return LayerprobeError(f"cannot write {path} ({why}): choose a folder that can be written")


def damaged(path: Path, place: str, why: str) -> LayerprobeError:
    """What to say of a file whose bytes are not what they must be."""
    return LayerprobeError(
        f"{path} is damaged: {place} {why}; restore the file, or delete it and capture again"
    )


@contextmanager
def hdf5_guarded(path: Path, place: str) -> Iterator[None]:
    """Around calls to h5py alone: what HDF5 says of a damaged structure becomes a refusal with the place.

    Errors of our own code are none of these and must not be raised inside.
    """
    try:
        yield
    except LayerprobeError:
        raise
    except _HDF5 as error:
        if errno_of(error) in (*_CIRCUMSTANCES, errno.ENOENT):
            raise cannot_read(path, error if isinstance(error, OSError) else OSError(*error.args)) from error
        if place == STRUCTURE:
            raise LayerprobeError(
                f"{path} is not a readable HDF5 file ({short(error)}): truncated, damaged or something else; "
                f"restore it, or delete it and capture again"
            ) from error
        raise damaged(path, place, f"cannot be read ({short(error)})") from error


def short(error: BaseException) -> str:
    """The first line of an error."""
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
