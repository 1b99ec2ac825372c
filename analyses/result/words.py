"""The one writer of words: how numbers, places and findings are written, in notebook, report and terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ..statistics.quantities import QUANTITIES
from .findings import ALPHA, Finding, Number, Test

MINUS = "−"
_COUNTED = ("layers", "count")
"""Units of whole numbers, which are written bare: what they count stands in the name."""


def number(value: Any, unit: str = "") -> str:
    """Three decimals below 10, two below 100, one below 1000, none above; up to five where
    all would be zero; a dash where there is no number.

    >>> [number(x) for x in (0.98765, -0.0001, 14.5234, 431.27, 12345.6, 0.00004, -3e-8, 0.0, None)]
    ['0.988', '−0.0001', '14.52', '431.3', '12,346', '0.00004', '0.000', '0.000', '–']
    >>> number(0.0214, "share"), number(1.0, "share"), number(0.5, "logits"), number(5.0, "layers")
    ('2.1 %', '100 %', '0.500 logits', '5')
    """
    if missing(value):
        return "–"
    value = float(value)
    if unit == "share":
        percent = 100 * value
        places = 0 if abs(percent) >= 99.95 or percent == 0 else 1
        return f"{percent:.{places}f} %".replace("-", MINUS)
    if unit in _COUNTED:
        return f"{value:,.{0 if value == round(value) else 1}f}".replace("-", MINUS)
    size = abs(value)
    places = 3 if size < 9.9995 else 2 if size < 99.995 else 1 if size < 999.95 else 0
    if places and round(value, places) == 0 and round(value, 5) != 0:
        places = 4 if round(value, 4) != 0 else 5
    written = f"{round(value, places) + 0.0:,.{places}f}".replace("-", MINUS)
    return f"{written} {unit}" if unit else written


def bounds(row: Any, unit: str = "") -> str:
    """ "[lo, hi]" of a row with a space before it; empty where there is none.

    >>> bounds({"lo": 0.1, "hi": 20.0}), bounds({"lo": float("nan"), "hi": 1.0}), bounds({})
    (' [0.100, 20.00]', '', '')
    """
    lo, hi = row.get("lo"), row.get("hi")
    if missing(lo) or missing(hi):
        return ""
    unit = unit if unit == "share" or unit in _COUNTED else ""  # other units follow the estimate
    return f" [{number(lo, unit)}, {number(hi, unit)}]"


def with_interval(row: Any, unit: str = "") -> str:
    """An estimate with its interval, or with the reason why there is none; never a bare number.

    >>> with_interval({"estimate": 0.9, "lo": 0.85, "hi": 0.95})
    '0.900 [0.850, 0.950]'
    >>> with_interval({"estimate": 0.9, "lo": None, "note": "no interval: two groups"})
    '0.900 (no interval: two groups)'
    """
    value, note = number(row.get("estimate"), unit), row.get("note")
    why = note.removeprefix("no interval: ") if isinstance(note, str) else ""
    if value == "–":
        return f"– ({why})" if why else "–"
    return value + (bounds(row, unit) or (f" (no interval: {why})" if why else " (no interval)"))


def p_value(p: float) -> str:
    """A p-value with its sign; three decimals, four where it is small.

    >>> [p_value(p) for p in (0.0472, 1.0, 0.00498, 0.0004998, 0.00001, 0.0504, 0.0499)]
    ['= 0.047', '= 1.000', '= 0.005', '= 0.0005', '< 0.0001', '= 0.0504', '= 0.0499']
    """
    if p < 0.00005:
        return "< 0.0001"
    # what rounds to the level of the tests says on which side of it it lies
    if p >= 0.0095 and (round(p, 3) != ALPHA or p == ALPHA):
        return f"= {p:.3f}"
    return f"= {p:.4f}".rstrip("0")


def place(row: Any) -> str:
    """Where a row or finding was measured.

    >>> place({"site": "resid_post", "layer": 3}), place({"site": "embed"})
    ('resid_post[3]', 'embed')
    >>> place({"site": "head_out", "layer": 3, "head": 0})
    'head 0 of head_out[3]'
    """
    layer, head = row.get("layer"), row.get("head")
    where = str(row["site"]) if missing(layer) else f"{row['site']}[{int(layer)}]"
    return where if missing(head) else f"head {int(head)} of {where}"


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


def missing(value: Any) -> bool:
    """None, NaN or pandas' NA.

    >>> [missing(v) for v in (None, float("nan"), pd.NA, 0, "")]
    [True, True, True, False, False]
    """
    return value is None or value is pd.NA or bool(value != value)


def subset_words(subset: str) -> str:
    """`sensitive=sensitive` reads better as `sensitive`.

    >>> subset_words("sensitive=benign"), subset_words("all prompts"), subset_words("evidence=True")
    ('benign', 'all prompts', 'evidence = True')
    >>> subset_words("category=religion, item=direct")
    'religion, direct'
    """
    parts = subset.split(", ")
    if len(parts) > 1 and all("=" in part for part in parts):
        return ", ".join(map(subset_words, parts))
    column, equals, value = subset.partition("=")
    if not equals:
        return subset
    bare = not value or value.lower() in ("true", "false", "yes", "no") or value.replace(".", "").isdigit()
    return f"{column} = {value}" if bare else value


def on_prompts(subset: str | None, minus: str | None = None) -> str:
    """Which prompts a number is of, as the tail of a phrase.

    >>> on_prompts("kind=benign"), on_prompts("kind=a", "kind=b"), on_prompts("all"), on_prompts(None)
    (' on benign prompts', ' on a minus b prompts', '', '')
    >>> on_prompts("kind=a", "rest")
    ' on a prompts minus all others'
    """
    if subset in (None, "", "all", "all prompts"):
        return ""
    if minus == "rest":
        return f" on {subset_words(str(subset))} prompts minus all others"
    less = f" minus {subset_words(minus)}" if minus else ""
    return f" on {subset_words(str(subset))}{less} prompts"


def listed(words: Iterable[str]) -> str:
    """Words as one enumeration.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *first, last = list(words) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def sentence(finding: Finding) -> str:
    """A finding as one sentence, its caveats after it.

    >>> from .findings import Claim
    >>> apart = Claim("separated", "separated beyond chance", "no evidence of separation")
    >>> print(sentence(Finding(claim=apart, verdict="found", quantity="silhouette", estimate=0.31, model="it",
    ...                        lo=0.28, hi=0.35, target="safe", site="resid_post", layer=3, layers=(2, 3),
    ...                        looked=8, test=Test(p=0.001, null=0.002), n=48, n_groups=12)))
    it: silhouette of “safe” is 0.310 [0.280, 0.350] at resid_post[3]: separated beyond chance, in layers 2–3
    of 8 (0.002 under the null, p = 0.001; 48 rows in 12 groups).
    """
    who = f"{subject(finding)}: " if subject(finding) else ""
    said = finding.claim.words(finding.verdict)
    if finding.verdict == "found" and finding.looked > 1 and finding.layers:
        plural = "s" if len(finding.layers) > 1 else ""
        said += f", in layer{plural} {layer_ranges(finding.layers)} of {finding.looked}"
    if finding.verdict in ("undecided", "not_tested") and finding.why and finding.estimate is not None:
        said += f" ({finding.why})"
    behind = "; ".join(filter(None, (evidence(finding.test), rows_of(finding))))
    text = f"{who}{measured(finding)}{said}" + (f" ({behind})" if behind else "") + "."
    return " ".join([text[0].upper() + text[1:] if not who else text, *finding.caveats])


