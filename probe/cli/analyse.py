"""The analysis commands: open what was named, ask the one question, save the answer and say it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ..study.calls import analyse, other_models, result_parts
from ..study.checks import check_device, near
from ..study.option_models import AnalysisOptions, options_of
from ..study.pool import ModelPool
from ..study.spec import ModelSpec
from .commands import AnalysisCommand, OnStore, OnStores, WithModel

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult
    from ...cache.store.activations import ActivationStore

LOADING = ("engine", "revision", "dtype", "device", "trust_remote_code")


def run_analysis(command: AnalysisCommand) -> None:
    """Run the analysis that a command names, write its result, print its sentences."""
    options = _options(command)
    analysis = options.analysis
    if not analysis.runs_model:
        check_device(options)
    if isinstance(command, OnStores):
        stores = _named_stores(command, least=analysis.least)
    else:
        assert isinstance(command, OnStore)
        store = _open(command.store)
        stores = {store.model_name: store}
    for opened in stores.values():
        _check_columns(options, opened)
    pool = _pool(command, options, stores) if isinstance(command, WithModel) else None
    result = analyse(options, stores, pool=pool, progress=not command.quiet)
    _save(options, stores, result, command)


def _check_columns(options: AnalysisOptions, store: ActivationStore) -> None:
    """Label columns that the store has not, groups that nobody named, in the words of the command line."""
    columns = set(store.label_names)
    for column in options.option_columns():
        if column not in columns:
            raise LayerprobeError(
                f"{store.model_name} has no label column {column!r}; {near(column, columns)}"
            )
    known = columns | set(store.lens.columns if store.lens is not None else ())
    for name, (answer, *_) in options.named("answer").items():
        if options.is_default(name) and answer not in known:
            raise LayerprobeError(
                f"{store.model_name} has no label column {answer!r}; name the {name}'s column with --{name} "
                f"(there are {', '.join(sorted(known)) or 'none'})"
            )
    if "group" in options.reads and options.is_default("group") and store.groups is None:
        raise LayerprobeError(
            f"{store.model_name} has no groups, and without them paraphrases of one item may sit on both "
            "sides of a split; name their column with --group COL, or say --group none: every prompt its own "
            "group"
        )


def _options(command: AnalysisCommand) -> AnalysisOptions:
    """The analysis's own part of a command."""
    options = options_of(command.analysis.kind)
    given = {name: getattr(command, name) for name in options.model_fields}
    by = getattr(command, "label", None) if "label" not in options.model_fields else None
    if by is not None:  # suppress --label
        if given["by"] not in (None, by):
            raise LayerprobeError("--label and --by are two names of one option here; give one of them")
        given["by"] = by
    return options(**given)


def _open(path: str | Path) -> ActivationStore:
    from ...cache.store.open import open_store

    store = open_store(path)
    if not store.complete:
        raise LayerprobeError(f"{path} is not complete; run its capture command again to finish it")
    return store


def _named_stores(command: OnStores, *, least: int) -> dict[str, ActivationStore]:
    """The stores of NAME=STORE arguments."""
    verb, words = command.analysis.command, command.stores
    named: dict[str, ActivationStore] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals and least == 1 and len(words) == 1:
            store = _open(word)
            named[store.model_name] = store  # one model needs no name
            break
        if not equals or not name or not path:
            raise LayerprobeError(f"{verb} takes NAME=STORE, got {word!r}; for example base={word}")
        if name in named:
            raise LayerprobeError(f"two stores are named {name!r}; give each its own name")
        named[name] = _open(path)
    if len(named) < least:
        needed = "one store or more" if least == 1 else f"{least} stores or more"
        raise LayerprobeError(f"{verb} needs {needed}, got {len(named)}: NAME=STORE ...")
    return named


def _pool(command: WithModel, options: AnalysisOptions, stores: dict[str, ActivationStore]) -> ModelPool:
    """Where an analysis that runs models finds them: the store's own model, and the one it patches from."""
    name, store = list(stores.items())[-1 if options.analysis.on == "stores" else 0]
    loading = {key: getattr(command, key) for key in LOADING}
    specs = {name: ModelSpec(source=command.model or _captured_from(store), **loading)}
    for option, source in other_models(options).items():
        if source == name:
            raise LayerprobeError(f"--{option} {source!r} is the model itself; name another")
        specs[source] = ModelSpec(source=source, **loading)
    return ModelPool(specs)


def _captured_from(store: ActivationStore) -> str:
    """Where the capture found its model, if it is still there."""
    source = str(store.provenance.get("model", {}).get("source") or "")
    if not source or (Path(source).is_absolute() and not Path(source).exists()):
        was = f" (it was {source})" if source else ""
        raise LayerprobeError(
            f"the model of {store.model_name!r} is not where the capture found it{was}; "
            "name it: --model FOLDER"
        )
    return source


def _save(
    options: AnalysisOptions,
    stores: dict[str, ActivationStore],
    result: AnalysisResult,
    command: AnalysisCommand,
) -> None:
    from ..results.folder import ResultsFolder, result_name
    from ..study.facts import study_facts
    from ..study.inputs import fingerprint

    kind = options.analysis.kind
    asked = options.model_dump(mode="json", exclude_defaults=True)
    name = result_name(kind, *result_parts(options), *([] if len(stores) > 1 else stores))
    folder = ResultsFolder(command.out)
    made_from = fingerprint([asked, list(stores)])
    folder.save(name, result, made_from, models=list(stores), options=asked | {"kind": kind})
    line = shlex.join(["layerprobe", *sys.argv[1:]]) if sys.argv[1:] else "layerprobe"
    title = _title(folder.manifest()["results"].values())
    folder.update(facts=study_facts(title, None, stores, command=line))
    print(result.summary())
    print(f"{folder.folder / name}.parquet; for a report: layerprobe report {command.out}", file=sys.stderr)


def _title(entries: Collection[Mapping[str, Any]]) -> str:
    """What a folder of single analyses is about, as the heading of its report."""
    kinds = dict.fromkeys(str(e["options"].get("kind", e["kind"])).replace("_", " ") for e in entries)
    models = dict.fromkeys(name for e in entries for name in e["models"])
    asked = ", ".join(list(kinds)[:4]) + (" and more" if len(kinds) > 4 else "")
    return f"{asked[0].upper()}{asked[1:]}: {', '.join(models)}"
