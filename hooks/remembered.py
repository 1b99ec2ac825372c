"""Hashes and self-check results that later runs need not compute again, in a small folder of JSON."""

import json
import os
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where hashes and self-check results are remembered: $LAYERPROBE_CACHE, else ~/.cache/layerprobe."""
    return Path(os.environ.get("LAYERPROBE_CACHE") or Path.home() / ".cache" / "layerprobe")


def recall(file: str, key: str) -> Any:
    """What was remembered under this key, or None."""
    try:
        return json.loads((cache_folder() / file).read_text()).get(key)
    except (OSError, ValueError):
        return None


def remember(file: str, key: str, value: Any) -> None:
    """Remember a value for later runs; a folder that cannot be written is no reason to fail."""
    path = cache_folder() / file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else {}
        known[key] = value
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known))
        temporary.replace(path)
    except (OSError, ValueError):
        return
