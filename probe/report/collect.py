"""The results of a folder as the report's sections take them: one table per kind, and words about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from ...analyses.result.contrasts import joined_contrasts
from ...hooks.errors import LayerprobeError
from ..results.folder import explain

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult

ALL = "all prompts"
SEVERAL = "probes_of_several_labels"


@dataclass(frozen=True)
class Entry:
    """One stored result with what the manifest says of it."""

    name: str
    result: AnalysisResult
    models: tuple[str, ...]
    options: dict[str, Any]

    @property
    def kind(self) -> str:
        """Which kind of section it belongs to: the result's kind, several labels at once apart from one."""
        if self.result.kind == "linear_probe":
            table = getattr(self.result, "table", None)
            several = table is not None and "target" in table and table["target"].nunique() > 1
            if several or self.options.get("kind") in ("preferences", "score_heads"):
                return SEVERAL
        return str(self.result.kind)

    @property
    def table(self) -> pd.DataFrame:
        """The tidy table, with `model`, `layer` and `subset` always there."""
        table = joined_contrasts(self.result.table).copy()
        if "model" not in table and len(self.models) == 1:
            table.insert(0, "model", self.models[0])
        if "layer" not in table:  # only sites without layers, such as final_norm
            table["layer"] = pd.Series(pd.NA, index=table.index, dtype="Int64")
        table["subset"] = table["subset"].fillna(ALL) if "subset" in table else ALL
        table["subset"] = table["subset"].replace({"all": ALL, "": ALL})
        return table

    def sentences(self) -> list[str]:
        """What the analysis itself says of its numbers; the model is named where the sentence does not."""
        try:
            lines = [str(line) for line in self.result.summary()]
        except Exception as error:  # a sentence that fails must not cost the report
            unsaid = (
                []
                if isinstance(error, LayerprobeError)
                else [f"could not be put into words: {explain(error)}"]
            )
            lines = [*self.result.notes, *unsaid]
        if len(self.models) != 1:
            return lines
        return [line if self.models[0] in line else f"{self.models[0]}: {_small(line)}" for line in lines]


def _small(line: str) -> str:
    # "There the probe ..." goes on after the colon; names such as Davies-Bouldin keep their capital
    return line[0].lower() + line[1:] if line.startswith("There ") else line


def same_question(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries that ask one question of several models, together; the key is a short name of the question."""
    questions: dict[str, list[Entry]] = {}
    for entry in entries:
        options = {
            k: v for k, v in entry.options.items() if k not in ("models",) and v not in (None, [], {}, ())
        }
        key = repr(sorted((k, repr(v)) for k, v in options.items()))
        questions.setdefault(key, []).append(entry)
    return questions


def joined(entries: Sequence[Entry]) -> pd.DataFrame:
    """Their tables, one under the other."""
    return pd.concat([e.table for e in entries], ignore_index=True)


def ordered(values: Iterable[Any]) -> list[str]:
    """Distinct values in order of appearance."""
    return list(dict.fromkeys(str(v) for v in values if v is not None and v == v))


def where_words(options: dict[str, Any]) -> str:
    """The row filter of an analysis in words."""
    where = options.get("where") or {}
    return " and ".join(f"{column} = {value}" for column, value in where.items())


def missing(value: Any) -> bool:
    """None, NaN or pandas' NA.

    >>> [missing(v) for v in (None, float("nan"), pd.NA, 0, "")]
    [True, True, True, False, False]
    """
    return value is None or value is pd.NA or bool(value != value)


def number(value: Any, digits: int = 3) -> str:
    """A number for reading.

    >>> number(0.98765), number(1234.5), number(None), number(0.00001)
    ('0.988', '1,234', '–', '0.000')
    """
    if missing(value):
        return "–"
    value = float(value)
    if round(value, digits) == 0 and digits:
        # one decimal more where that shows something; a minus before zero says nothing
        digits += int(round(value, digits + 1) != 0)
        return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    places = digits if abs(value) < 10 else min(digits, 2 if abs(value) < 100 else 1)
    return f"{value:.{places}f}".replace("-", "−")


def with_interval(row: Mapping[Any, Any], digits: int = 3) -> str:
    """An estimate with its interval, or with the reason why there is none; never a bare number.

    >>> with_interval({"estimate": 0.9, "lo": 0.85, "hi": 0.95})
    '0.900 [0.850, 0.950]'
    >>> with_interval({"estimate": 0.9, "lo": None, "note": "two groups"})
    '0.900 (no interval: two groups)'
    """
    value = number(row.get("estimate"), digits)
    lo, hi, note = row.get("lo"), row.get("hi"), row.get("note")
    if value == "–":
        return f"– ({note})" if isinstance(note, str) and note else "–"
    if not missing(lo) and not missing(hi):
        return f"{value} [{number(lo, digits)}, {number(hi, digits)}]"
    why = note.removeprefix("no interval: ") if isinstance(note, str) else ""
    return f"{value} (no interval: {why})" if why else f"{value} (no interval)"


def place(row: Mapping[Any, Any]) -> str:
    """Where a row was measured.

    >>> place({"site": "resid_post", "layer": 3}), place({"site": "final_norm", "layer": pd.NA})
    ('resid_post[3]', 'final_norm')
    """
    layer = row.get("layer")
    return str(row["site"]) if missing(layer) else f"{row['site']}[{int(layer)}]"  # type: ignore[arg-type]


def layer_ranges(layers: Iterable[int]) -> str:
    """Layer numbers as ranges.

    >>> layer_ranges([2, 3, 4, 7])
    '2–4, 7'
    """
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs)


def words(name: str) -> str:
    """A metric's or column's name for reading.

    >>> words("davies_bouldin"), words("logit_difference"), words("auroc")
    ('Davies-Bouldin', 'logit difference', 'AUROC')
    """
    known = {
        "auroc": "AUROC",
        "r2": "R²",
        "davies_bouldin": "Davies-Bouldin",
        "calinski_harabasz": "Calinski-Harabasz",
        "xie_beni": "Xie-Beni",
        "dunn": "Dunn",
        "silhouette": "silhouette",
        "cka_debiased": "debiased CKA",
        "kl_to_final": "KL to the final distribution",
        "zscored": "z-scored",
        "aqi": "AQI",
    }
    return known.get(name, name.replace("_", " "))
