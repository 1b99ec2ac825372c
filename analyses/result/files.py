"""A result on disk: Parquet for tables, safetensors for directions, JSON in metadata for the rest."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...hooks.errors import LayerprobeError
from .directions import Directions
from .path_names import plain_name

KEY = b"layerprobe"

# What a result says of itself beside its table, and the form of each.
ABOUT: dict[str, type] = {
    "kind": str,
    "scores": bool,
    "frames": list,
    "directions": bool,
    "direction_names": list,
    "provenance": dict,
    "notes": list,
}


def write_parts(
    path: Path,
    *,
    kind: str,
    table: pd.DataFrame,
    scores: pd.DataFrame | None,
    frames: dict[str, pd.DataFrame],
    directions: Directions | None,
    provenance: dict[str, Any],
    notes: tuple[str, ...],
) -> Path:
    """Write the parts of a result; the table last, so that a table that exists is whole."""
    if path.suffix != ".parquet":
        raise LayerprobeError(f"{path} does not end in .parquet; pass a path such as {path.name}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        _write_table(frame, _beside(path, f"{name}.parquet"))
    if scores is not None:
        _write_table(scores, _beside(path, "scores.parquet"))
    if directions is not None:
        directions.save(_beside(path, "directions.safetensors"))
    about = {
        "kind": kind,
        "scores": scores is not None,
        "frames": list(frames),
        "directions": directions is not None,
        "direction_names": list(directions.names) if directions is not None else [],
        "provenance": plain(provenance),
        "notes": list(notes),
    }
    _write_table(table, path, about)
    return path


def read_parts(path: Path) -> dict[str, Any]:
    """Read the parts of a result by name."""
    if not path.is_file():
        raise LayerprobeError(f"no result at {path}; pass the .parquet path that to_parquet returned")
    stored = _read_arrow(path)
    metadata = stored.schema.metadata or {}
    if KEY not in metadata:
        raise LayerprobeError(
            f"{path} is a Parquet file but not a layerprobe result; read it with pandas.read_parquet"
        )
    about = _read_about(metadata[KEY], path)
    for name in about["frames"]:
        plain_name(str(name), path)
    directions = None
    if about["directions"]:
        directions = Directions.load(
            _existing(path, "directions.safetensors"),
            tuple(about["direction_names"]),
            "classes" if about["provenance"].get("tasks") == ["multinomial"] else "targets",
        )
    return {
        "kind": about["kind"],
        "table": stored.to_pandas(),
        "scores": _read_table(_existing(path, "scores.parquet")) if about["scores"] else None,
        "directions": directions,
        "frames": {name: _read_table(_existing(path, f"{name}.parquet")) for name in about["frames"]},
        "provenance": about["provenance"],
        "notes": tuple(about["notes"]),
    }


def plain(value: Any) -> Any:
    """The same value in JSON's types: numpy scalars to Python's, tuples to lists, paths to strings."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.stem}.{ending}")


def _existing(path: Path, ending: str) -> Path:
    part = _beside(path, ending)
    if not part.is_file():
        raise LayerprobeError(
            f"{path.name} needs {part.name} beside it; copy both, or run the analysis again"
        )
    return part


def _read_table(path: Path) -> pd.DataFrame:
    return _read_arrow(path).to_pandas()


def _read_arrow(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise LayerprobeError(
            f"{path} is not a Parquet file ({error}); pass the path to_parquet returned"
        ) from None


def _read_about(written: bytes, path: Path) -> dict[str, Any]:
    try:
        about = json.loads(written)
    except ValueError:
        about = None
    damaged = not isinstance(about, dict) or [
        name for name, form in ABOUT.items() if not isinstance(about.get(name), form)
    ]
    if damaged:
        parts = ", ".join(damaged) if isinstance(damaged, list) else "everything"
        raise LayerprobeError(
            f"{path} is a layerprobe result whose description is damaged or of another version ({parts}); "
            "run the analysis again and save its result anew"
        )
    return about


def _write_table(frame: pd.DataFrame, path: Path, about: dict[str, Any] | None = None) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=None)
    if about is not None:
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), KEY: json.dumps(about).encode()}
        )
    temporary = path.with_name(f".{path.name}.writing")
    pq.write_table(table, temporary)
    os.replace(temporary, path)
