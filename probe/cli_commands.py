"""What can be typed after `layerprobe`: one frozen model per command, its fields the flags.

The options of a study's tables are the same models, so a flag and a line of study.toml are one definition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field
from tyro.conf import Positional, subcommand

from .study_options import (
    AlignmentQualityOptions,
    BehaviourOptions,
    CompareOptions,
    DriftOptions,
    Options,
    ProbeOptions,
    SeparationOptions,
    SuppressionOptions,
)
from .study_spec import CaptureSpec, ModelOptions, PromptColumns


class Demo(Options):
    """Make a per-layer report from the shipped models, offline, on a CPU."""

    out: Path = Path("demo-report")
    """Folder for activations, results and report."""
    quiet: bool = False
    """No progress bars."""


class Run(Options):
    """Run a study file: activations, results, report; only what is missing or changed is redone."""

    study: Positional[Path]
    """The study file (study.toml)."""
    out: Path
    """Folder for activations, results and report."""
    quiet: bool = False
    """No progress bars."""


class _Request(CaptureSpec, PromptColumns, ModelOptions):
    model: str
    """Local folder, hub id, or a shipped model such as demo:base."""
    prompts: str
    """JSONL, CSV, Parquet or a saved datasets folder."""
    chat_template: bool = False
    """Make each text one user message of the model's chat template."""


class Capture(_Request):
    """Run a model over prompts and keep what passes through it; the same command resumes."""

    out: Path
    """The HDF5 file to write."""
    engine_workers: int = Field(default=1, ge=1)
    """Worker processes, each with its own copy of the model."""
    on: Literal["process", "ray"] = "process"
    """Where the workers run."""
    extend: bool = False
    """A finished file stays: what it lacks goes to a sibling, and an index joins them."""
    quiet: bool = False
    """No progress bars."""


class Plan(_Request):
    """Say what a capture would take (rows, bytes, memory, time) without running it."""

    out: Path = Path()
    """Where the file would be written (its disk is the one that is asked for room)."""


class Info(Options):
    """Print what is in a store."""

    store: Positional[tuple[Path, ...]]
    """HDF5 files."""


class _OnStore(Options):
    store: Positional[Path]
    """The HDF5 file that `layerprobe capture` wrote."""
    out: Path
    """Folder for the result tables (Parquet)."""
    quiet: bool = False
    """No progress bars."""


class Probe(ProbeOptions, _OnStore):
    """Fit linear probes per site and layer of a store."""


class Separate(SeparationOptions, _OnStore):
    """Measure how far apart the classes of a label lie, per site and layer of a store."""


class Suppress(SuppressionOptions, _OnStore):
    """Read answer and foil through the lens, layer by layer, and test for late suppression."""

    target: str = "answer"
    """Label column with the answers, or one literal answer."""
    foil: str = "foil"
    """Label column with the foils, or one literal answer such as unknown."""
    label: str | None = None
    """Another name for --by."""


class _OnStores(Options):
    stores: Positional[tuple[str, ...]]
    """NAME=STORE, one per model; the first is the reference."""
    out: Path
    """Folder for the result tables (Parquet)."""
    quiet: bool = False
    """No progress bars."""


class Compare(CompareOptions, _OnStores):
    """Compare models on the same prompts: compare base=a.h5 instruct=b.h5 --label COL --out DIR."""


class Aqi(AlignmentQualityOptions, _OnStores):
    """Alignment Quality Index of one model or several: aqi base=a.h5 instruct=b.h5 --label COL --out DIR."""


class Behaviour(BehaviourOptions, _OnStores):
    """What models answer on contrastive pairs: accuracies, misfired-alignment rates, McNemar's test."""


class Drift(DriftOptions, _OnStore):
    """Where a third kind of prompts lies between two reference clusters, per layer of a store."""


class Report(Options):
    """Write the report again from the results in a folder."""

    folder: Positional[Path]
    """Folder that `run`, `demo`, `probe`, `separate`, `suppress` or `compare` wrote."""


class Verify(Options):
    """Check every byte of a finished store against its checksums."""

    store: Positional[tuple[Path, ...]]
    """HDF5 files."""


class Merge(Options):
    """Join stores of one capture into an index, or into one file."""

    stores: Positional[tuple[Path, ...]]
    """The shards."""
    out: Path
    """The file to write."""
    consolidate: bool = False
    """Copy the data into one file, instead of pointing at the shards."""


Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Run, subcommand("run")]
    | Annotated[Capture, subcommand("capture")]
    | Annotated[Info, subcommand("info")]
    | Annotated[Probe, subcommand("probe")]
    | Annotated[Separate, subcommand("separate")]
    | Annotated[Suppress, subcommand("suppress")]
    | Annotated[Compare, subcommand("compare")]
    | Annotated[Aqi, subcommand("aqi")]
    | Annotated[Drift, subcommand("drift")]
    | Annotated[Behaviour, subcommand("behaviour")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Plan, subcommand("plan")]
    | Annotated[Verify, subcommand("verify")]
    | Annotated[Merge, subcommand("merge")]
)


def commands() -> dict[str, type[Options]]:
    """Name on the command line -> its options."""
    return {model.__name__.lower(): model for model in (get_args(m)[0] for m in get_args(Command))}
