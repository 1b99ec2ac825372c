"""`run_study`: models → activations → results → report, redoing only what is missing or changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ..results.folder import ResultsFolder, explain, write_whole
from ..results.writing import writing
from .calls import about, analyse, calls
from .facts import study_facts
from .inputs import checked_inputs, fingerprint, request_key
from .option_models import InStudy
from .pool import ModelPool, weights_hash
from .spec import ModelSpec, Study
from .toml import read_study, study_toml

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult
    from ...cache.prompts.table import PromptTable
    from ...cache.store.activations import ActivationStore
    from ...hooks.model import Model

__all__ = ["Study", "StudyRun", "run_study"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyRun:
    """What a study left behind."""

    out: Path
    """The folder: activations/, results/, results.json, report.html."""
    report: Path
    """The report, one HTML file."""
    stores: Mapping[str, ActivationStore]
    """Model name -> its activations."""
    results: Mapping[str, AnalysisResult]
    """Result name (the stem of its Parquet file) -> result."""
    redone: tuple[str, ...]
    """What this run had to do (models captured, results computed); the rest was there already."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Result name -> why it could not be computed; the report says so in its place."""

    def summary(self) -> str:
        """Everything that the analyses say of their numbers, one sentence a line."""
        return "\n".join(str(line) for result in self.results.values() for line in result.summary())

    def findings(self) -> str:
        """The summary at the top of the report, one sentence a line."""
        from ..report.write import read_findings

        return "\n".join(read_findings(self.out))

    def __repr__(self) -> str:
        return f"StudyRun({len(self.results)} results of {', '.join(self.stores)}; report: {self.report})"


def run_study(
    study: Study | Mapping[str, Any] | str | Path,
    *,
    out: str | Path,
    progress: bool = True,
    command: str = "",
) -> StudyRun:
    """Run a study: capture each model's activations, analyse them, write the report.

    Everything that was given is checked before any long work. Running it again redoes only what is missing
    or changed; an interrupted capture resumes.

    Args:
        study: path of a study.toml, a mapping of the same shape, or a `Study`.
        out: folder for `activations/`, `results/*.parquet`, `results.json`, `report.html`.
        progress: say on stderr what is being done.
        command: how the report says it can be made again; default: `layerprobe run`.

    Returns:
        The stores, the results and the path of the report.

    Raises:
        LayerprobeError: something given is wrong; nothing has been written then.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:  # models, prompts and questions as in a study.toml
    ...     done = run_study(
    ...         {
    ...             "models": {"base": {"source": "demo:base"}},
    ...             "prompts": {"file": "demo:prompts", "group": "group"},
    ...             "analysis": [{"kind": "separation", "label": "sensitive", "n_permutations": 20}],
    ...         },
    ...         out=folder,
    ...         progress=False,
    ...     )
    ...     sorted(done.results), done.report.is_file()
    (['separation-sensitive-base'], True)
    """
    say = _speaker(progress)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise LayerprobeError(f"out={str(out)!r} is a file; name a folder")
    written = read_study(study)
    spec, prompts = checked_inputs(written)
    redone: list[str] = []
    pool = ModelPool(spec.models)
    stores, keys = _stores(spec, prompts, out / "activations", pool, say, redone, progress)
    folder = ResultsFolder(out)
    results: dict[str, AnalysisResult] = {}
    failures: dict[str, str] = {}
    for item in spec.analysis:
        for name, models in calls(item, spec, taken=[*results, *failures]):
            made_from = _made_from(item, {m: keys[m] for m in models})
            result = folder.current(name, made_from)
            if result is None:
                say(f"{about(item)}: {', '.join(models)}")
                redone.append(name)
                try:
                    result = analyse(item, {m: stores[m] for m in models}, pool=pool, progress=progress)
                except Exception as error:  # the other results and the report must not be lost with it
                    failures[name] = explain(error)
                    say(f"{name}: {failures[name]}")
                    continue
                options = item.model_dump(mode="json", exclude_defaults=True) | {"kind": item.kind}
                folder.save(name, result, made_from, models=list(models), options=options)
            results[name] = result
    folder.keep_only(results)
    folder.update(failures=failures)
    if not results:
        raise LayerprobeError("; ".join(f"{name}: {why}" for name, why in failures.items()))
    command = command or f"layerprobe run study.toml --out {out}"
    folder.update(facts=study_facts(written.title, prompts, stores, command=command, spec=written))
    write_whole(out / "study.toml", study_toml(written))
    from ..report.write import write_report

    return StudyRun(out, write_report(out), stores, results, tuple(redone), failures)


def _stores(
    spec: Study,
    prompts: PromptTable,
    folder: Path,
    pool: ModelPool,
    say: Say,
    redone: list[str],
    progress: bool,
) -> tuple[dict[str, ActivationStore], dict[str, str]]:
    """Every model's activations and the key of what they were captured from; captured where not yet there."""
    stores, keys = {}, {}
    for name, model_spec in spec.models.items():
        weights = weights_hash(model_spec)
        if weights is None:  # not on this machine yet
            with pool.loaded(name) as (model,):
                weights = model.identity.weights_sha256
        keys[name] = request_key(model_spec, weights, prompts.sha256, spec)
        path = folder / f"{name}-{keys[name][:8]}.h5"
        store = _finished(path)
        if store is None:
            say(f"activations: {name}, {len(prompts):,} prompts")
            with pool.loaded(name) as (model,):
                store = _capture(model, prompts, spec, model_spec, path, progress)
            redone.append(name)
        stores[name] = store
    return stores, keys


def _finished(path: Path) -> ActivationStore | None:
    from ...cache.store.open import open_store

    if not path.is_file():
        return None
    store = open_store(path)
    return store if store.complete else None


def _capture(
    model: Model, prompts: PromptTable, spec: Study, model_spec: ModelSpec, path: Path, progress: bool
) -> ActivationStore:
    from ...cache.capture.run import capture

    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    asked = spec.capture
    return capture(
        model,
        prompts,
        sites=list(asked.sites),
        tokens=asked.tokens,
        path=path,
        chat_template=model_spec.chat_template,
        chat_options=model_spec.chat_options,
        lens_tokens=list(asked.lens_tokens),
        lens_first_difference=asked.lens_first_difference,
        batch_tokens=asked.batch_tokens,
        dtype=asked.store_dtype,
        top_k=asked.top_k,
        on_long=asked.on_long,
        generate=asked.generate,
        progress=progress,
    )


def _made_from(item: InStudy, keys: Mapping[str, str]) -> str:
    from ... import __version__

    asked = item.model_dump(mode="json", exclude={"models", "device"})
    return fingerprint({"analysis": asked, "stores": dict(keys), "layerprobe": __version__})


def _speaker(progress: bool) -> Say:
    def say(line: str) -> None:
        if progress:
            print(line, file=sys.stderr, flush=True)

    return say
