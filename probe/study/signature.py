"""What a function's signature and docstring say of its options: type, default, help, and what each names."""

from __future__ import annotations

import builtins
import inspect
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import DocstringStyle, parse
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticUndefined

from ...analyses.result.registry import Analysis, find

Reads = Literal["classes", "numbers", "column", "answer", "value", "model", "loaded", ""]

# Said by other means: the study's or the command's own options, or nothing that a user should set.
NOT_OFFERED = {"kind", "models", "where", "group", "model", "progress", "threads", "rows"}

GROUP_HELP = (
    "Column that groups rows (default: the groups of the store); `none` makes every prompt its own group."
)


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float) else value


# `sites = "resid_post"` means `sites = ["resid_post"]`
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_several)]


@dataclass(frozen=True)
class Offered:
    """One option: its type in TOML and as a flag, and what it names."""

    type: Any
    default: Any
    help: str
    reads: Reads = ""
    unless: str = ""

    @property
    def field(self) -> tuple[Any, Any]:
        """For pydantic."""
        several = _is_tuple(self.type)
        needed = {"min_length": 1} if several and self.default is PydanticUndefined else {}
        kind = Annotated[self.type, BeforeValidator(_one_or_several)] if several else self.type
        return kind, Field(default=self.default, description=self.help, **needed)  # type: ignore[call-overload]


def offered_by(analysis: Analysis) -> Iterator[tuple[str, Offered]]:
    """Every option of an analysis: name → what is offered."""
    seen = {*NOT_OFFERED, *analysis.without}
    helps = {**_helps(analysis.function), **_helps(analysis.call)}
    for function in (analysis.call, analysis.passes_on):
        if function is None:
            return
        _, *parameters = inspect.signature(function).parameters.values()  # the first is the store
        hints, helps = _hints(function), helps if function is analysis.call else _helps(function)
        for parameter in parameters:
            name = parameter.name
            passed_on = function is analysis.passes_on and parameter.default is parameter.empty
            if name in seen or passed_on or parameter.kind is parameter.VAR_KEYWORD:
                continue  # what a function needs is given by the one that passes options on to it
            seen.add(name)
            if name == "groups":
                yield "group", Offered(str | None, None, GROUP_HELP)
            elif offered := _one(hints.get(name, Any), parameter.default, _help(name, helps)):
                yield name, offered
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return


def _one(annotation: Any, default: Any, text: str) -> Offered | None:
    kind = plain(annotation)
    if kind is None:
        return None
    mark = next(_marks(annotation), None)
    default = PydanticUndefined if default is inspect.Parameter.empty else default
    if isinstance(default, list):
        default = tuple(default)
    return Offered(kind, default, text, getattr(mark, "reads", ""), getattr(mark, "unless", ""))


def plain(annotation: Any) -> Any:
    """The type of a flag or of a line of TOML; None where only Python can give the value.

    >>> plain(Sequence[int]), plain(str | Sequence[str]), plain(dict), plain(str | dict)
    (tuple[int, ...], tuple[str, ...], None, None)
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        mark = next(_marks(annotation), None)
        inner = mark.type if mark is not None else plain(args[0])
        bounds = [one for one in args[1:] if not hasattr(one, "reads")]
        return inner if inner is None or not bounds else Annotated[inner, *bounds]
    if annotation in (str, int, float, bool) or origin is Literal:
        return annotation
    if origin in (Union, UnionType):
        return _plain_union(args)
    if isinstance(origin, type) and issubclass(origin, Sequence) and args:
        item = plain(args[0])
        return None if item is None or (origin is tuple and args[1:] != (...,)) else tuple[item, ...]  # type: ignore[valid-type]
    return None


def _plain_union(args: tuple[Any, ...]) -> Any:
    members = [NoneType if one is NoneType else plain(one) for one in args]
    if None in members:
        return None
    several = [one for one in members if _is_tuple(one)]
    if several:  # one name or several: always several
        items = set(get_args(several[0]))
        members = [one for one in members if one not in items]
    return Union[tuple(members)]  # noqa: UP007


def _marks(annotation: Any) -> Iterator[Any]:
    """The `Option` marks in an annotation."""
    for one in get_args(annotation):
        if hasattr(one, "reads"):
            yield one
        elif get_origin(annotation) in (Union, UnionType):
            yield from _marks(one)


def _is_tuple(kind: Any) -> bool:
    """Whether values are tuples, whatever is given."""
    members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    left = [one for one in members if one is not NoneType]
    return bool(left) and all(get_origin(one) is tuple for one in left)


class _NotHere:
    """Stands for a name that is imported for the type checker alone."""

    def __class_getitem__(cls, item: Any) -> type[_NotHere]:
        return cls


class _NamesOf(ChainMap[str, Any]):
    def __missing__(self, key: str) -> Any:
        return _NotHere


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    function = inspect.unwrap(function)
    names = vars(sys.modules[function.__module__])
    known: Any = _NamesOf(dict(names), dict(vars(builtins)))
    return get_type_hints(function, globalns=names, localns=known, include_extras=True)


def _helps(function: Callable[..., Any]) -> dict[str, str]:
    """Parameter → what the docstring says of it."""
    documented = parse(inspect.getdoc(function) or "", style=DocstringStyle.GOOGLE).params
    return {
        name.strip(): " ".join((one.description or "").split())
        for one in documented
        for name in one.arg_name.split(",")
    }


def _help(name: str, helps: dict[str, str]) -> str:
    """Help of one option; "as `linear_probe`" is looked up there."""
    text = helps.get(name, "")
    if text.startswith("as `"):
        other, _, rest = text.removeprefix("as `").partition("`")
        text = _help(name, _helps(find(other).function)).rstrip(".") + rest
    return text[:1].upper() + text[1:]
