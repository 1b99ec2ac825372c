"""One guarded way to read a file that may be anything: no byte is believed, and no memory taken, before it is
checked.

Under `opening` (stores) and `store.manifest` (indexes): nothing else in the library opens a store with h5py.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from ...hooks.errors import LayerprobeError
from .faults import STRUCTURE, Unreadable, cannot_read, damaged, hdf5_guarded, short
from .layout import bfloat16_type, checksum

#: most bytes of a text attribute; ours have some hundreds
_ATTRIBUTE = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """Which file this is, and in which state, as the file system tells."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Stamp:
        """The stamp of an open file."""
        found = os.fstat(descriptor)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class Place:
    """Where a dataset lies, checked: inside the file, in one piece, by no link but a hard one of its own."""

    key: str
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """bfloat16 as uint16."""
    bfloat16: bool

    @property
    def stop(self) -> int:
        """Where its bytes end."""
        return self.offset + self.n_bytes

    @property
    def n_bytes(self) -> int:
        """Its size."""
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


def open_for_reading(path: Path) -> int:
    """A descriptor of an ordinary file.

    Raises:
        LayerprobeError: there is none, it cannot be read, or it is no ordinary file.
    """
    try:
        # never waits: a FIFO without a writer would
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_read(path, error) from error
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise Unreadable(f"{path} is a folder, expected a store file such as {path / 'activations.h5'}")
    raise Unreadable(f"{path} is no ordinary file (a pipe, socket or device): give a store file")


class GuardedFile:
    """An HDF5 file opened for reading. Use as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.close(open_for_reading(path))  # says what HDF5 would only call an error
        with hdf5_guarded(path, STRUCTURE):
            # no lock of HDF5's own: a capture in progress may be looked at
            self._file = h5py.File(path, "r", locking=False)
            self.descriptor: int = self._file.id.get_vfd_handle()
        self.stamp = Stamp.of(self.descriptor)
        self._places: dict[str, Place] = {}

    def __enter__(self) -> GuardedFile:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with hdf5_guarded(self.path, STRUCTURE):
            self._file.close()

    def attribute(self, name: str, key: str = "/") -> Any:
        """An attribute, None where there is none: text as str, numbers as arrays.

        Raises:
            LayerprobeError: it cannot be read, or is larger than any of ours.
        """
        place = f"the attribute {name!r}" + ("" if key == "/" else f" of {key!r}")
        with hdf5_guarded(self.path, place):
            attributes = self._file[key].attrs
            if name not in attributes:
                return None
            held = attributes.get_id(name)
            size = held.get_storage_size()
            value = None if size > min(_ATTRIBUTE, self.stamp.size) else attributes[name]
        if value is None:
            raise damaged(self.path, place, f"has {size:,} bytes")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def text(self, name: str) -> str:
        """A text attribute of the file.

        Raises:
            LayerprobeError: it is missing, or no text.
        """
        value = self.attribute(name)
        if not isinstance(value, str):
            raise damaged(self.path, f"the attribute {name!r}", "is missing or no text")
        return value

    def place(self, key: str) -> Place:
        """Where a dataset lies.

        Raises:
            LayerprobeError: it is missing, reached by a soft or external link, an alias of another, in
                several pieces, filtered, stored in another file, or beyond the end of this one.
        """
        if key not in self._places:
            self._places[key] = self._checked(key)
        return self._places[key]

    def _checked(self, key: str) -> Place:
        where = f"the dataset {key!r}"
        with hdf5_guarded(self.path, where):
            what = _link_problem(self._file, key)
            dataset = self._file[key] if what is None else None
        if what is not None:
            raise damaged(self.path, where, what)
        if not isinstance(dataset, h5py.Dataset):
            raise damaged(self.path, where, "is none")
        with hdf5_guarded(self.path, where):
            created, aliases = dataset.id.get_create_plist(), h5py.h5o.get_info(dataset.id).rc
            plain = (
                created.get_layout() == h5py.h5d.CONTIGUOUS
                and not created.get_external_count()
                and not created.get_nfilters()
            )
            half = bool(dataset.id.get_type() == bfloat16_type())
            kind = np.dtype(np.uint16) if half else dataset.dtype
            offset, held, shape = dataset.id.get_offset(), dataset.id.get_storage_size(), dataset.shape
        if not plain or shape is None:
            raise damaged(self.path, where, "does not lie in one piece in this file")
        if aliases != 1:
            raise damaged(self.path, where, "has another name too")
        found = Place(key, int(offset or 0), tuple(shape), kind, half)
        if found.n_bytes and (offset is None or held != found.n_bytes):
            raise damaged(self.path, where, "has no place in the file")
        if found.stop > self.stamp.size:
            raise damaged(
                self.path, where, f"ends beyond its {self.stamp.size:,} bytes: the file is truncated"
            )
        return found

    def read(self, key: str) -> np.ndarray:
        """A dataset's bytes, read once its size has been compared with the file's.

        Raises:
            LayerprobeError: as `place`; its type is none that a store has; the disk refuses.
        """
        place = self.place(key)
        kind = place.dtype
        if kind.kind not in "biufS" or kind.byteorder == ">" or place.bfloat16:
            raise damaged(self.path, f"the dataset {key!r}", f"has the type {kind}, which no store has")
        out = np.empty(place.shape, dtype=kind)
        if out.size:
            read_exactly(self.path, self.descriptor, out, place.offset)
        return out

    def has_type(self, key: str, expected: np.dtype[Any], *, bfloat16: bool = False) -> bool:
        """Whether a dataset has exactly this type, byte order included."""
        with hdf5_guarded(self.path, f"the type of {key!r}"):
            wanted = bfloat16_type() if bfloat16 else h5py.h5t.py_create(expected, logical=True)
            return bool(self._file[key].id.get_type() == wanted)

    def check_apart(self) -> None:
        """Refuse datasets that share bytes, of all that were looked at.

        Raises:
            LayerprobeError: two of them overlap.
        """
        places = sorted((p for p in self._places.values() if p.n_bytes), key=lambda place: place.offset)
        for before, after in pairwise(places):
            if before.stop > after.offset:
                raise damaged(self.path, f"the dataset {after.key!r}", f"shares bytes with {before.key!r}")


def read_exactly(path: Path, descriptor: int, out: np.ndarray, offset: int) -> None:
    """Fill an array from an offset.

    Raises:
        LayerprobeError: the disk refuses, or the file ends before.
    """
    data = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    try:
        while len(data):
            count = os.preadv(descriptor, [data[: 1 << 30]], offset)
            if not count:
                raise damaged(path, f"byte {offset:,}", "is missing: the file has become shorter")
            data, offset = data[count:], offset + count
    except OSError as error:
        raise cannot_read(path, error) from error


def parse_json(path: Path, place: str, data: np.ndarray | str) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        LayerprobeError: it is no JSON, no object, or nested deeper than anything we write.
    """
    try:
        value = json.loads(data if isinstance(data, str) else data.tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, place, f"is no JSON ({short(error)})") from error
    if not isinstance(value, dict):
        raise damaged(path, place, f"is no JSON object but {type(value).__name__}")
    return value


