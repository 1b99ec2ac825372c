"""Annotations of parameters that studies and the command line offer: what an option names, and its bounds.

    def drift(store, *, label: Label, start: Value, n_bootstrap: Draws = 300): ...

A parameter of a plain type (str, int, float, bool, a Literal, a sequence of these, or None) needs none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from ..statistics.resampling import STORED as STORED


@dataclass(frozen=True)
class Option:
    """How studies and the command line offer a parameter."""

    type: Any = str
    """Its type there, where Python takes more: `str` for a label that may be an array too."""
    reads: Literal["classes", "numbers", "column", "answer", "value", "model", "loaded", ""] = ""
    """`classes`: a label column whose values are told apart; `numbers`: one that holds numbers; `column`: any
    label column; `answer`: a label column or a literal answer; `value`: a value of the label; `model`: the
    name of a model of the study; `loaded`: the same, and the model itself is handed over."""
    unless: str = ""
    """An option; where it is given, this one means nothing."""


Label = Annotated[Any, Option(str, reads="classes")]
"""A label column; in Python also an array with one entry per row."""
Labels = Annotated[Any, Option(str | tuple[str, ...], reads="classes")]
"""One label column or several."""
Classes = Annotated[Sequence[str], Option(tuple[str, ...], reads="classes")]
"""Several label columns, each of which has classes or grades."""
Numbers = Annotated[Sequence[str], Option(tuple[str, ...], reads="numbers")]
Column = Annotated[str, Option(str, reads="column")]
Columns = Annotated[str | Sequence[str], Option(tuple[str, ...], reads="column")]
Answer = Annotated[str, Option(str, reads="answer")]
Value = Annotated[Any, Option(str, reads="value")]
ModelName = Annotated[Any, Option(str, reads="model")]
SourceModel = Annotated[Any, Option(str, reads="loaded")]
"""Where values come from: `contrast`, the other prompt of the pair, or another model."""
Role = Annotated[str, Option(str, reads="column", unless="source")]
Sites = Annotated[str | Sequence[str] | None, Option(tuple[str, ...] | None)]
Layers = Annotated[int | Sequence[int] | None, Option(tuple[int, ...] | None)]
Device = Annotated[Any, Option(str | None)]
HeldOut = Annotated[Any, Option(float | str)]
"""A share of the groups, or the name of a split."""
Count = Annotated[int, Ge(1)]
Draws = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Le(1)]
Permute = Literal["auto", "between", "within"]
"""What the null relabels: whole groups, rows within each, or by the label."""
