"""From the tables of a study to calls of the analyses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...hooks.errors import LayerprobeError
from ..results.folder import result_name
from .option_models import AnalysisOptions, InStudy
from .row_filter import rows_where
from .spec import Study

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult
    from ...cache.store.activations import ActivationStore
    from .pool import ModelPool


def calls(item: InStudy, study: Study, *, taken: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(result name, models) of each call that one [[analysis]] table stands for."""
    models = item.models or tuple(study.models)
    used = set(taken)
    parts = result_parts(item)
    one_by_one = item.analysis.on == "store"
    for chosen in [(m,) for m in models] if one_by_one else [models]:
        name = result_name(item.kind, *parts, chosen[0] if one_by_one else None, taken=used)
        used.add(name)
        yield name, chosen


# they say how rows belong together, not what is asked
NOT_TOLD = ("role", "side", "pair")


def result_parts(item: AnalysisOptions) -> list[str | None]:
    """What tells this analysis from its like: columns, answers, another model, method, filter."""
    named = item.named("classes", "numbers", "column", "answer") | item.named("loaded")
    told = [_short(names) for name, names in named.items() if name not in NOT_TOLD]
    method = str(getattr(item, "method", "logistic"))
    told += [] if method == "logistic" else [method]  # the usual one needs no saying
    return [*told, *(f"{k}_{v}" for k, v in item.where.items())]


def _short(names: tuple[str, ...]) -> str:
    """One or several names as part of a file name."""
    return "_".join(names[:4]) + ("_etc" if len(names) > 4 else "")


def about(item: InStudy) -> str:
    """What an analysis asks, for a progress line."""
    what = item.label_columns() or item.named("answer").get("target", ())
    return item.kind.replace("_", " ") + (f" of {', '.join(map(repr, what))}" if what else "")


def analyse(
    item: AnalysisOptions,
    stores: Mapping[str, ActivationStore],
    *,
    pool: ModelPool | None = None,
    progress: bool = False,
) -> AnalysisResult:
    """Run one analysis on one store, or on all of them together where it compares.

    Args:
        item: the options, from a study or from the command line.
        stores: model name -> store.
        pool: where an analysis that runs models finds them.
        progress: show a progress bar.
    """
    analysis = item.analysis
    options = item.call_options()
    if _takes_progress(item):
        options["progress"] = progress
    chosen = {name: rows_where(store, item.where) for name, store in stores.items()}
    given: Any = chosen if analysis.on == "stores" else next(iter(chosen.values()))
    if not analysis.runs_model:
        return analysis.call(given, **options)
    if pool is None:
        raise LayerprobeError(
            f"{analysis.kind} runs the model and was given none; ask for it in a study.toml"
        )
    # over several models, the last is the one that is read
    name = list(chosen)[-1 if analysis.on == "stores" else 0]
    others = other_models(item)
    with pool.loaded(name, *others.values()) as (model, *rest):
        options |= dict(zip(others, rest, strict=True))
        return analysis.call(given, model=model, **options)


def other_models(item: AnalysisOptions) -> dict[str, str]:
    """Option → the model that it names, which is loaded too."""
    return {name: names[0] for name, names in item.named("loaded").items() if not item.is_default(name)}


def _takes_progress(item: AnalysisOptions) -> bool:
    parameters = inspect.signature(item.analysis.call).parameters
    passed_on = item.analysis.passes_on
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and passed_on is not None:
        parameters = inspect.signature(passed_on).parameters
    return "progress" in parameters