def subject(finding: Finding) -> str:
    """Whose finding it is: the model, and what it was compared with.

    >>> from .findings import Claim
    >>> both = {"claim": Claim("", "", ""), "verdict": "found", "model": "it", "reference": "base"}
    >>> subject(Finding(quantity="auroc", **both)), subject(Finding(quantity="rsa_spearman", **both))
    ('it minus base', 'it against base')
    """
    who = finding.model or ""
    if not who or not finding.reference:
        return who
    metric = QUANTITIES.get(finding.quantity)
    return f"{who} {'against' if metric and metric.relates else 'minus'} {finding.reference}"


def measured(finding: Finding) -> str:
    """The numbers of a finding, up to the colon before its claim; empty where it has none."""
    unit = unit_of(finding.quantity)
    where = on_prompts(finding.subset, finding.minus)
    of = f" of “{finding.target}”" if finding.target else ""
    if finding.estimate is None:
        return f"{where.strip()}{of.strip()}: " if where or of else ""
    at = f" at {place(vars(finding))}" if finding.site else ""
    # z-scored and raw are both shown; the usual method needs no saying
    how = ", ".join(filter(None, (finding.space and title_of(finding.space), finding.method)))
    told = "".join(f"; {number_words(one)}" for one in finding.numbers)
    value = f"{number(finding.estimate, unit)}{bounds(vars(finding), unit)}"
    if finding.lo is None and finding.why and finding.verdict in ("found", "not_found"):
        value += f" (no interval: {finding.why})"
    return f"{title_of(finding.quantity)}{of}{where} is {value}{at}{f' ({how})' if how else ''}{told}: "


