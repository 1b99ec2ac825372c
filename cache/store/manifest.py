"""An index file: a checked manifest of stores, and virtual datasets for readers that know nothing of it.

Written by `merge` and by a capture that extends a store; opened by `open_store`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.atomic import new_file, sync_folder
from ..file.faults import damaged
from ..file.guarded import GuardedFile, parse_json
from ..file.layout import bfloat16_type, checksum, json_bytes
from .activations import ActivationStore
from .index import Part, join, joined_layers, open_part
from .reader import Verify

INDEX_FORMAT = "layerprobe-index"
INDEX_VERSION = "1.0"


def is_index(path: Path) -> bool:
    """Whether a file is an index rather than a store.

    Raises:
        LayerprobeError: there is no such file, or it cannot be read.
    """
    with GuardedFile(path) as file:
        return _is_index(file)


def _is_index(file: GuardedFile) -> bool:
    kind = file.attribute("format")
    return isinstance(kind, str) and kind == INDEX_FORMAT


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an index, checked.

    Raises:
        LayerprobeError: the index is damaged, or names anything but files.
    """
    with GuardedFile(path) as file:
        raw = file.read("manifest")
        if f"{checksum(raw):016x}" != file.text("manifest_xxh3"):
            raise LayerprobeError(f"{path}: the manifest is damaged: merge its stores again")
    manifest = parse_json(path, "the manifest", raw)
    groups = manifest.get("groups")
    if not isinstance(manifest.get("identity"), dict) or not _are_groups(groups):
        raise damaged(path, "the manifest", "is none of an index")
    return manifest


def _are_groups(groups: Any) -> bool:
    """Lists of at least one entry each, every one with what an entry has."""
    kinds = {"path": str, "fingerprint": str, "rows": int, "prompts": int}
    return (
        isinstance(groups, list)
        and bool(groups)
        and all(isinstance(entries, list) and entries for entries in groups)
        and all(
            isinstance(entry, dict) and all(isinstance(entry.get(k), kind) for k, kind in kinds.items())
            for entries in groups
            for entry in entries
        )
    )


def open_index(path: Path, verify: Verify = "first-touch") -> ActivationStore:
    """Open an index as one store, after comparing every part with the manifest.

    Raises:
        LayerprobeError: a part is missing, incomplete or no longer what it was when the index was made.
    """
    manifest = read_manifest(path)
    groups = []
    for entries in manifest["groups"]:
        parts = []
        for entry in entries:
            where = path.parent / entry["path"]
            if not where.exists():
                raise LayerprobeError(
                    f"{path}: its part {where} is missing: restore it, or merge again without it"
                )
            part = open_part(where, verify)
            if part.fingerprint != entry["fingerprint"]:
                raise LayerprobeError(f"{path}: its part {where} is not the store it was: merge again")
            parts.append(part)
        groups.append(parts)
    return join(groups, identity=manifest["identity"], path=path)


def write_index(path: Path, groups: Sequence[Sequence[Part]], identity: dict[str, Any]) -> None:
    """Write an index: a manifest, and virtual datasets for readers that know nothing of it.

    Raises:
        LayerprobeError: the folder cannot be written.
    """
    layers = joined_layers(groups)
    manifest = {
        "identity": identity,
        "groups": [
            [
                {
                    "path": os.path.relpath(part.path.resolve(), path.parent.resolve()),
                    "rows": part.store.n_rows,
                    "prompts": part.store.n_prompts,
                    "fingerprint": part.fingerprint,
                }
                for part in parts
            ]
            for parts in groups
        ],
    }

    def fill(file: h5py.File) -> None:
        raw = json_bytes(manifest)
        file.create_dataset("manifest", data=raw, track_times=False)
        file.attrs["manifest_xxh3"] = f"{checksum(raw):016x}"
        file.attrs["format"], file.attrs["format_version"] = INDEX_FORMAT, INDEX_VERSION
        for site, numbers in layers.items():
            _virtual(file, path, site, numbers, groups)

    with new_file(path, fill) as temporary:
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)


def _virtual(
    file: h5py.File, path: Path, site: str, numbers: tuple[int, ...], groups: Sequence[Sequence[Part]]
) -> None:
    """A virtual dataset over the parts; what a part does not give reads as NaN, never as zero."""
    first = next(part for part in groups[0] if site in part.store.sites)
    n_rows = sum(parts[0].store.n_rows for parts in groups)
    shape = (*((len(numbers),) if numbers else ()), n_rows, *first.store.shape(site))
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_fill_value(
        np.array(np.nan, dtype=np.float64 if first.store.dtype == "float64" else np.float32)
    )
    target = h5py.h5s.create_simple(shape)
    start = 0
    for parts in groups:
        count = parts[0].store.n_rows
        for index, number in enumerate(numbers or (None,)):
            part = next(part for part in parts if part.layer_index(site, number) is not None)
            at = part.layer_index(site, number)
            held = part.layout
            spec = next(spec for spec in held.arrays if spec.key == f"activations/{site}")
            source = h5py.h5s.create_simple(spec.dataset_shape(held.n_rows))
            lead = (1,) if numbers else ()
            block = (*lead, count, *spec.shape)
            zeros = (0,) * len(spec.shape)
            ones = (1,) * len(block)
            target.select_hyperslab((*((index,) if numbers else ()), start, *zeros), ones, block=block)
            source.select_hyperslab((*((at,) if numbers else ()), 0, *zeros), ones, block=block)
            relative = os.path.relpath(part.path.resolve(), path.parent.resolve())
            properties.set_virtual(target, relative.encode(), spec.key.encode(), source)
        start += count
    kind = (
        bfloat16_type()
        if first.store.dtype == "bfloat16"
        else h5py.h5t.py_create(np.dtype(first.store.dtype))
    )
    group = file.require_group("activations")
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group.id, site.encode(), kind, space, properties)
    if numbers:
        file[f"activations/{site}"].attrs["layers"] = np.asarray(numbers, dtype=np.int64)
