"""Opening a store file: its layout, checked before anything is believed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...hooks.errors import LayerprobeError
from ..prompts.columns import PromptColumns, StoredTexts
from .batch_plan import Plan
from .layout import FORMAT, READABLE, ArraySpec, checksum, column_key, journal_dtype, read_json
from .statistics import RunningStatistics

MAGIC = 0x4C50424B  # "LPBK"


@dataclass(frozen=True)
class FileLayout:
    """Everything in a file that does not change, and where the rest lies."""

    path: Path
    version: str
    header: dict[str, Any]
    volatile: dict[str, Any]
    arrays: tuple[ArraySpec, ...]
    offsets: dict[str, int]
    """Dataset -> byte offset, for what is written by offset."""
    plan: Plan
    examples: np.ndarray
    positions: np.ndarray
    candidate_ids: np.ndarray | None

    @property
    def n_rows(self) -> int:
        """Rows."""
        return len(self.examples)

    @property
    def journal(self) -> np.dtype:
        """The type of a journal entry."""
        return journal_dtype(sum(spec.n_layers for spec in self.arrays))

    def statistics_specs(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(dataset, site key, shape of one slot) of every statistics field."""
        return [
            (f"statistics/{spec.key.split('/')[-1]}/{name}", spec.key, values.shape)
            for spec in self.arrays
            if has_statistics(spec)
            for name, values in RunningStatistics(spec.n_layers, spec.shape).arrays()
        ]


def has_statistics(spec: ArraySpec) -> bool:
    """Whether running statistics are kept: of activations, but not of patterns padded with NaN."""
    return spec.key.startswith("activations/") and not spec.key.endswith("attn_pattern")


def open_h5_of(path: Path) -> h5py.File:
    """Open any HDF5 file for reading.

    Raises:
        LayerprobeError: no such file, no HDF5 file, or a damaged or truncated one.
    """
    if not path.exists():
        raise LayerprobeError(
            f"no store at {path}: check the path, or make it with capture(..., path={str(path)!r})"
        )
    if path.is_dir():
        raise LayerprobeError(f"{path} is a folder, expected a store file such as {path / 'activations.h5'}")
    try:
        # no lock of HDF5's own: a capture in progress may be looked at
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise LayerprobeError(
            f"{path} is no readable HDF5 file ({_short(error)}): truncated, damaged or something else; "
            f"restore it, or delete it and capture again"
        ) from None


def open_h5(path: Path) -> h5py.File:
    """Open a store file for reading.

    Raises:
        LayerprobeError: as `open_h5_of`, and for a file of another format or version.
    """
    file = open_h5_of(path)
    kind, version = damaged(path, lambda: (file.attrs.get("format"), file.attrs.get("format_version")))
    if kind == FORMAT and version in READABLE:
        return file
    file.close()
    if kind != FORMAT:
        raise LayerprobeError(f"{path} is an HDF5 file but not a layerprobe store (format={kind!r})")
    raise LayerprobeError(
        f"{path} has format version {version}, this layerprobe reads "
        f"{', '.join(READABLE)}: upgrade layerprobe"
    )


def read_layout(path: Path) -> FileLayout:
    """The layout of a file, every immutable dataset checked against its checksum.

    Raises:
        LayerprobeError: as `open_h5`, and for a dataset whose bytes have changed, by name.
    """
    with open_h5(path) as file:
        return damaged(path, _read_layout, file, path)


def read_columns(path: Path) -> PromptColumns:
    """What is known of every prompt.

    Raises:
        LayerprobeError: as `read_layout`.
    """
    with open_h5(path) as file:
        return damaged(path, _read_columns, file, path)


def damaged(path: Path, function: Any, *arguments: Any) -> Any:
    """Call, and answer what HDF5 says of damaged structures with one line that names the file."""
    try:
        return function(*arguments)
    except LayerprobeError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise LayerprobeError(
            f"{path} is damaged in its structure ({_short(error)}): restore it, or delete it and "
            f"capture again"
        ) from None


