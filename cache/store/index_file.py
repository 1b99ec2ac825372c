"""Writing an index: a manifest that is checked, and virtual datasets for readers that know nothing of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..file.creation import cannot_write, sync_folder
from ..file.layout import LIBVER, bfloat16_type, checksum, json_bytes
from .index import INDEX_FORMAT, INDEX_VERSION, Part, joined_layers


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(temporary, "w", libver=LIBVER, locking=False) as file:
            raw = json_bytes(manifest)
            file["manifest"] = raw
            file.attrs["manifest_xxh3"] = f"{checksum(raw):016x}"
            file.attrs["format"], file.attrs["format_version"] = INDEX_FORMAT, INDEX_VERSION
            for site, numbers in layers.items():
                _virtual(file, path, site, numbers, groups)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


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
