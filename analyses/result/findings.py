"""Findings: what an analysis concluded, as data. Sentences and tables of verdicts are made from them.

A finding is one claim about one subject at one place, with the numbers that carry it. `words` writes it;
nothing reads its sentences back.
"""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal

import pandas as pd

ALPHA = 0.05
"""The one level of every test: a claim is found where its corrected p is at most this."""

Verdict = Literal["found", "not_found", "undecided", "not_tested"]


@dataclass(frozen=True)
class Claim:
    """What is claimed, in the words of each verdict; they follow "…: " and end no sentence."""

    name: str
    """A short key: `separated`, `readable`."""
    found: str
    not_found: str
    undecided: str = "undecided"
    not_tested: str = "not tested against chance"

    def words(self, verdict: Verdict) -> str:
        """The claim as this verdict puts it."""
        return str(getattr(self, verdict))


@dataclass(frozen=True, kw_only=True)
class Test:
    """The test behind a verdict."""

    __test__ = False  # not one of pytest's

    p: float
    """Corrected where `looks` says for how many."""
    looks: int | None = None
    """How many tests the p-value is corrected for; None: a single one."""
    null: float | None = None
    """What the estimate is on average under the null."""
    z: float | None = None
    """Distance from the null in its standard deviations, positive where the claim is favoured."""
    name: str = ""
    """Where it is not the permutation of labels: `McNemar`, `sign flips over groups`."""


@dataclass(frozen=True)
class Number:
    """A further number of a finding: `peak of the lead`, `share of prompts handed off`."""

    name: str
    value: float
    _: KW_ONLY
    lo: float | None = None
    hi: float | None = None
    unit: str = ""
    """`share` is written in per cent; other units follow the number."""
    at: str = ""
    """Where, in words: `layer 4`."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim about one subject at one place."""

    claim: Claim
    verdict: Verdict
    quantity: str
    """Metric name, as in the table."""
    estimate: float | None = None
    lo: float | None = None
    hi: float | None = None
    model: str | None = None
    reference: str | None = None
    """The model that is compared with, or what is known without one: `a bag of words`."""
    dataset: str | None = None
    target: str | None = None
    """The label, or what the numbers are of."""
    subset: str | None = None
    """Which prompts; None: all."""
    minus: str | None = None
    """The prompts (or the model) that were subtracted: the finding is a difference."""
    method: str | None = None
    space: str | None = None
    site: str | None = None
    layer: int | None = None
    head: int | None = None
    layers: tuple[int, ...] = ()
    """Layers in which the claim is found."""
    looked: int = 0
    """Layers that were looked at."""
    test: Test | None = None
    n: int | None = None
    n_groups: int | None = None
    numbers: tuple[Number, ...] = ()
    why: str = ""
    """Why undecided, not tested, or without an interval: plain words, without a full stop."""
    caveats: tuple[str, ...] = ()
    """Whole sentences that a reader must know before quoting the claim."""
    lead: bool = False
    """The one finding of its model and question that a page shows at a glance."""

    @classmethod
    def of(
        cls, row: Mapping[Any, Any], claim: Claim, verdict: Verdict | None = None, **more: Any
    ) -> "Finding":
        """A finding from a row of a table: its subject, place, estimate, interval and test.

        Args:
            row: of an `AnalysisResult.table`; what is missing or NaN is left out.
            claim: what is claimed.
            verdict: default: by the row's `p_familywise`, else its `p`.
            more: further fields, which override the row's.
        """
        row = {str(key): value for key, value in row.items()}
        given: dict[str, Any] = {
            name: _plain(row.get(name)) for name in _FROM_ROW if _plain(row.get(name)) is not None
        }
        for name in ("layer", "head", "n", "n_groups"):  # a column with gaps holds them as floats
            if name in given:
                given[name] = int(given[name])
        given["quantity"] = str(row.get("metric", ""))
        given["why"] = str(row["note"]).removeprefix("no interval: ") if _plain(row.get("note")) else ""
        if "test" not in more:
            given["test"] = p_of(row)
        given |= more
        return cls(claim=claim, verdict=verdict or decide(given["test"]), **given)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; what is None or empty is left out."""
        out: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "claim":
                value = value.name
            elif isinstance(value, tuple) and value and isinstance(value[0], Number):
                value = [_set_fields(number) for number in value]
            elif isinstance(value, Test):
                value = _set_fields(value)
            if value not in (None, "", ()):
                out[entry.name] = value
        return out


_FROM_ROW = (
    *("model", "reference", "dataset", "target", "subset", "minus", "method", "space"),
    *("site", "layer", "head", "estimate", "lo", "hi", "n", "n_groups"),
)


def decide(test: Test | None) -> Verdict:
    """The verdict of a test alone.

    >>> decide(Test(p=0.05)), decide(Test(p=0.051)), decide(None)
    ('found', 'not_found', 'not_tested')
    """
    if test is None:
        return "not_tested"
    return "found" if test.p <= ALPHA else "not_found"


def decide_interval(lo: float | None, hi: float | None, *, zero: float = 0.0) -> Verdict:
    """The verdict of an interval alone: found where it excludes `zero`.

    >>> decide_interval(0.1, 0.4), decide_interval(-0.1, 0.4), decide_interval(None, None)
    ('found', 'not_found', 'not_tested')
    """
    if lo is None or hi is None or lo != lo or hi != hi:
        return "not_tested"
    return "found" if lo > zero or hi < zero else "not_found"


def p_of(row: Mapping[Any, Any], *, looks: int | None = None) -> Test | None:
    """The test that a row of a table reports; None where it has no p-value."""
    corrected, single = _plain(row.get("p_familywise")), _plain(row.get("p"))
    p = corrected if corrected is not None else single
    if p is None:
        return None
    return Test(p=float(p), looks=looks, null=_plain(row.get("null_mean")), z=_plain(row.get("z")))


def found_layers(rows: pd.DataFrame, column: str = "p_familywise") -> tuple[int, ...]:
    """Layers whose corrected p is at most ALPHA."""
    if column not in rows or "layer" not in rows:
        return ()
    hits = rows.loc[(rows[column] <= ALPHA).fillna(False) & rows["layer"].notna(), "layer"]
    return tuple(sorted({int(layer) for layer in hits}))


def leads(findings: Iterable[Finding]) -> list[Finding]:
    """Those that a page shows at a glance."""
    return [finding for finding in findings if finding.lead]


def _set_fields(record: Any) -> dict[str, Any]:
    values = {entry.name: getattr(record, entry.name) for entry in fields(record)}
    return {name: value for name, value in values.items() if value not in (None, "")}


def _plain(value: Any) -> Any:
    """numpy and pandas scalars as Python's; missing values as None."""
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    if hasattr(value, "item"):
        value = value.item()
        return None if value != value else value
    return value
