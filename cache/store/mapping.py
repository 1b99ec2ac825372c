"""One read-only map per store file, made when rows are first asked for, given up when many files are open.

Under `reader`. A map made later must be of the file that was opened: a file captured again under the same
name in the meantime has other rows at the same places.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.faults import cannot_read
from ..file.guarded import Stamp, open_for_reading
from ..file.journal import fingerprint
from ..file.layout import ArraySpec
from ..file.opening import FileLayout, read_layout

#: files that stay mapped at once: each map takes a file handle, of which a process has 1,024
MOST_MAPS = 128

_lock = threading.Lock()
_recent: OrderedDict[int, weakref.ref[FileMap]] = OrderedDict()


class FileMap:
    """The bytes of a store file. Pages come in when touched and are shared between processes."""

    def __init__(self, layout: FileLayout, *, complete: bool, seen: str) -> None:
        self._layout = layout
        self._path = layout.path.absolute()  # the working directory may change before anything is read
        self._complete = complete
        self._seen = seen
        """The file's fingerprint as it was opened."""
        self._bytes: np.ndarray | None = None

    def array(self, spec: ArraySpec, *, private: bool = False) -> np.ndarray:
        """[layers, rows, *shape] of an array of the header.

        Args:
            spec: the array.
            private: a map of its own, copied on write: what its owner changes reaches neither the file nor
                other readers. Else it cannot be written to.
        """
        shape = (spec.n_layers, self._layout.n_rows, *spec.shape)
        return self.values(spec.key, shape, spec.storage, private=private)

    def values(
        self, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, private: bool = False
    ) -> np.ndarray:
        """A dataset that is written by offset."""
        count = math.prod(shape) * dtype.itemsize
        if not count:
            return np.empty(shape, dtype=dtype)
        offset = self._layout.offsets[key]
        held = self._mapped(mmap.ACCESS_COPY) if private else self._whole()
        return held[offset : offset + count].view(dtype).reshape(shape)

    def _whole(self) -> np.ndarray:
        held = self._bytes
        if held is None:
            held = self._bytes = self._mapped(mmap.ACCESS_READ)
        _use(self)
        return held

    def _mapped(self, access: int) -> np.ndarray:
        try:
            descriptor = open_for_reading(self._path)
        except LayerprobeError as error:
            if self._path.exists():
                raise
            raise LayerprobeError(
                f"{self._path} was deleted or moved after it was opened: open_store(...) where it is now"
            ) from error
        try:
            self._check_same(descriptor)
            return np.frombuffer(mmap.mmap(descriptor, 0, access=access), dtype=np.uint8)
        except OSError as error:
            raise cannot_read(self._path, error) from error
        finally:
            os.close(descriptor)

    def _check_same(self, descriptor: int) -> None:
        """Refuse another file under the same name; a file that was only touched, or put back, is the same."""
        now, then = Stamp.of(descriptor), self._layout.stamp
        same = (now.device, now.inode, now.size) == (then.device, then.inode, then.size)
        if same and (now.changed_ns == then.changed_ns or not self._complete):
            return  # a file that is not finished changes while it is captured
        again = read_layout(self._path)
        moved = again.offsets != self._layout.offsets or again.header != self._layout.header
        if moved or fingerprint(again, descriptor) != self._seen:
            raise LayerprobeError(
                f"{self._path} is not the file that was opened: it was replaced or changed since; "
                f"open_store(...) again"
            )


def _use(one: FileMap) -> None:
    """Note a use, and give up the map that was used longest ago where there are too many."""
    with _lock:
        _recent[id(one)] = weakref.ref(one)
        _recent.move_to_end(id(one))
        while len(_recent) > MOST_MAPS:
            _, oldest = _recent.popitem(last=False)
            held = oldest()
            if held is not None:
                held._bytes = None  # arrays that were handed out keep the map for themselves
