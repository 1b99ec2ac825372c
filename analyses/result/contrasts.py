"""Contrasts: rows that are one subset minus another say so in two columns."""

import pandas as pd

MINUS = " − "


def joined_contrasts(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `subset` as "A − B" wherever `minus` names a B, and without the column `minus`.

    >>> joined_contrasts(pd.DataFrame({"subset": ["a", "a"], "minus": [None, "b"]}))["subset"].tolist()
    ['a', 'a − b']
    """
    if "minus" not in table:
        return table
    both = table["minus"].notna()
    joined = (
        table["subset"]
        .astype(object)
        .where(~both, table["subset"].astype(str) + MINUS + table["minus"].astype(str))
    )
    return table.assign(subset=joined).drop(columns="minus")
