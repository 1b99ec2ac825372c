"""How numbers are written in sentences: fixed decimals, never exponents or changing significant figures."""

from typing import Any

import pandas as pd


def number(value: float) -> str:
    """Three decimals below 10, two below 100, one below 1000, none above; up to five where
    all would be zero.

    >>> [number(x) for x in (0.98765, -0.0001, 14.5234, 431.27, 12345.6, 0.00004, -3e-8, 0.0)]
    ['0.988', '-0.0001', '14.52', '431.3', '12,346', '0.00004', '0.000', '0.000']
    """
    value = float(value)
    size = abs(value)
    if size >= 999.95:
        return f"{value:,.0f}"
    places = 3 if size < 9.9995 else 2 if size < 99.995 else 1
    if round(value, places) == 0 and round(value, 5) != 0:
        places = 4 if round(value, 4) != 0 else 5
    return f"{round(value, places) + 0.0:.{places}f}"


def bounds(row: Any) -> str:
    """ "[lo, hi]" of a row with a space before it; empty where there is none.

    >>> bounds({"lo": 0.1, "hi": 20.0}), bounds({"lo": float("nan"), "hi": 1.0}), bounds({})
    (' [0.100, 20.00]', '', '')
    """
    lo, hi = row.get("lo"), row.get("hi")
    if lo is None or hi is None or pd.isna(lo) or pd.isna(hi):
        return ""
    return f" [{number(lo)}, {number(hi)}]"


def p_value(p: float) -> str:
    """A p-value with its sign; three decimals, four where it is small.

    >>> [p_value(p) for p in (0.0472, 1.0, 0.00498, 0.0004998, 0.00001)]
    ['= 0.047', '= 1.000', '= 0.005', '= 0.0005', '< 0.0001']
    """
    if p < 0.00005:
        return "< 0.0001"
    return f"= {p:.3f}" if p >= 0.0095 else f"= {p:.4f}".rstrip("0")


def place(row: Any) -> str:
    """Where a row was measured.

    >>> place({"site": "resid_post", "layer": 3}), place({"site": "embed"})
    ('resid_post[3]', 'embed')
    """
    layer = row.get("layer")
    return str(row["site"]) if layer is None or pd.isna(layer) else f"{row['site']}[{int(layer)}]"