class CheckedDatasets:
    """Reads immutable datasets and compares each with the checksum noted at creation."""

    def __init__(self, file: GuardedFile) -> None:
        self.file = file
        raw = file.read("checksums")
        if f"{checksum(raw):016x}" != file.text("checksums_xxh3"):
            raise self._changed("checksums")
        self._expected = parse_json(file.path, "the dataset 'checksums'", raw)

    def __contains__(self, key: str) -> bool:
        return key in self._expected

    def array(self, key: str, kinds: str, *shape: int | None) -> np.ndarray:
        """A dataset whose bytes are those that were written.

        Args:
            key: its name.
            kinds: types that it may have, such as `<i8`; several with blanks between, `column` for a column.
            *shape: its axes, None for any length.

        Raises:
            LayerprobeError: its bytes have changed, its type or shape is another.
        """
        place = self.file.place(key)
        names = (
            {"|b1", "<f2", "<f4", "<f8", *(f"{s}{k}{n}" for s in "<|" for k in "iu" for n in "1248")}
            if kinds == "column"
            else set(kinds.split())
        )
        string = place.dtype.kind == "S" and kinds in ("column", "S")
        axes = place.shape
        fits = len(axes) == len(shape) and all(b in (None, a) for a, b in zip(axes, shape, strict=True))
        if not (string or place.dtype.str in names) or not fits or place.bfloat16:
            wanted = f"{kinds} {tuple('any' if one is None else one for one in shape)}"
            raise damaged(
                self.file.path,
                f"the dataset {key!r}",
                f"has type and shape {place.dtype.str} {axes}, expected {wanted}",
            )
        values = self.file.read(key)
        if f"{checksum(values):016x}" != self._expected.get(key):
            raise self._changed(key)
        return values

    def strings(self, key: str, count: int | None) -> np.ndarray:
        """Fixed-length UTF-8 strings as str objects, None where marked missing."""
        try:
            out = np.array([value.decode() for value in self.array(key, "S", count)], dtype=object)
        except UnicodeDecodeError as error:
            raise damaged(self.file.path, f"the dataset {key!r}", "is no UTF-8") from error
        if f"missing/{key}" in self:
            out[self.array(f"missing/{key}", "|u1", len(out)).astype(bool)] = None
        return out

    def column(self, key: str, count: int) -> np.ndarray:
        """A column: numbers and booleans as they are, strings as str objects."""
        if self.file.place(key).dtype.kind == "S":
            return self.strings(key, count)
        return self.array(key, "column", count)

    def _changed(self, key: str) -> LayerprobeError:
        return damaged(self.file.path, f"the dataset {key!r}", "has other bytes than its checksum says")


def _link_problem(file: h5py.File, key: str) -> str | None:
    """What is wrong with the way to a dataset: every step must be a hard link."""
    group = file.id
    steps = key.encode().split(b"/")
    for number, step in enumerate(steps, start=1):
        if not group.links.exists(step):
            return "is missing"
        if group.links.get_info(step).type != h5py.h5l.TYPE_HARD:
            return "is a link to something else"
        if number < len(steps):
            group = h5py.h5g.open(group, step)
    return None
