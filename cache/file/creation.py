"""Making a store file: everything known before the first forward pass, and room for all that follows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..prompts.columns import PromptColumns
from .atomic import give_name, new_file, sync_folder
from .batch_plan import Plan
from .layout import (
    FORMAT,
    VERSION,
    ArraySpec,
    allocate,
    checksum,
    column_key,
    journal_dtype,
    json_bytes,
    strings_to_fixed,
    write_metadata,
)
from .locks import lock_exclusively
from .opening import has_statistics
from .statistics import RunningStatistics


@dataclass(frozen=True)
class Contents:
    """What a file holds before any activation is written."""

    header: Mapping[str, Any]
    """The same for the same command: sites, token rule, identity, options. No times, no machine."""
    volatile: Mapping[str, Any]
    """When, where and with which versions it was made; kept in an attribute."""
    columns: PromptColumns
    examples: np.ndarray
    positions: np.ndarray
    plan: Plan
    arrays: tuple[ArraySpec, ...]
    candidate_ids: np.ndarray | None = None


def create_file(path: Path, contents: Contents) -> int:
    """Write the file under a temporary name, sync it, and give it its name at once or not at all.

    Returns:
        A descriptor open for writing that holds the writer's lock.

    Raises:
        LayerprobeError: the folder cannot be written, the disk is full, or the file has appeared meanwhile.
    """
    with new_file(path, lambda file: _fill(file, contents)) as temporary:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
        try:
            lock_exclusively(descriptor, path)
            os.fsync(descriptor)
            give_name(temporary, path)
            temporary.unlink(missing_ok=True)
            sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _fill(file: h5py.File, contents: Contents) -> None:
    checksums: dict[str, str] = {}
    n_rows = len(contents.examples)
    for key, values in _metadata(contents).items():
        if key.endswith("*strings"):
            _write_strings(file, key.removesuffix("*strings"), values, checksums)
        else:
            write_metadata(file, key, values, checksums)
    for spec in contents.arrays:
        allocate(file, spec.key, spec.dataset_shape(n_rows), spec.dtype)
        if spec.layers is not None:
            file[spec.key].attrs["layers"] = np.asarray(spec.layers, dtype=np.int64)
        if has_statistics(spec):
            for name, slot in RunningStatistics(spec.n_layers, spec.shape).arrays():
                allocate(file, f"statistics/{spec.key.split('/')[-1]}/{name}", (2, *slot.shape), slot.dtype)
    allocate(
        file,
        "journal",
        (contents.plan.n_blocks,),
        journal_dtype(sum(spec.n_layers for spec in contents.arrays)),
    )
    raw = json_bytes(checksums)
    file.create_dataset("checksums", data=raw, track_times=False)
    file.attrs["checksums_xxh3"] = f"{checksum(raw):016x}"
    file.attrs["created"] = bytes(json_bytes(contents.volatile)).decode()
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = VERSION


def _metadata(contents: Contents) -> dict[str, np.ndarray]:
    """Every immutable dataset; names that end in `*strings` are columns of str."""
    columns, plan = contents.columns, contents.plan
    text_bytes, text_starts = bytearray(), np.zeros(len(columns) + 1, dtype=np.int64)
    for index, text in enumerate(columns.texts or []):
        text_bytes += text.encode()
        text_starts[index + 1] = len(text_bytes)
    out: dict[str, Any] = {
        "header": json_bytes(contents.header),
        "prompts/ids*strings": columns.ids,
        "prompts/text_bytes": np.frombuffer(text_bytes, dtype=np.uint8),
        "prompts/text_starts": text_starts,
        "prompts/token_ids": columns.token_ids,
        "prompts/token_starts": columns.token_starts,
        "rows/examples": contents.examples,
        "rows/positions": contents.positions,
        "plan/order": plan.order,
        "plan/batches": plan.batches,
        "plan/blocks": plan.blocks,
        "plan/same_as": plan.same_as,
        "plan/row_starts": plan.row_starts,
    }
    named = {column_key("labels", name): values for name, values in columns.labels.items()}
    named |= {f"prompts/{name}": getattr(columns, name) for name in ("groups", "pairs", "splits")}
    for key, values in named.items():
        if values is not None:
            out[key + ("*strings" if values.dtype.kind == "O" else "")] = values
    out |= {column_key("spans", name): values for name, values in columns.spans.items()}
    if contents.candidate_ids is not None:
        out["lens/candidate_ids"] = contents.candidate_ids
    return out


def _write_strings(file: h5py.File, key: str, values: np.ndarray, checksums: dict[str, str]) -> None:
    write_metadata(file, key, strings_to_fixed(values), checksums)
    missing = np.array([value is None for value in values], dtype=np.uint8)
    if missing.any():
        write_metadata(file, f"missing/{key}", missing, checksums)
