"""New files: made under a temporary name, on disk before they have their own, whole or not there at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from ...hooks.errors import LayerprobeError
from .faults import cannot_write
from .layout import LIBVER


@contextmanager
def new_file(path: Path, fill: Callable[[h5py.File], None]) -> Iterator[Path]:
    """An HDF5 file under a temporary name beside `path`, closed; what is left of it goes when the block ends.

    Args:
        path: what it is to be called.
        fill: writes its contents.

    Raises:
        LayerprobeError: the folder cannot be written, the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        _fill(temporary, fill)
        yield temporary
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _fill(temporary: Path, fill: Callable[[h5py.File], None]) -> None:
    """HDF5 may say what went wrong only as it closes, and then in words of its own."""
    try:
        with h5py.File(temporary, "w", libver=LIBVER, locking=False) as file:
            fill(file)
    except RuntimeError as error:
        raise OSError(*error.args) from error


def sync_folder(folder: Path) -> None:
    """Make a new name last: a rename is only on disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def give_name(temporary: Path, path: Path) -> None:
    """Give a file its name, unless another has it.

    Raises:
        LayerprobeError: another process has just made a file of this name.
    """
    try:
        os.link(temporary, path)  # unlike a rename, never over a file that another process has just made
    except FileExistsError:
        raise LayerprobeError(
            f"{path} has just been made by another process: run the same command again"
        ) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        os.rename(temporary, path)


def remove_leftovers(path: Path) -> None:
    """Temporary files of processes that died while making this file."""
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        owner = leftover.name.split(".")[-2]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists() and Path("/proc").exists():
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
