"""The results folder: which results there are, what each was made from, and whether it must be made again."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...analyses.result.path_names import plain_name
from ...hooks.errors import LayerprobeError
from .writing import system_error, write_whole, writing

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult

__all__ = ["ResultsFolder", "explain", "plain", "result_name", "write_whole"]

MANIFEST = "manifest.json"
NAME_BYTES = 160  # of a result's name; the endings of its files come to it


class ResultsFolder:
    """`DIR/results`: one set of files per result, and a manifest of what made each.

    Args:
        out: the folder of the study; created at the first write, not before.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)
        self.folder = self.out / "results"

    def manifest(self) -> dict[str, Any]:
        """What is known of the results here; empty where there are none."""
        path = self.folder / MANIFEST
        if not path.is_file():
            return {"results": {}}
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise LayerprobeError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise _damaged(path, str(error)) from error
        results = manifest.get("results", {}) if isinstance(manifest, dict) else None
        if not isinstance(results, dict) or not all(map(_is_entry, results.values())):
            raise _damaged(path, "it holds no table of results")
        for name in results:
            plain_name(name, path)
        return {**manifest, "results": results}

    def update(self, **facts: Any) -> None:
        """Set entries of the manifest."""
        write_whole(self.folder / MANIFEST, json.dumps({**self.manifest(), **facts}, indent=1, default=str))

    def current(self, name: str, made_from: str) -> AnalysisResult | None:
        """The stored result, if it was made from exactly this and can be read."""
        from ...analyses.result.analysis import read_result

        entry = self.manifest()["results"].get(name)
        if not entry or entry["made_from"] != made_from:
            return None
        try:
            return read_result(self.folder / f"{name}.parquet")
        except (LayerprobeError, OSError, ValueError, KeyError, TypeError):
            return None  # damaged or gone: made again

    def save(self, name: str, result: AnalysisResult, made_from: str, **facts: Any) -> None:
        """Write the result beside the others; a reader never sees half of it.

        Raises:
            LayerprobeError: the disk is full or read-only; what was there is still there.
        """
        plain_name(name, "a result")
        listed = self.manifest()["results"]
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self.folder))
            try:
                result.to_parquet(draft / f"{name}.parquet")
                new = sorted(draft.iterdir(), key=lambda path: path.name == f"{name}.parquet")
                # the table last: it is what says that the rest is there
                for path in new:
                    os.replace(path, self.folder / path.name)
                self._remove(name, but=[path.name for path in new])
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        entry = {"kind": result.kind, "made_from": made_from, **facts}
        self.update(results={**listed, name: entry})

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove results that the study no longer asks for: the folder holds what the report shows."""
        names, listed = list(names), self.manifest()["results"]
        with writing(self.folder):
            for name in set(listed) - set(names):
                self._remove(name)
        self.update(results={name: listed[name] for name in names if name in listed})

    def _remove(self, name: str, but: Iterable[str] = ()) -> None:
        """The files of one result; its name has been looked at before it comes here."""
        for path in self.folder.glob(f"{plain_name(name, 'a result')}.*"):
            if path.name not in but:
                path.unlink()

    def read_all(self) -> Iterator[tuple[str, dict[str, Any], AnalysisResult]]:
        """Name, manifest entry and result, in the study's order."""
        from ...analyses.result.analysis import read_result

        for name, entry in self.manifest()["results"].items():
            yield name, entry, read_result(self.folder / f"{name}.parquet")


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("made_from"), str)


def _damaged(path: Path, why: str) -> LayerprobeError:
    return LayerprobeError(f"{path} is damaged ({' '.join(why.split())}); delete it and run again")


def result_name(kind: str, *parts: str | None, taken: Iterable[str] = ()) -> str:
    """A file name for a result: the kind and what tells it from its like.

    >>> result_name("linear_probe", "is it true?", "base")
    'linear_probe-is_it_true-base'
    >>> result_name("separation", "y", "base", taken=["separation-y-base"])
    'separation-y-base-2'
    """
    clean = [re.sub(r"[^\w-]+", "_", part).strip("_") for part in (kind, *parts) if part]
    name = "-".join(part for part in clean if part).encode()[:NAME_BYTES].decode(errors="ignore")
    used, number, unique = set(taken), 1, name
    while unique in used:
        number += 1
        unique = f"{name}-{number}"
    return unique


def explain(error: Exception) -> str:
    """An error in one line: our own as they are, others with their type; the traceback goes to the log."""
    import logging

    if isinstance(error, LayerprobeError):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        return system_error(error)
    logging.getLogger("layerprobe").debug("unexpected error", exc_info=error)
    return f"{type(error).__name__}: {' '.join(str(error).split())} (a fault of layerprobe, please report it)"


def plain(value: Any) -> Any:
    """The value with nothing in it but dicts, lists, text, finite numbers, booleans and None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return str(value)