class CheckedDatasets:
    """Reads immutable datasets and compares each with the checksum noted at creation."""

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self._path = path
        raw = file["checksums"][()]
        if f"{checksum(raw):016x}" != file.attrs["checksums_xxh3"]:
            raise self._damage("checksums")
        self._expected = read_json(raw)

    def __contains__(self, key: str) -> bool:
        return key in self._expected

    def __getitem__(self, key: str) -> np.ndarray:
        values = np.asarray(self._file[key][()])
        if f"{checksum(values):016x}" != self._expected[key]:
            raise self._damage(key)
        return values

    def optional(self, key: str) -> np.ndarray | None:
        """A dataset that not every file has."""
        return self[key] if key in self._expected else None

    def strings(self, key: str) -> np.ndarray:
        """Fixed-length UTF-8 strings as str objects, None where marked missing."""
        out = np.array([value.decode() for value in self[key]], dtype=object)
        if f"missing/{key}" in self:
            out[self[f"missing/{key}"].astype(bool)] = None
        return out

    def column(self, key: str) -> np.ndarray:
        """A column: numbers and booleans as they are, strings as str objects."""
        values = self[key]
        return self.strings(key) if values.dtype.kind == "S" else values

    def _damage(self, key: str) -> LayerprobeError:
        return LayerprobeError(
            f"{self._path}: the dataset {key!r} is damaged (its checksum does not match): "
            f"restore the file, or delete it and capture again"
        )


def _read_layout(file: h5py.File, path: Path) -> FileLayout:
    data = CheckedDatasets(file, path)
    header = read_json(data["header"])
    arrays = tuple(
        ArraySpec(
            entry["key"],
            None if entry["layers"] is None else tuple(entry["layers"]),
            tuple(entry["shape"]),
            entry["dtype"],
        )
        for entry in header["arrays"]
    )
    plan = Plan(*(data[f"plan/{name}"] for name in ("order", "batches", "blocks", "same_as", "row_starts")))
    layout = FileLayout(
        path=path,
        version=str(file.attrs["format_version"]),
        header=header,
        volatile=read_json(np.frombuffer(file.attrs["created"].encode(), dtype=np.uint8)),
        arrays=arrays,
        offsets={},
        plan=plan,
        examples=data["rows/examples"],
        positions=data["rows/positions"],
        candidate_ids=data.optional("lens/candidate_ids"),
    )
    size = os.path.getsize(path)
    expected = {spec.key: spec.dataset_shape(layout.n_rows) for spec in arrays}
    expected |= {key: (2, *shape) for key, _, shape in layout.statistics_specs()}
    expected["journal"] = (plan.n_blocks,)
    for key, shape in expected.items():
        dataset = file[key]
        if dataset.shape != shape:
            raise LayerprobeError(
                f"{path}: the dataset {key!r} has shape {dataset.shape}, expected {shape}: damaged"
            )
        offset = dataset.id.get_offset()
        if offset is None and dataset.size:
            raise LayerprobeError(f"{path}: the dataset {key!r} has no place in the file: damaged")
        if offset is not None and offset + dataset.id.get_storage_size() > size:
            raise LayerprobeError(
                f"{path} is truncated: {key!r} ends beyond its {size:,} bytes; restore it, or capture again"
            )
        layout.offsets[key] = int(offset or 0)
    return layout


def _read_columns(file: h5py.File, path: Path) -> PromptColumns:
    data = CheckedDatasets(file, path)

    def optional(name: str) -> np.ndarray | None:
        return data.column(f"prompts/{name}") if f"prompts/{name}" in data else None

    header = read_json(data["header"])
    return PromptColumns(
        ids=data.strings("prompts/ids"),
        labels={name: data.column(column_key("labels", name)) for name in header["labels"]},
        groups=optional("groups"),
        pairs=optional("pairs"),
        splits=optional("splits"),
        spans={name: data[column_key("spans", name)] for name in header["spans"]},
        texts=StoredTexts(data["prompts/text_bytes"], data["prompts/text_starts"]),
        token_ids=data["prompts/token_ids"],
        token_starts=data["prompts/token_starts"],
    )


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
