"""From the tables of a study to calls of the analyses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ..results.folder import result_name
from .kinds import KINDS
from .options import AnalysisOptions
from .row_filter import rows_where
from .spec import Study

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult
    from ...cache.store.activations import ActivationStore
    from .pool import ModelPool


def calls(item: Any, study: Study, *, taken: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(result name, models) of each call that one [[analysis]] table stands for."""
    models = item.models or tuple(study.models)
    used = set(taken)
    parts = result_parts(item)
    for chosen in [(m,) for m in models] if item.per_model else [models]:
        who = chosen[0] if item.per_model else None
        name = result_name(item.kind, *parts, who, taken=used)
        used.add(name)
        yield name, chosen


# options by which the results of two analyses of one kind are told apart in their names
TOLD_APART = (
    *("label", "dimensions", "scores", "axis", "across", "domain", "target", "foil", "by", "source"),
    "method",
)


def result_parts(item: AnalysisOptions) -> list[str | None]:
    """What tells this analysis from its like: columns, method, filter."""
    named = [_short(getattr(item, field, None)) for field in TOLD_APART]
    return [*named, *(f"{k}_{v}" for k, v in item.where.items())]


def _short(value: str | tuple[str, ...] | None) -> str | None:
    """One or several names as part of a file name; the usual method needs no saying."""
    if value is None or value == "logistic":
        return None
    return value if isinstance(value, str) else "_".join(value[:4]) + ("_etc" if len(value) > 4 else "")


def about(item: Any) -> str:
    """What an analysis asks, for a progress line."""
    what = [repr(w) for w in item.label_columns()] or [repr(w) for w in (getattr(item, "target", None),) if w]
    return item.kind.replace("_", " ") + (f" of {', '.join(what)}" if what else "")


def check_options(item: Any, kind: str | None = None) -> None:
    """Refuse an option that this kind of analysis does not take.

    Raises:
        LayerprobeError: naming it.
    """
    kind = kind or item.kind
    accepted = accepted_by(kind)
    for name in ("n_permutations", "n_bootstrap"):
        if getattr(item, name) is not None and name not in accepted:
            raise LayerprobeError(f"{kind} draws no {name.removeprefix('n_')}; leave {name} out")
    if item.group is not None and "groups" not in accepted:
        raise LayerprobeError(f"{kind} splits no groups; leave group out")
    if getattr(item, "device", None) is not None:
        check_device(item.device)


def check_device(device: str) -> None:
    """Refuse a device that there is not, before a night's capture rather than after it."""
    from ...hooks.devices import read_device

    read_device(device)


def accepted_by(kind: str) -> set[str]:
    """Names of the keyword arguments that an analysis takes."""
    parameters = inspect.signature(function_of(kind)).parameters
    accepted = set(parameters)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        accepted |= accepted_by("linear_probe")  # what is passed on is passed on to it
    return accepted


def analyse(
    item: AnalysisOptions,
    stores: Mapping[str, ActivationStore],
    *,
    pool: ModelPool | None = None,
    kind: str | None = None,
    progress: bool = False,
) -> AnalysisResult:
    """Run one analysis on one store, or on all of them together where it compares.

    Args:
        item: the options, from a study or from the command line.
        stores: model name -> store.
        pool: where an analysis that runs models finds them.
        kind: which analysis; default: `item.kind`.
        progress: show a progress bar.
    """
    asked: str = kind or item.kind  # type: ignore[attr-defined]
    function = function_of(asked)
    options = item.call_options()
    if item.group is not None:
        options["groups"] = None if item.group == "none" else item.group
    if "progress" in accepted_by(asked):
        options["progress"] = progress
    chosen = {name: rows_where(store, item.where) for name, store in stores.items()}
    given: Any = next(iter(chosen.values())) if item.per_model else chosen
    if not item.runs_models:
        return function(given, **options)
    if pool is None:
        raise LayerprobeError(f"{asked} runs the model and was given none; ask for it in a study.toml")
    # over several models, the last is the one that is read
    name = list(chosen)[0 if item.per_model else -1]
    others = [options["source"]] if options.get("source", "contrast") != "contrast" else []
    with pool.loaded(name, *others) as (model, *rest):
        if rest:
            options["source"] = rest[0]
        return function(given, model=model, **options)


def function_of(kind: str) -> Callable[..., AnalysisResult]:
    """The function behind a kind."""
    module, _, name = KINDS[kind].function.rpartition(":")
    package = __name__.removesuffix(".probe.study.calls_of")
    found: Callable[..., AnalysisResult] = getattr(import_module(f"{package}.{module}".rstrip(".")), name)
    return found
