"""Opening a store file: its layout, checked before anything is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ..prompts.columns import PromptColumns, StoredTexts
from .batch_plan import Plan
from .faults import damaged
from .guarded import CheckedDatasets, GuardedFile, Stamp, parse_json
from .layout import FORMAT, NUMPY_TYPES, READABLE, ArraySpec, column_key, journal_dtype
from .provenance import VOLATILE
from .statistics import RunningStatistics

MAGIC = 0x4C50424B  # "LPBK"

#: header key -> what it must be
_HEADER: dict[str, type] = {
    "model_name": str,
    "dataset_name": str,
    "dtype": str,
    "tokens": str,
    "lens_tokens": list,
    "labels": list,
    "spans": list,
    "identity": dict,
    "provenance": dict,
    "arrays": list,
}


@dataclass(frozen=True)
class FileLayout:
    """Everything in a file that does not change, and where the rest lies."""

    path: Path
    stamp: Stamp
    version: str
    header: dict[str, Any]
    volatile: dict[str, Any]
    fingerprint: str
    """Checksum of the checksums of everything that does not change."""
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
            (f"statistics/{spec.key.split('/')[-1]}/{name}", spec.key, shape)
            for spec in self.arrays
            if has_statistics(spec)
            for name, shape in RunningStatistics.shapes(spec.n_layers, spec.shape).items()
        ]


def has_statistics(spec: ArraySpec) -> bool:
    """Whether running statistics are kept: of activations, but not of patterns padded with NaN."""
    return spec.key.startswith("activations/") and not spec.key.endswith("attn_pattern")


def open_guarded(path: Path) -> GuardedFile:
    """Open a store file for reading.

    Raises:
        LayerprobeError: no such file, no HDF5 file, a damaged or truncated one, another format or version.
    """
    file = GuardedFile(path)
    try:
        kind, version = file.attribute("format"), file.attribute("format_version")
        if not isinstance(kind, str) or kind != FORMAT:
            raise LayerprobeError(f"{path} is an HDF5 file but not a layerprobe store (format={kind!r})")
        if version not in READABLE:
            raise LayerprobeError(
                f"{path} has format version {version}, this layerprobe reads "
                f"{', '.join(READABLE)}: upgrade layerprobe"
            )
    except BaseException:
        file.__exit__(None, None, None)
        raise
    return file


def read_layout(path: Path) -> FileLayout:
    """The layout of a file, every immutable dataset checked against its checksum.

    Raises:
        LayerprobeError: as `open_guarded`, and for whatever is not as `cache/FORMAT.md` says, by name.
    """
    with open_guarded(path) as file:
        return layout_of(file)


def read_columns(path: Path) -> PromptColumns:
    """What is known of every prompt.

    Raises:
        LayerprobeError: as `read_layout`.
    """
    with open_guarded(path) as file:
        return columns_of(file, layout_of(file))


def layout_of(file: GuardedFile) -> FileLayout:
    """The layout of an open file.

    Raises:
        LayerprobeError: as `read_layout`.
    """
    data = CheckedDatasets(file)
    header = _checked_header(file, data.array("header", "|u1", None))
    arrays = tuple(_spec(file.path, entry) for entry in header["arrays"])
    if len({spec.key for spec in arrays}) < len(arrays):
        raise damaged(file.path, "the header", "names an array twice")
    plan = _plan(data)
    n_prompts, n_rows = len(plan.same_as), int(plan.row_starts[-1])
    examples = data.array("rows/examples", "<i8", n_rows)
    if not np.array_equal(examples, np.repeat(np.arange(n_prompts), np.diff(plan.row_starts))):
        raise damaged(file.path, "the dataset 'rows/examples'", "is not that of the plan")
    candidates = None
    if "lens/candidate_ids" in data:
        candidates = data.array("lens/candidate_ids", "<i4", n_rows, len(header["lens_tokens"]), None)
    layout = FileLayout(
        path=file.path,
        stamp=file.stamp,
        version=str(file.text("format_version")),
        header=header,
        volatile={k: v for k, v in _created(file).items() if k in VOLATILE},
        fingerprint=file.text("checksums_xxh3"),
        arrays=arrays,
        offsets={},
        plan=plan,
        examples=examples,
        positions=data.array("rows/positions", "<i8", n_rows),
        candidate_ids=candidates,
    )
    for key, shape, kind, half in _mutable(layout):
        layout.offsets[key] = _checked_place(file, key, shape, kind, half)
    for spec in arrays:
        layers = file.attribute("layers", spec.key) if spec.layers is not None else None
        if spec.layers is not None and (layers is None or np.asarray(layers).tolist() != list(spec.layers)):
            raise damaged(file.path, f"the attribute layers of {spec.key!r}", "is not that of the header")
    file.check_apart()
    return layout


def columns_of(file: GuardedFile, layout: FileLayout) -> PromptColumns:
    """The columns of an open file.

    Raises:
        LayerprobeError: as `read_layout`.
    """
    data, count = CheckedDatasets(file), len(layout.plan.same_as)

    def optional(name: str) -> np.ndarray | None:
        return data.column(f"prompts/{name}", count) if f"prompts/{name}" in data else None

    def starts(name: str, of: np.ndarray) -> np.ndarray:
        bounds = data.array(name, "<i8", count + 1)
        _check_bounds(file.path, name, bounds, len(of))
        return bounds

    header = layout.header
    text_bytes = data.array("prompts/text_bytes", "|u1", None)
    token_ids = data.array("prompts/token_ids", "<i4", None)
    columns = PromptColumns(
        ids=data.strings("prompts/ids", count),
        labels={name: data.column(column_key("labels", name), count) for name in header["labels"]},
        groups=optional("groups"),
        pairs=optional("pairs"),
        splits=optional("splits"),
        spans={name: data.array(column_key("spans", name), "<i8", count, 2) for name in header["spans"]},
        texts=StoredTexts(text_bytes, starts("prompts/text_starts", text_bytes)),
        token_ids=token_ids,
        token_starts=starts("prompts/token_starts", token_ids),
    )
    file.check_apart()
    return columns


def _created(file: GuardedFile) -> dict[str, Any]:
    return parse_json(file.path, "the attribute 'created'", file.text("created"))


def _checked_header(file: GuardedFile, raw: np.ndarray) -> dict[str, Any]:
    header = parse_json(file.path, "the header", raw)
    for name, kind in _HEADER.items():
        if not isinstance(header.get(name), kind):
            raise damaged(file.path, "the header", f"has no {name} that is a {kind.__name__}")
    if header["dtype"] not in NUMPY_TYPES:
        raise damaged(file.path, "the header", f"names the type {header['dtype']!r}")
    for name in ("lens_tokens", "labels", "spans"):
        if not all(isinstance(value, str) for value in header[name]):
            raise damaged(file.path, "the header", f"has a {name} that is no text")
    return header


def _spec(path: Path, entry: Any) -> ArraySpec:
    """An array of the header."""
    try:
        key, layers, shape, dtype = (entry[name] for name in ("key", "layers", "shape", "dtype"))
        kind, _, name = key.partition("/")
        numbers = [*shape, *(layers or ())]
        sound = (
            kind in ("activations", "lens")
            and name
            and "/" not in name
            and dtype in NUMPY_TYPES
            and all(type(number) is int and 0 <= number < 1 << 40 for number in numbers)
            and len(numbers) < 1 << 16
            and (layers is None or list(layers) == sorted(set(layers)))
        )
    except (TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise damaged(
            path, "the header", f"describes an array of a kind that stores do not have: {str(entry)[:80]}"
        )
    return ArraySpec(key, None if layers is None else tuple(layers), tuple(shape), dtype)


def _plan(data: CheckedDatasets) -> Plan:
    """The plan, whose numbers are indices: all of them are compared with what they index."""
    path = data.file.path
    order, batches, blocks, same_as, row_starts = (
        data.array(f"plan/{name}", "<i8", None)
        for name in ("order", "batches", "blocks", "same_as", "row_starts")
    )
    prompts = len(same_as)
    _check_bounds(path, "plan/batches", batches, len(order))
    _check_bounds(path, "plan/blocks", blocks, len(batches) - 1)
    _check_bounds(path, "plan/row_starts", row_starts, None)
    inside = len(order) == len(np.unique(order)) and ((order >= 0) & (order < prompts)).all()
    if not inside or not np.array_equal(same_as[order], order):
        raise damaged(path, "the dataset 'plan/order'", "names prompts that do not run")
    ran = np.zeros(prompts + 1, dtype=bool)
    ran[order], ran[-1] = True, True  # -1: a prompt without rows
    if (
        len(row_starts) != prompts + 1
        or ((same_as < -1) | (same_as >= prompts)).any()
        or not ran[same_as].all()
    ):
        raise damaged(path, "the dataset 'plan/same_as'", "names prompts that do not run")
    if (np.diff(row_starts)[same_as < 0] != 0).any():
        raise damaged(path, "the dataset 'plan/same_as'", "leaves rows to nobody")
    return Plan(order, batches, blocks, same_as, row_starts)


def _check_bounds(path: Path, key: str, bounds: np.ndarray, last: int | None) -> None:
    sound = len(bounds) and bounds[0] == 0 and (np.diff(bounds) >= 0).all()
    if not sound or (last is not None and bounds[-1] != last):
        raise damaged(path, f"the dataset {key!r}", "does not bound what it should")


def _mutable(layout: FileLayout) -> Sequence[tuple[str, tuple[int, ...], np.dtype[Any], bool]]:
    """(key, shape, type, bfloat16) of everything that is written while a capture runs."""
    out = [
        (spec.key, spec.dataset_shape(layout.n_rows), spec.storage, spec.dtype == "bfloat16")
        for spec in layout.arrays
    ]
    for key, _, shape in layout.statistics_specs():
        kind = np.dtype("<i8" if key.endswith(("/count", "/nonfinite")) else "<f8")
        out.append((key, (2, *shape), kind, False))
    return [*out, ("journal", (layout.plan.n_blocks,), layout.journal, False)]


def _checked_place(
    file: GuardedFile, key: str, shape: tuple[int, ...], kind: np.dtype[Any], bfloat16: bool
) -> int:
    place = file.place(key)
    if place.shape != shape:
        raise damaged(file.path, f"the dataset {key!r}", f"has shape {place.shape}, expected {shape}")
    if not file.has_type(key, kind, bfloat16=bfloat16):
        raise damaged(file.path, f"the dataset {key!r}", "has another type than the header says")
    return place.offset
