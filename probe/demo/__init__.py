"""The models that ship with the package, their prompts and the study that `layerprobe demo` runs."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

MODEL_NAMES = ("base", "instruct", "instruct_null")


def _shipped(*parts: str) -> Path:
    # The folders must be real files on disk: transformers opens them by path.
    return Path(str(resources.files(__name__).joinpath(*parts)))


def models() -> dict[str, Path]:
    """The shipped Hugging Face folders: base, instruct (a planted late override), instruct_null (none).

    >>> sorted(models())
    ['base', 'instruct', 'instruct_null']
    """
    return {name: _shipped("models", name) for name in MODEL_NAMES}


def prompts_file() -> Path:
    """The shipped prompts (JSONL).

    >>> prompts_file().name
    'prompts.jsonl'
    """
    return _shipped("data", "prompts.jsonl")


def study_file() -> Path:
    """The study that `layerprobe demo` runs (TOML)."""
    return _shipped("study.toml")
