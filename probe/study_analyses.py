"""From the tables of a study to calls of the analyses."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .study_results import result_name
from .study_rows import rows_where
from .study_spec import AnalysisOptions, Study

if TYPE_CHECKING:
    from ..analyses.result import AnalysisResult
    from ..cache.store import ActivationStore
    from .study_models import ModelPool


def calls(item: Any, study: Study, *, taken: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(result name, models) of each call that one [[analysis]] table stands for."""
    models = item.models or tuple(study.models)
    used = set(taken)
    about_what = [getattr(item, f, None) for f in ("label", "target", "foil", "by")]
    filters = [f"{k}_{v}" for k, v in item.where.items()]
    for chosen in [(m,) for m in models] if item.per_model else [models]:
        who = chosen[0] if item.per_model else None
        name = result_name(item.kind, *about_what, *filters, who, taken=used)
        used.add(name)
        yield name, chosen


def about(item: Any) -> str:
    """What an analysis asks, for a progress line."""
    parts = [getattr(item, f, None) for f in ("label", "target")]
    what = next((p for p in parts if p), None)
    return item.kind.replace("_", " ") + (f" of {what!r}" if what else "")


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
    kind = kind or item.kind  # type: ignore[attr-defined]
    function = ANALYSES[kind]()
    options = item.call_options()
    if item.group is not None:
        options["groups"] = None if item.group == "none" else item.group
    chosen = {name: rows_where(store, item.where) for name, store in stores.items()}
    options["progress"] = progress
    accepted = inspect.signature(function).parameters
    options = {k: v for k, v in options.items() if k in accepted or k not in ("progress", "seed")}
    given: Any = chosen if not item.per_model else next(iter(chosen.values()))
    return function(given, **options)


def _linear_probe() -> Any:
    from ..analyses.linear_probe import linear_probe

    return linear_probe


def _separation() -> Any:
    from ..analyses.separation import separation

    return separation


def _suppression() -> Any:
    from ..analyses.suppression import suppression

    return suppression


def _compare() -> Any:
    from ..analyses.comparison import compare

    return compare


# Imported when called: each brings its own heavy libraries.
ANALYSES = {
    "linear_probe": _linear_probe,
    "separation": _separation,
    "suppression": _suppression,
    "compare": _compare,
}
