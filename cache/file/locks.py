"""One writer per file: a lock on the file itself that ends with the process that holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from ...hooks.errors import LayerprobeError


def lock_exclusively(descriptor: int, path: Path) -> None:
    """Take the writer's lock, or say who cannot have it.

    On Linux an open-file-description lock: it leaves HDF5's own `flock` to readers, survives the closing of
    other descriptors of the same file in this process, and goes when the process goes, however it ends.

    Raises:
        LayerprobeError: another process is writing this file.
    """
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            # struct flock: type, whence, start, length (0: to the end), pid (0 for these locks)
            request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise LayerprobeError(
                f"another process is writing {path}: wait for it (the same command then returns at once), "
                f"or capture to another path"
            ) from None
        if error.errno in (errno.ENOLCK, errno.EINVAL, errno.ENOTSUP):
            return  # a file system without locks: nothing to enforce with
        raise