def number_words(one: Number) -> str:
    """A further number of a finding.

    >>> number_words(Number(name="peak", value=14.5, lo=13.0, hi=16.0, unit="logits", at="layer 4"))
    'peak 14.50 logits [13.00, 16.00] at layer 4'
    """
    at = f" at {one.at}" if one.at else ""
    return f"{one.name} {number(one.value, one.unit)}{bounds(vars(one), one.unit)}{at}"


def evidence(test: Test | None) -> str:
    """What stands behind a verdict.

    >>> evidence(Test(p=0.01, looks=24, null=0.5, z=4.2))
    '0.500 under the null, z = 4.2, p = 0.010 over 24 looks'
    """
    if test is None:
        return ""
    null = f"{number(test.null)} under the null" if test.null is not None else ""
    z = f"z = {test.z:.1f}".replace("-", MINUS) if test.z is not None else ""
    looks = f" over {test.looks} looks" if test.looks and test.looks > 1 else ""
    name = f"{test.name} " if test.name else ""
    return ", ".join(filter(None, (null, z, f"{name}p {p_value(test.p)}{looks}")))


def rows_of(finding: Finding) -> str:
    """How much data a finding rests on."""
    if not finding.n:
        return ""
    groups = f" in {finding.n_groups:,} groups" if finding.n_groups else ""
    return f"{finding.n:,} rows{groups}"


def cell(finding: Finding) -> str:
    """A finding in a cell of a table: number, place and verdict.

    >>> from .findings import Claim
    >>> apart = Claim("separated", "separated", "no evidence of separation")
    >>> cell(Finding(claim=apart, verdict="found", quantity="silhouette", estimate=0.3, lo=0.2, hi=0.4,
    ...              site="resid_post", layer=3))
    '0.300 [0.200, 0.400] at resid_post[3]: separated'
    """
    said = finding.claim.words(finding.verdict)
    if finding.verdict == "found" and finding.looked > 1 and finding.layers:
        said += f" in layers {layer_ranges(finding.layers)}"
    return said if finding.estimate is None else f"{estimate_at(finding)}: {said}"


def estimate_at(finding: Finding) -> str:
    """The number of a finding with its interval and place; empty where it has none."""
    if finding.estimate is None:
        return ""
    unit = unit_of(finding.quantity)
    at = f" at {place(vars(finding))}" if finding.site else ""
    where = on_prompts(finding.subset, finding.minus)
    return f"{number(finding.estimate, unit)}{bounds(vars(finding), unit)}{at}{where}"


def title_of(name: str) -> str:
    """A metric's, column's or space's name for reading.

    >>> title_of("davies_bouldin"), title_of("logit_difference"), title_of("zscored")
    ('Davies-Bouldin', 'logit difference', 'z-scored')
    """
    metric = QUANTITIES.get(name)
    return metric.title if metric else _NOT_METRICS.get(name, name.replace("_", " "))


def unit_of(name: str) -> str:
    """The unit of a metric; `share` is written in per cent."""
    metric = QUANTITIES.get(name)
    return metric.unit or "" if metric else ""


def fill(template: str, options: Mapping[str, Any]) -> str:
    """A title with its options filled in; one that is not there stays as its name.

    >>> fill("Can “{label}” be read off?", {"label": ["a", "b"]}), fill("Across {across}", {})
    ('Can “a, b” be read off?', 'Across across')
    """
    values = _Named(
        {k: ", ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in options.items()}
    )
    return template.format_map(values)


class _Named(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return key


_NOT_METRICS = {"zscored": "z-scored", "raw": "raw", "whitened": "whitened"}
