"""Where every byte of a store lies: names, types, early-allocated datasets (cache/FORMAT.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import h5py
import numpy as np
import xxhash

from ...hooks.errors import LayerprobeError

FORMAT = "layerprobe-activations"
VERSION = "1.0"
READABLE = ("0.1", "1.0")

#: superblock and object headers with checksums, readable since HDF5 1.10
LIBVER = ("v110", "v110")

NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}


@dataclass(frozen=True)
class ArraySpec:
    """One dataset that a capture fills: [layers, rows, *shape], or [rows, *shape] where `layers` is None."""

    key: str
    """HDF5 path, such as `activations/resid_post`."""
    layers: tuple[int, ...] | None
    shape: tuple[int, ...]
    dtype: str

    @property
    def n_layers(self) -> int:
        """Length of the layer axis, 1 where there is none."""
        return 1 if self.layers is None else len(self.layers)

    @property
    def storage(self) -> np.dtype:
        """The numpy type of the stored bytes (bfloat16 as uint16)."""
        return NUMPY_TYPES[self.dtype]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of one layer."""
        return math.prod(self.shape) * self.storage.itemsize

    def as_entry(self) -> dict[str, Any]:
        """Its entry in the header."""
        layers = None if self.layers is None else list(self.layers)
        return {"key": self.key, "layers": layers, "shape": list(self.shape), "dtype": self.dtype}

    def dataset_shape(self, n_rows: int) -> tuple[int, ...]:
        """Shape in the file."""
        lead = () if self.layers is None else (len(self.layers),)
        return (*lead, n_rows, *self.shape)


def checksum(data: Any) -> int:
    """xxh3-64 of the bytes of an array or buffer."""
    if not isinstance(data, np.ndarray):
        return xxhash.xxh3_64_intdigest(data)
    if not data.size:
        return xxhash.xxh3_64_intdigest(b"")
    return xxhash.xxh3_64_intdigest(memoryview(np.ascontiguousarray(data).reshape(-1).view(np.uint8)))  # type: ignore[arg-type]


def journal_dtype(n_checksums: int) -> np.dtype:
    """One journal entry: a committed block of rows."""
    return np.dtype(
        [
            ("magic", "<u4"),
            ("block", "<u4"),
            ("rows", "<u8"),
            ("statistics", "<u8"),
            ("data", "<u8", (n_checksums,)),
            ("entry", "<u8"),
        ]
    )


def bfloat16_type() -> h5py.h5t.TypeID:
    """bfloat16 as an HDF5 floating-point type: two bytes, any reader converts them to exact float32."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_precision(16)
    kind.set_ebias(127)
    return kind


def allocate(file: h5py.File, key: str, shape: tuple[int, ...], dtype: str | np.dtype) -> None:
    """A contiguous dataset whose bytes exist from the start and are never filled."""
    parent, _, name = key.rpartition("/")
    group = file.require_group(parent) if parent else file
    if dtype == "bfloat16":
        kind = bfloat16_type()
    else:
        kind = h5py.h5t.py_create(NUMPY_TYPES[dtype] if isinstance(dtype, str) else dtype, logical=True)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), properties)


def strings_to_fixed(values: Iterable[Any]) -> np.ndarray:
    """UTF-8 strings of one length (padded with NUL): contiguous bytes can be checked."""
    given = ["" if value is None else value if isinstance(value, str) else str(value) for value in values]
    longest = 1
    for value in given:  # encoded twice rather than held twice: there may be millions
        if value.endswith("\0"):
            raise LayerprobeError(
                f"the label {value!r} ends with a NUL character: remove it from the prompt table"
            )
        longest = max(longest, len(value.encode()))
    return np.fromiter((value.encode() for value in given), dtype=f"S{longest}", count=len(given))


def write_metadata(file: h5py.File, key: str, values: np.ndarray, checksums: dict[str, str]) -> None:
    """An immutable dataset, with its checksum noted."""
    if values.dtype.kind == "S":
        tagged = values.astype(h5py.string_dtype("utf-8", values.dtype.itemsize))
        dataset = file.create_dataset(key, data=tagged, track_times=False)
    else:
        dataset = file.create_dataset(key, data=values, track_times=False)
    dataset.flush()
    checksums[key] = f"{checksum(values):016x}"


def column_key(kind: str, name: str) -> str:
    """The dataset of a column: HDF5 would take a slash or a leading dot in its name for a path."""
    return f"prompts/{kind}/{quote(name, safe=' !#$&()*+,:;=?@[]')}"


def json_bytes(value: Mapping[str, Any]) -> np.ndarray:
    """Canonical JSON as bytes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return np.frombuffer(text.encode(), dtype=np.uint8)


def read_json(data: np.ndarray) -> dict[str, Any]:
    """The inverse of `json_bytes`."""
    value = json.loads(bytes(data).decode())
    if not isinstance(value, dict):
        raise LayerprobeError(f"expected a JSON object, found {type(value).__name__}")
    return value
