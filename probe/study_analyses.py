"""From the tables of a study to calls of the analyses."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import analyses
from ..hooks.errors import LayerprobeError
from .study_options import AnalysisOptions
from .study_results import result_name
from .study_rows import rows_where
from .study_spec import Study

if TYPE_CHECKING:
    from ..analyses.result import AnalysisResult
    from ..cache.store import ActivationStore
    from .study_models import ModelPool


PACKAGE = analyses.__name__


def calls(item: Any, study: Study, *, taken: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(result name, models) of each call that one [[analysis]] table stands for."""
    models = item.models or tuple(study.models)
    used = set(taken)
    about_what = [getattr(item, f, None) for f in ("label", "axis", "target", "foil", "by", "source")]
    about_what = [w if isinstance(w, str) else "_".join(w or ()) for w in about_what]
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


def check_options(item: Any) -> None:
    """Refuse an option that this kind of analysis does not take.

    Raises:
        LayerprobeError: naming it.
    """
    accepted = inspect.signature(function_of(item.kind)).parameters
    for name in ("n_permutations", "n_bootstrap"):
        if getattr(item, name) is not None and name not in accepted:
            raise LayerprobeError(f"{item.kind} draws no {name.removeprefix('n_')}; leave {name} out")


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
    function = function_of(kind or item.kind)  # type: ignore[attr-defined]
    options = item.call_options()
    if item.group is not None:
        options["groups"] = None if item.group == "none" else item.group
    accepted = inspect.signature(function).parameters
    if "progress" in accepted:
        options["progress"] = progress
    chosen = {name: rows_where(store, item.where) for name, store in stores.items()}
    if not item.per_model:
        return function(chosen, **options)
    name, store = next(iter(chosen.items()))
    if not item.runs_models:
        return function(store, **options)
    if pool is None:
        raise LayerprobeError("this analysis runs the model: ask for it in a study.toml")
    others = [options["source"]] if options.get("source", "contrast") != "contrast" else []
    with pool.loaded(name, *others) as (model, *rest):
        if rest:
            options["source"] = rest[0]
        return function(store, model=model, **options)


# kind -> (module below `layerprobe.analyses`, function); imported when called, for each is heavy
ANALYSES = {
    "linear_probe": ("linear_probe", "linear_probe"),
    "separation": ("separation", "separation"),
    "suppression": ("suppression", "suppression"),
    "compare": ("comparison", "compare"),
    "behaviour": ("behaviour_pairs", "behaviour"),
    "attribution": ("attribution", "attribution"),
    "ablation": ("ablation", "ablation"),
    "patching": ("patching", "patching"),
    "causal": ("patching_causal", "causal"),
    "alignment_quality": ("alignment_quality", "aqi"),
    "drift": ("drift", "drift"),
    "topic_control": ("topic_control", "topic_control"),
    "unsupervised": ("unsupervised", "unsupervised"),
}


def function_of(kind: str) -> Callable[..., AnalysisResult]:
    """The analysis behind a kind."""
    module, name = ANALYSES[kind]
    found: Callable[..., AnalysisResult] = getattr(import_module(f"{PACKAGE}.{module}"), name)
    return found
