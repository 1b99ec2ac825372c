"""What can be typed after `layerprobe`: one frozen model per command, its fields the flags.

The options of a study's tables are the same models, so a flag and a line of study.toml are one definition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

import tyro
from pydantic import Field, create_model
from tyro.conf import Positional, subcommand

from ..study.kinds import KINDS, Kind
from ..study.options import Made, Options
from ..study.spec import CaptureSpec, ModelOptions, PromptColumns


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
    chat_options: dict[str, str] = Field(default_factory=dict)  # type: ignore[assignment]
    """For the chat template, values as JSON: enable_thinking=false date=2024-07-26 'tools=[{...}]'."""


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


class AnalysisCommand(Options):
    """What every analysis takes on the command line."""

    kind: ClassVar[str]

    out: Path
    """Folder for the result tables (Parquet); several analyses may share one."""
    quiet: bool = False
    """No progress bars."""


class _OnStore(AnalysisCommand):
    store: Positional[Path]
    """The HDF5 file that `layerprobe capture` wrote."""


class _OnStores(AnalysisCommand):
    stores: Positional[tuple[str, ...]]
    """NAME=STORE, one per model; the first is the reference."""


class _WithModel(Options):
    model: str | None = None
    """The model that the store was captured from: a local folder, hub id, or a shipped model such as
    demo:base (default: where the capture found it)."""
    engine: Literal["huggingface", "transformer_lens", "nnsight"] = "huggingface"
    """What runs the model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: str | None = None
    """float32, bfloat16 or float16; default: the checkpoint's own (float32 on a CPU)."""
    device: str = "auto"
    """Where the model runs: auto, cpu, cuda, cuda:1, mps."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository ships."""


class _Suppress(Options):
    target: str = "answer"
    """Label column with the answers, or one literal answer."""
    foil: str = "foil"
    """Label column with the foils, or one literal answer such as unknown."""
    label: str | None = None
    """Another name for --by."""


# what a command has beside the options of its kind
BESIDE: dict[str, tuple[type[Options], ...]] = {"suppress": (_Suppress,)}


def _analysis_command(kind: Kind) -> type[AnalysisCommand]:
    """The command of a kind: its options, the store or stores it reads, and the model where it runs one."""
    base = _OnStore if kind.options.per_model else _OnStores
    model = (_WithModel,) if kind.options.runs_models else ()
    made: Any = create_model(
        kind.command.title().replace("-", ""),
        __base__=(*BESIDE.get(kind.command, ()), kind.options, *model, base, Made),
        __doc__=kind.options.__doc__,
    )
    made.kind = kind.name
    return made  # type: ignore[no-any-return]


class Report(Options):
    """Write the report again from the results in a folder."""

    folder: Positional[Path]
    """Folder that `run`, `demo` or an analysis wrote (its --out)."""


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


#: name on the command line -> its options, in the order of the help text
COMMANDS: dict[str, type[Options]] = {
    "demo": Demo,
    "run": Run,
    "capture": Capture,
    "info": Info,
    **{kind.command: _analysis_command(kind) for kind in KINDS.values()},
    "report": Report,
    "plan": Plan,
    "verify": Verify,
    "merge": Merge,
}
# where the type alone would be shown in a way that nobody types
METAVARS: dict[Any, str] = {
    dict[str, str | bool | int]: "COL=VALUE ...",
    dict[str, str]: "KEY=VALUE ...",
    str | tuple[str, ...]: "COL ...",
    float | str | None: "SHARE|SPLIT",
}


def _for_reading(model: type[Options]) -> None:
    """Help texts with what is needed first, and no "(default: None)" where the text says what is done."""
    fields = model.model_fields
    for name, field in fields.items():
        shown: dict[str, Any] = {}
        if not field.is_required() and field.get_default(call_default_factory=True) in (None, (), {}):
            shown["help_behavior_hint"] = ""
        if field.annotation in METAVARS:
            shown["metavar"] = METAVARS[field.annotation]
        if shown:
            model.__annotations__[name] = Annotated[field.annotation, tyro.conf.arg(**shown)]
    model.__pydantic_fields__ = dict(sorted(fields.items(), key=lambda item: not item[1].is_required()))


for _model in COMMANDS.values():
    _for_reading(_model)
Command: Any = Union[  # noqa: UP007
    tuple(Annotated[model, subcommand(name)] for name, model in COMMANDS.items())  # type: ignore[misc]
]
