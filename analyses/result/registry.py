"""The registry of analyses: what stands on a function is all that studies, reports and tests know of it.

`@analysis(...)` on the function declares what its signature and docstring cannot say. The kind is
the function's own name; options, their defaults and their help are read from signature and docstring.
A decorated function always returns a result of its own kind.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, ParamSpec

from ...hooks.errors import LayerprobeError
from . import catalogue

if TYPE_CHECKING:
    from .analysis import AnalysisResult
    from .findings import Finding

P = ParamSpec("P")


@dataclass(frozen=True)
class Analysis:
    """One analysis, as everybody who runs or shows it knows it."""

    kind: str
    """Its one name: the public function, `kind` in studies, `AnalysisResult.kind`."""
    command: str
    """What is typed after `layerprobe`."""
    title: str
    """Heading of its section; `{label}` and other options are filled in."""
    group: str
    """The question it belongs to; see `GROUPS`."""
    on: Literal["store", "stores"]
    """What its first argument is: one store, or a mapping of model names to stores."""
    least: int
    """How many stores it needs at least."""
    function: Callable[..., "AnalysisResult"]
    call: Callable[..., "AnalysisResult"]
    """What studies and commands call with stores and plain values; usually `function` itself."""
    passes_on: Callable[..., "AnalysisResult"] | None
    """The function to which its `**options` go."""
    without: tuple[str, ...]
    """Parameters that studies and commands do not offer."""
    findings: Callable[["AnalysisResult"], Sequence["Finding"]] | None
    picture: Callable[["AnalysisResult"], Any] | None
    guide: str
    """The page of docs/ that explains it."""
    frames: Mapping[str, str]
    """Further tables that a report shows: name in `AnalysisResult.frames` → caption."""
    aliases: tuple[str, ...]
    """Former names of the kind or the command."""

    @property
    def about(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def runs_model(self) -> bool:
        """Whether it needs the model itself, not only its activations."""
        parameter = inspect.signature(self.call).parameters.get("model")
        return parameter is not None and parameter.default is inspect.Parameter.empty


GROUPS = {
    "lens": "What does the model say, layer by layer?",
    "compare": "What did tuning change?",
    "read": "Where is it represented?",
    "shape": "How do the prompts lie?",
    "cause": "Which parts cause it?",
    "people": "How does it compare with people and brains?",
}
"""Questions under which analyses are listed, in the order of a report."""

_ANALYSES: dict[str, Analysis] = {}


def analysis(
    *,
    title: str,
    group: str,
    command: str | None = None,
    on: Literal["store", "stores"] = "store",
    least: int = 1,
    call: Callable[..., "AnalysisResult"] | None = None,
    passes_on: Callable[..., "AnalysisResult"] | None = None,
    without: Sequence[str] = (),
    findings: Callable[["AnalysisResult"], Sequence["Finding"]] | None = None,
    picture: Callable[["AnalysisResult"], Any] | None = None,
    guide: str = "",
    frames: Mapping[str, str] | None = None,
    aliases: Sequence[str] = (),
) -> Callable[[Callable[P, "AnalysisResult"]], Callable[P, "AnalysisResult"]]:
    """Register the function below as an analysis.

    Args:
        title: heading of its section in a report; may name options: "Can “{label}” be read off?"
        group: a key of `GROUPS`.
        command: what is typed after `layerprobe`; default: the function's name with dashes.
        on: what the first argument is.
        least: how many stores it needs at least.
        call: what studies and the command line call instead, where the function takes what they cannot give.
        passes_on: the function to which its `**options` go: studies offer those options too.
        without: parameters that studies and the command line do not offer.
        findings: result → findings; the result may hold several models, told apart by the column `model`.
        picture: result → Altair chart, of one model or several.
        guide: page of docs/ without its ending.
        frames: further tables that a report shows: name in `frames` → caption.
        aliases: former names.
    """
    if group not in GROUPS:
        raise ValueError(f"group={group!r}; choose from {', '.join(GROUPS)}")

    def register(function: Callable[P, "AnalysisResult"]) -> Callable[P, "AnalysisResult"]:
        kind = function.__name__

        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> "AnalysisResult":
            result = function(*args, **kwargs)
            return result if result.kind == kind else replace(result, kind=kind)

        _ANALYSES[kind] = Analysis(
            kind=kind,
            command=command or kind.replace("_", "-"),
            title=title,
            group=group,
            on=on,
            least=least,
            function=run,
            call=call or run,
            passes_on=passes_on,
            without=tuple(without),
            findings=findings,
            picture=picture,
            guide=guide,
            frames=dict(frames or {}),
            aliases=tuple(aliases),
        )
        return run

    return register


def find(kind: str) -> Analysis:
    """The analysis of a kind, by its name or a former one; its module is imported.

    Raises:
        LayerprobeError: there is none.
    """
    listed = catalogue.listed().get(catalogue.name_of(kind) or "")
    if listed is not None and listed.kind not in _ANALYSES:
        import_module(listed.module)
    name = listed.kind if listed is not None else kind
    if name not in _ANALYSES:
        raise LayerprobeError(
            f"no analysis {kind!r}; there are {', '.join(sorted({*catalogue.listed(), *_ANALYSES}))}"
        )
    return _ANALYSES[name]


def all_analyses() -> Iterator[Analysis]:
    """Every analysis, ours and those of other packages, in the order of the groups."""
    found = [find(kind) for kind in catalogue.listed()]
    order = list(GROUPS)
    yield from sorted(found, key=lambda one: order.index(one.group))
