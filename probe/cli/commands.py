"""What can be typed after `layerprobe`: one frozen model per command, its fields the flags.

The options of a study's tables are the same models, so a flag and a line of study.toml are one definition.
The model of an analysis is made when its command is typed; until then its name and first line are read off
its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, create_model
from pydantic_core import PydanticUndefined
from tyro.conf import Positional

from ...analyses.result import catalogue
from ...analyses.result.registry import GROUPS
from ..study.option_models import AnalysisOptions, Made, Options, options_of
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
    chat_options: dict[str, str] = Field(default_factory=dict)
    """For the chat template, values as JSON: enable_thinking=false date=2024-07-26 'tools=[{...}]'."""
    generate: dict[str, str] = Field(default_factory=dict)
    """How the model continues the prompts, for --tokens generated: max_new_tokens=64 do_sample=true."""


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


class AnalysisCommand(AnalysisOptions):
    """What every analysis takes on the command line."""

    out: Path
    """Folder for the result tables (Parquet); several analyses may share one."""
    quiet: bool = False
    """No progress bars."""


class OnStore(AnalysisCommand):
    """Of an analysis of one store."""

    store: Positional[Path]
    """The HDF5 file that `layerprobe capture` wrote."""


class OnStores(AnalysisCommand):
    """Of an analysis of several stores."""

    stores: Positional[tuple[str, ...]]
    """NAME=STORE, one per model; the first is the reference."""


class WithModel(Options):
    """Of an analysis that runs the model."""

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


COMMANDS: dict[str, type[Options]] = {
    "demo": Demo,
    "run": Run,
    "capture": Capture,
    "report": Report,
    "info": Info,
    "plan": Plan,
    "verify": Verify,
    "merge": Merge,
}
"""The commands that are no analysis: name → options."""
FIRST = ("demo", "run", "capture", "report", "info")

BESIDE: dict[str, tuple[type[Options], ...]] = {"suppression": (_Suppress,)}
"""What the command of a kind has beside its options."""

METAVARS: dict[Any, str] = {
    dict[str, str | bool | int]: "COL=VALUE ...",
    dict[str, str]: "KEY=VALUE ...",
    str | tuple[str, ...]: "COL ...",
    float | str: "SHARE|SPLIT",
    tuple[str, ...] | None: "STR ...",
    tuple[str, ...]: "STR ...",
    tuple[int, ...] | None: "INT ...",
}
"""Types that alone would be shown in a way that nobody types."""


def names() -> dict[str, str]:
    """Every command and the first line of what is said of it."""
    ours = {name: _first_line(model) for name, model in COMMANDS.items()}
    return ours | {one.command: _about(one) for one in catalogue.listed().values()}


def called(word: str) -> str | None:
    """The command that is meant: by its name, the kind of its analysis or a former one; None: no command."""
    if word in COMMANDS:
        return word
    kind = catalogue.name_of(word) or catalogue.name_of(word.replace("-", "_"))
    return catalogue.listed()[kind].command if kind else None


@cache
def model_of(command: str) -> type[Options]:
    """The options of a command; the module of an analysis is imported."""
    if command in COMMANDS:
        made = COMMANDS[command]
    else:
        kind = catalogue.name_of(command)
        assert kind is not None, command
        options = options_of(kind)
        base = (
            *BESIDE.get(kind, ()),
            options,
            *((WithModel,) if options.analysis.runs_model else ()),
            OnStores if options.analysis.on == "stores" else OnStore,
            Made,
        )
        made = create_model(command.title().replace("-", ""), __base__=base, __doc__=options.__doc__)
    _for_reading(made)
    return made


def groups() -> Iterator[tuple[str, dict[str, str]]]:
    """The commands as `--help` lists them: heading, and what each does."""
    about = names()
    yield "Start here", {name: about[name] for name in FIRST}
    for group, title in GROUPS.items():
        found = [one for one in catalogue.listed().values() if one.group == group]
        if found:
            yield title, {one.command: about[one.command] for one in found}
    yield "Stores", {name: about[name] for name in COMMANDS if name not in FIRST}


def _about(listed: catalogue.Listed) -> str:
    return listed.about if listed.package == "layerprobe" else f"{listed.about} (from {listed.package})"


def _first_line(model: type[Options]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]


def _for_reading(model: type[Options]) -> None:
    """Help texts with what is needed first, and no "(default: None)" where the text says what is done."""
    fields = model.model_fields
    for name, field in fields.items():
        shown: dict[str, Any] = {}
        default = field.get_default(call_default_factory=True)
        if default is not PydanticUndefined and default in (None, (), {}):
            shown["help_behavior_hint"] = ""
        if field.annotation in METAVARS:
            shown["metavar"] = METAVARS[field.annotation]
        if shown:
            model.__annotations__[name] = Annotated[field.annotation, *field.metadata, tyro.conf.arg(**shown)]
    order = {name: (not field.is_required(), name in ("where", "quiet")) for name, field in fields.items()}
    model.__pydantic_fields__ = dict(sorted(fields.items(), key=lambda item: order[item[0]]))
