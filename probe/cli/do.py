"""What each command does; loaded only after the command line has been understood."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ..study.inputs import load_prompts
from ..study.option_models import Options
from ..study.pool import check_model, load_spec, model_source
from ..study.spec import ModelOptions, ModelSpec, PromptColumns, PromptsSpec
from . import commands

if TYPE_CHECKING:
    from ...cache.prompts.table import PromptTable
    from ..study.runner import StudyRun


def run_command(command: Options) -> None:
    """Do what was asked; the answer goes to stdout, progress to stderr."""
    _quiet_libraries()
    if isinstance(command, commands.AnalysisCommand):
        from .analyse import run_analysis

        run_analysis(command)
    else:
        DO[type(command)](command)


def _quiet_libraries() -> None:
    import logging
    import os

    # Warnings of the libraries underneath would bury the one line that matters.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait make a busy machine ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    _log_to_stderr()


def _log_to_stderr() -> None:
    """Warnings of ours on stderr; everything, tracebacks included, where LAYERPROBE_DEBUG is set."""
    import logging
    import os

    from rich.console import Console
    from rich.logging import RichHandler

    log = logging.getLogger("layerprobe")
    if not any(isinstance(handler, RichHandler) for handler in log.handlers):
        log.addHandler(RichHandler(console=Console(stderr=True), show_path=False, rich_tracebacks=True))
    log.setLevel(logging.DEBUG if os.environ.get("LAYERPROBE_DEBUG") else logging.WARNING)
    log.propagate = False


def _demo(command: commands.Demo) -> None:
    import os

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the shipped models are too small to share out
    from .. import demo
    from ..study.runner import run_study

    line = f"layerprobe demo --out {shlex.quote(str(command.out))}"
    done = run_study(demo.study_file(), out=command.out, progress=not command.quiet, command=line)
    _tell(done)


def _run(command: commands.Run) -> None:
    from ..study.runner import run_study

    line = shlex.join(["layerprobe", "run", str(command.study), "--out", str(command.out)])
    done = run_study(command.study, out=command.out, progress=not command.quiet, command=line)
    if not done.redone:
        print("nothing to redo: activations and results are those of this study", file=sys.stderr)
    _tell(done)


def _tell(done: StudyRun) -> None:
    """The findings and the report's path; what failed goes to stderr, with exit code 1."""
    print(done.findings())
    print(done.report.resolve())
    if done.failures:
        for name, why in done.failures.items():
            print(f"layerprobe: {name} could not be computed: {why}", file=sys.stderr)
        raise SystemExit(1)


def _report(command: commands.Report) -> None:
    from ..report.write import write_report

    print(write_report(command.folder).resolve())


def _request(command: commands.Capture | commands.Plan) -> dict[str, Any]:
    """Keyword arguments of `capture` from the flags."""
    return {
        "sites": list(command.sites),
        "tokens": command.tokens,
        "chat_template": True if command.chat_template else None,
        "chat_options": _values(command.chat_options),
        "lens_tokens": list(command.lens_tokens),
        "lens_first_difference": command.lens_first_difference,
        "batch_tokens": command.batch_tokens,
        "dtype": command.store_dtype,
        "top_k": command.top_k,
        "on_long": command.on_long,
        "generate": _values(command.generate),
    }


def _checked_request(command: commands.Capture | commands.Plan) -> tuple[ModelSpec, str, PromptTable]:
    """The model's spec and short name and the prompts, looked at before the weights are loaded."""
    template = True if command.chat_template else None
    spec = ModelSpec(
        source=command.model,
        chat_template=template,
        chat_options=_values(command.chat_options),
        **_load_options(command),
    )
    columns = {k: getattr(command, k) for k in PromptColumns.model_fields}
    labels = dict.fromkeys([*command.labels, *command.lens_tokens])
    prompts = load_prompts(PromptsSpec(file=command.prompts, **columns), labels)
    name = command.model.removeprefix("demo:").rstrip("/").rsplit("/", 1)[-1]
    check_model(name, spec, command.model_copy(update={"generate": _values(command.generate)}), prompts)
    return spec, name, prompts


def _load_options(spec: Any) -> dict[str, Any]:
    of_prompts = ("chat_template", "chat_options")
    return {k: getattr(spec, k) for k in ModelOptions.model_fields if k not in of_prompts}


def _values(options: Mapping[str, str]) -> dict[str, Any]:
    """`enable_thinking=false` is a JSON value; what is no JSON is a text."""
    return {name: _json_or_text(value) for name, value in options.items()}


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _capture(command: commands.Capture) -> None:
    if command.engine_workers > 1 or command.on == "ray":
        _capture_with_workers(command)
        return
    from ...cache.capture.run import capture

    spec, name, prompts = _checked_request(command)
    model = load_spec(spec, name)
    command.out.parent.mkdir(parents=True, exist_ok=True)
    asked = _request(command) | {"extend": command.extend}
    print(capture(model, prompts, path=command.out, progress=not command.quiet, **asked))


def _capture_with_workers(command: commands.Capture) -> None:
    from ...cache.workers.distributed import capture_shards

    if command.extend:
        raise LayerprobeError(
            "--extend works in one process: leave --engine-workers and --on out, or capture to another --out"
        )
    spec, name, prompts = _checked_request(command)
    store = capture_shards(
        model_source(spec.source),
        prompts,
        out=command.out,
        workers=command.engine_workers,
        on="ray" if command.on == "ray" else "process",
        load=_load_options(spec) | {"name": name},
        progress=not command.quiet,
        **_request(command),
    )
    print(store)


def _plan(command: commands.Plan) -> None:
    from ...cache.capture.plan import plan

    spec, name, prompts = _checked_request(command)
    print(plan(load_spec(spec, name), prompts, path=command.out, **_request(command)))


#: exit code of `verify` where nothing is damaged but rows are still to come
INCOMPLETE = 3


def _verify(command: commands.Verify) -> None:
    if not command.store:
        raise LayerprobeError("verify needs a store: layerprobe verify FILE.h5")
    from ...cache.store.verify import verify

    reports = [verify(path) for path in command.store]
    print("\n".join(str(report) for report in reports))
    if not all(report.ok for report in reports):
        raise SystemExit(1)
    if not all(report.complete for report in reports):
        raise SystemExit(INCOMPLETE)


def _merge(command: commands.Merge) -> None:
    if not command.stores:
        raise LayerprobeError("merge needs the shards: layerprobe merge SHARD.h5 ... --out ALL.h5")
    from ...cache.store.merge import merge

    print(merge(list(command.stores), command.out, consolidate=command.consolidate))


def _info(command: commands.Info) -> None:
    if not command.store:
        raise LayerprobeError("info needs a store: layerprobe info FILE.h5")
    from ...cache.store.info import describe

    print("\n\n".join(describe(path) for path in command.store))


DO: dict[type[Any], Callable[[Any], None]] = {
    commands.Demo: _demo,
    commands.Run: _run,
    commands.Capture: _capture,
    commands.Info: _info,
    commands.Report: _report,
    commands.Plan: _plan,
    commands.Verify: _verify,
    commands.Merge: _merge,
}
