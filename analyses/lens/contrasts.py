"""Differences between two kinds of prompts: each pair told once, in one order for all models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ..result.findings import Claim, Finding, Test, Verdict, decide, decide_interval, p_of
from ..result.words import missing

REST = "rest"
"""What is subtracted where a subset is compared with all other prompts."""

UNSAID: dict[str, Any] = {"target": None, "space": None, "method": None}
"""Answer and foil stand in a section's title, the lens in a caveat where it is not the usual one."""


def difference(row: Mapping[str, Any], claim: Claim, *, looks: int = 1, **more: Any) -> Finding:
    """A finding about a difference that has both an interval and a test: they must agree.

    Args:
        row: of a table, with `lo`, `hi` and an uncorrected `p` where there is one.
        claim: what is claimed.
        looks: differences that are told beside it; its p is corrected for them (Bonferroni).
        more: further fields of the finding.
    """
    test = p_of(row)
    if test is not None and looks > 1:
        test = replace(test, p=min(1.0, looks * test.p), looks=looks)
    said, why = agreed(test, row)
    given = {**UNSAID, "site": None, "test": test, **({"why": why} if why else {}), **more}
    return Finding.of(row, claim, said, **given)


def agreed(test: Test | None, row: Mapping[str, Any]) -> tuple[Verdict, str]:
    """The verdict of a difference that has both an interval and a test, and why where they disagree.

    >>> agreed(Test(p=0.01), {"lo": 1.0, "hi": 2.0}), agreed(Test(p=0.2), {"lo": -1.0, "hi": 2.0})
    (('found', ''), ('not_found', ''))
    >>> agreed(Test(p=0.2), {"lo": 1.0, "hi": 2.0})
    ('undecided', 'the interval excludes zero and the test does not reject')
    """
    by_interval, by_test = decide_interval(row.get("lo"), row.get("hi")), decide(test)
    if "not_tested" in (by_interval, by_test):
        return (by_test if by_interval == "not_tested" else by_interval), ""
    if by_interval == by_test:
        return by_test, ""
    if by_interval == "found":
        return "undecided", "the interval excludes zero and the test does not reject"
    return "undecided", "the test rejects and the interval covers zero"


def is_contrast(table: pd.DataFrame) -> "pd.Series[bool]":
    """[rows] whether a row is of some prompts minus others."""
    return table["minus"].notna() if "minus" in table else pd.Series(False, index=table.index)


def in_one_order(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Contrasts, each pair of subsets in one order for all models, once per model.

    The order is that in which the largest difference is positive; what is compared with the rest comes first.

    >>> rows = [{"model": m, "subset": a, "minus": b, "estimate": e, "lo": e - 1, "hi": e + 1}
    ...         for m, a, b, e in (("base", "x", "y", 0.5), ("it", "x", "y", -9.0), ("it", "y", "x", 9.0))]
    >>> [(row["model"], row["subset"], row["minus"], row["estimate"]) for row in in_one_order(rows)]
    [('base', 'y', 'x', -0.5), ('it', 'y', 'x', 9.0)]
    """
    order: dict[frozenset[str], tuple[float, str]] = {}
    for row in rows:
        first = row["subset"] if row["estimate"] >= 0 or row["minus"] == REST else row["minus"]
        order[_pair(row)] = max(order.get(_pair(row), (-1.0, "")), (abs(row["estimate"]), first))
    seen, out = set(), []
    for row in rows:
        key = (row.get("model"), _pair(row))
        if key not in seen:
            seen.add(key)
            out.append(dict(row) if row["subset"] == order[_pair(row)][1] else turned(row))
    return out


def turned(row: Mapping[str, Any]) -> dict[str, Any]:
    """A minus B as B minus A.

    >>> turned({"subset": "a", "minus": "b", "estimate": 2.0, "lo": 1.0, "hi": 3.0})
    {'subset': 'b', 'minus': 'a', 'estimate': -2.0, 'lo': -3.0, 'hi': -1.0}
    """
    back = {"subset": row["minus"], "minus": row["subset"], "estimate": -row["estimate"]}
    back |= {"lo": -row["hi"], "hi": -row["lo"]}
    if not missing(row.get("null_mean")):
        back["null_mean"] = -row["null_mean"]
    return {**row, **back}


def _pair(row: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((row["subset"], row["minus"]))
