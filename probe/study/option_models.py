"""The options of an analysis as one frozen model, read off its function, for studies and the command line.

Names, types and defaults come from the signature (with the marks of `analyses.result.options`), help from the
docstring. Only pydantic is imported here, so that `layerprobe --help` answers at once.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from ...analyses.result.registry import Analysis, find
from .signature import Names, Offered, Reads, offered_by


class Options(BaseModel):
    """Frozen, and a mistyped option is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Made(Options):
    """Last base of a model that code puts together: it has no source to look for docstrings in."""

    model_config = ConfigDict(use_attribute_docstrings=False)


class AnalysisOptions(Options):
    """What every analysis takes; `options_of` adds what one takes alone."""

    analysis: ClassVar[Analysis]
    reads: ClassVar[dict[str, Offered]]

    where: dict[str, str | bool | int] = Field(default_factory=dict)
    """Only rows whose label columns have these values: --where COL=VALUE ..., in a study
    where = {COL = "VALUE"}."""

    def named(self, *reads: Reads) -> dict[str, tuple[str, ...]]:
        """Option → what it names, of the options that name columns, answers, values or models."""
        found = {}
        for name, offered in self.reads.items():
            value = getattr(self, name, None)
            if offered.reads not in reads or not value or self._set_aside(offered):
                continue
            found[name] = (str(value),) if isinstance(value, str | int | float) else tuple(map(str, value))
        return found

    def _set_aside(self, offered: Offered) -> bool:
        """Whether another option makes this one mean nothing."""
        return bool(offered.unless) and not self.is_default(offered.unless)

    def is_default(self, name: str) -> bool:
        """Whether an option is what the analysis takes where nothing is said."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    def label_columns(self) -> tuple[str, ...]:
        """Label columns whose values this analysis tells apart or predicts."""
        return _flat(self.named("classes", "numbers"))

    def option_columns(self) -> tuple[str, ...]:
        """Label columns that this analysis reads."""
        group = getattr(self, "group", None)
        groups = [group] if group and group != "none" else []
        return tuple(
            dict.fromkeys([*_flat(self.named("classes", "numbers", "column")), *groups, *self.where])
        )

    def call_options(self) -> dict[str, Any]:
        """What was asked as keyword arguments of the analysis; the rest is left to its defaults."""
        given = {name: getattr(self, name) for name in self.reads if not self.is_default(name)}
        group = given.pop("group", None)
        if group is not None:
            given["groups"] = None if group == "none" else group
        return {name: list(v) if isinstance(v, tuple) else v for name, v in given.items()}


class InStudy(AnalysisOptions):
    """What every [[analysis]] table has."""

    kind: str
    """Which analysis."""
    models: Names = ()
    """Only these models (default: all)."""


def options_of(kind: str) -> type[AnalysisOptions]:
    """The options of an analysis: a frozen model whose fields are those parameters that can be typed."""
    return _options_of(find(kind).kind)


@cache
def _options_of(kind: str) -> type[AnalysisOptions]:
    analysis = find(kind)
    offered = dict(offered_by(analysis))
    fields: dict[str, Any] = {name: one.field for name, one in offered.items()}
    made: Any = create_model(
        f"{kind}_options", __base__=(AnalysisOptions, Made), __doc__=analysis.about, **fields
    )
    made.analysis, made.reads = analysis, offered
    return made  # type: ignore[no-any-return]


@cache
def table_of(kind: str) -> type[InStudy]:
    """The options of an analysis as an [[analysis]] table has them; `kind` is its one name."""
    options = options_of(kind)
    field: dict[str, Any] = {"kind": (Literal[kind], kind)}
    made: Any = create_model(kind, __base__=(options, InStudy, Made), __doc__=options.__doc__, **field)
    made.analysis, made.reads = options.analysis, options.reads
    return made  # type: ignore[no-any-return]


def _flat(named: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in named.values() for name in names))
