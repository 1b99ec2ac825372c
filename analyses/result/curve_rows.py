"""What a picture of curves holds: its axis, and its rows in the one table that all its marks read."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ...hooks.errors import LayerprobeError
from .layer_axis import Axis
from .records import column
from .words import bounds, number, p_value

if TYPE_CHECKING:
    from .layer_curves import Reference


def spread_out(places: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Places moved as little as needed to lie `least` apart, inside [low, high] where they fit.

    >>> spread_out([10.0, 11.0, 50.0], 12.0, 0.0, 100.0)
    [4.5, 16.5, 50.0]
    """
    order = np.argsort(places, kind="stable")
    groups: list[tuple[float, int]] = []  # mean of the places, members

    def centre(group: tuple[float, int]) -> float:
        half = least * (group[1] - 1) / 2
        return min(max(group[0], low + half), max(high - half, low + half))

    for i in order:
        groups.append((float(places[i]), 1))
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if centre(groups[-1]) - centre(groups[-2]) >= least * (n + m) / 2:
                break
            groups[-2:] = [((a * n + b * m) / (n + m), n + m)]
    moved: list[float] = []
    for group in groups:
        first = centre(group) - least * (group[1] - 1) / 2
        moved += [first + least * k for k in range(group[1])]
    result = [0.0] * len(moved)
    for i, place in zip(order, moved, strict=True):
        result[int(i)] = place
    return result


class Curves:
    """Rows of a picture: one table, told apart by `role`, so that every panel can be cut from it.

    Fields: `f` facet, `s` series (colour), `d` dash, `x`, `y`, `lo`, `hi`, `nlo`, `nhi`, `found`,
    `r` number of a reference, `t` text.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        axis: Axis,
        *,
        colour: str,
        dash: str | None,
        facet: str | None,
        titles: Mapping[Any, str] | None,
        found: str | None,
        log: bool,
    ) -> None:
        self.axis, self.log, self.facet, self.titles = axis, log, facet, dict(titles or {})
        self.facets = [self._panel(value) for value in frame[facet].unique()] if facet else [""]
        self.facets = list(dict.fromkeys(self.facets))
        shades = column(frame, colour)
        self.numbered = colour in frame and colour != "model" and pd.api.types.is_numeric_dtype(shades)
        self.series = [] if self.numbered else [_name(v) for v in shades.drop_duplicates()]
        self.dashes = [_name(v) for v in frame[dash].drop_duplicates()] if dash else []
        null_lo, null_hi = null_bounds(frame)
        rows = pd.DataFrame(
            {
                "role": np.where(axis.layers.isna(), "site", "curve"),
                "f": [self._panel(v) for v in frame[facet]] if facet else "",
                "s": shades.astype(float) if self.numbered else [_name(v) for v in shades],
                "d": [_name(v) for v in frame[dash]] if dash else "",
                "x": [
                    self._x(*spot) for spot in zip(axis.positions, column(frame, "site"), shades, strict=True)
                ],
                "y": frame["estimate"].astype(float),
                "lo": column(frame, "lo").astype(float),
                "hi": column(frame, "hi").astype(float),
                "nlo": null_lo,
                "nhi": null_hi,
                "found": frame[found].fillna(False).astype(bool) if found else None,
            }
        ).reset_index(drop=True)
        if log:
            self._keep_positive(rows)
        self._check_single(rows, frame)
        alone = rows.groupby(["role", "f", "s", "d"], dropna=False)["x"].transform("size") == 1
        rows["alone"] = alone & (rows["role"] == "curve")
        rows["v"] = [
            number(r["estimate"]) + bounds(r) if pd.notna(r["estimate"]) else "–" for r in _dicts(frame)
        ]
        self.tips = {"s": colour, **({"d": dash} if dash else {}), "w": axis.name, "v": "estimate"}
        rows["w"] = [
            f"{layer:g}" if pd.notna(layer) else str(site)
            for layer, site in zip(axis.layers, column(frame, "site"), strict=True)
        ]
        if "p_familywise" in frame:
            rows["p"] = [
                p_value(p)[2:] if p_value(p)[0] == "=" else p_value(p) for p in frame["p_familywise"]
            ]
            self.tips["p"] = "family-wise p"
        self.rows = rows.sort_values(["x"], kind="stable")
        self.has_interval = bool(rows["lo"].notna().any() and rows["hi"].notna().any())
        self.has_null = bool(rows["nlo"].notna().any())
        self.has_found = found is not None
        self.extra: list[dict[str, Any]] = []
        self._styles: dict[int, tuple[str, str, tuple[float, ...]]] = {}

    def _panel(self, value: Any) -> str:
        return str(self.titles.get(value, _name(value)))

    def _x(self, position: float, site: Any, shade: Any) -> float:
        """Lone sites of several series stand side by side."""
        if pd.notna(position):
            return round(float(position), 6)
        n = len(self.series)
        aside = (self.series.index(_name(shade)) - (n - 1) / 2) if n else 0.0
        return round(self.axis.sites[str(site)] + aside * self.axis.step * min(0.2, 0.6 / max(n, 1)), 6)

    @staticmethod
    def _keep_positive(rows: pd.DataFrame) -> None:
        for name in ("y", "lo", "hi", "nlo", "nhi"):
            rows.loc[~(rows[name] > 0), name] = np.nan
        for low, high in (
            ("lo", "hi"),
            ("nlo", "nhi"),
        ):  # an interval that reaches zero ends at the smallest value
            least = rows[["y", "lo", "hi"]].min().min()
            rows.loc[rows[low].isna() & rows[high].notna(), low] = least

    @staticmethod
    def _check_single(rows: pd.DataFrame, frame: pd.DataFrame) -> None:
        twice = rows.duplicated(["role", "f", "s", "d", "x"], keep=False).to_numpy()
        if not twice.any():
            return
        differ = [name for name in _TELLING if name in frame and frame[twice][name].nunique() > 1]
        hint = f"; these rows differ in {', '.join(differ)}" if differ else ""
        raise LayerprobeError(
            f"{int(twice.sum())} rows would lie on one place of one curve{hint}: pass colour=, dash= or "
            "facet= a column that tells them apart, or choose rows first"
        )

    @property
    def roles(self) -> set[str]:
        """Kinds of rows that there are."""
        return {*self.rows["role"], *(row["role"] for row in self.extra)}

    @property
    def label_roles(self) -> list[str]:
        """Kinds of labels of references that there are."""
        return [role for role in ("said", "inside left", "inside right") if role in self.roles]

    def reference_styles(self, role: str | None = None) -> list[tuple[int, str, tuple[float, ...]]]:
        """Number, colour and dash of each reference, or of those drawn as `level` or as `path`."""
        return [(i, colour, dash) for i, (kind, colour, dash) in self._styles.items() if role in (None, kind)]

    def add_references(self, references: Sequence["Reference"]) -> None:
        """Levels for every panel, or for those that a reference's frame names."""
        for i, reference in enumerate(references):
            if isinstance(reference.value, pd.DataFrame):
                given = reference.value
                path = "layer" in given
                for row in _dicts(given.dropna(subset=["value"])):
                    names = (
                        [self._panel(row[self.facet])] if self.facet and self.facet in row else self.facets
                    )
                    place = {"x": float(row["layer"])} if path else {}
                    for name in names:
                        self._level(i, "path" if path else "level", name, float(row["value"]), **place)
            else:
                path = False
                for name in self.facets:
                    self._level(i, "level", name, float(reference.value))
            self._styles[i] = ("path" if path else "level", reference.colour, tuple(reference.dash))
        self._labels = {i: reference.label for i, reference in enumerate(references)}

    def _level(self, i: int, role: str, panel: str, value: float, **place: float) -> None:
        if panel in self.facets and not (self.log and value <= 0):
            self.extra.append({"role": role, "r": i, "f": panel, "y": value, **place})

    def add_untrusted(self, frame: pd.DataFrame | None) -> None:
        """Grey columns behind layers that are not to be quoted."""
        if frame is None or not len(frame):
            return
        by_facet = self.facet is not None and self.facet in frame
        for row in _dicts(frame.dropna(subset=["layer"])):
            layer = float(row["layer"])
            spots = sorted(set(self.axis.positions[self.axis.layers == layer].dropna()))
            for spot in spots:
                half = 0.5 / max(self.axis.count - 1, 1) if self.axis.depth else 0.5
                for panel in [self._panel(row[self.facet])] if by_facet else self.facets:
                    place = {"x": spot - half, "x2": spot + half}
                    self.extra.append({"role": "untrusted", "f": panel, **place})

    def domain(self, *, zero: bool) -> tuple[float, float]:
        """Lowest and highest value of the vertical axis, with a margin."""
        values = [self.rows[name].dropna().to_numpy(float) for name in ("y", "lo", "hi", "nlo", "nhi")]
        values.append(np.array([row["y"] for row in self.extra if "y" in row], float))
        every = np.concatenate(values)
        every = every[np.isfinite(every)]
        if zero and not self.log:
            every = np.append(every, 0.0)
        if not len(every):
            return (0.0, 1.0)
        low, high = float(every.min()), float(every.max())
        if self.log:
            return (low / 1.15, high * 1.15)
        margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
        return (low - margin * (low != 0 or not zero), high + margin)

    def label_ends(
        self, direct: bool, domain: tuple[float, float] | None, *, height: int, least: float
    ) -> None:
        """Names of curves and levels at the right, moved apart where they would overlap."""
        low, high = domain or self.domain(zero=False)
        ends: list[dict[str, Any]] = []
        if direct and (len(self.series) > 1 or self.series != [""]):
            for name in self.series:
                mine = self.rows[(self.rows["s"] == name) & self.rows["y"].notna()]
                mine = mine[mine["role"] == mine["role"].min()]  # the end of the curve before lone sites
                mine = mine[mine["d"] == next((d for d in self.dashes if d in set(mine["d"])), "")]
                if len(mine):
                    ends.append({"role": "name", "s": name, "t": name, "y": float(mine.iloc[-1]["y"])})
        for i, label in self._labels.items():
            mine_too = [row for row in self.extra if row.get("r") == i and label and "t" not in row]
            if mine_too:
                ends.append({"role": "said", "r": i, "t": label, "y": float(mine_too[-1]["y"])})
        self._move_apart(ends, low, high, height, least)

    def _pixels(self, values: Sequence[float], low: float, high: float, height: int) -> list[float]:
        if self.log:
            return [height * float(np.log(v / low) / np.log(high / low)) for v in values]
        return [height * (v - low) / (high - low) for v in values]

    def label_references_inside(
        self, domain: tuple[float, float] | None, *, height: int, least: float
    ) -> None:
        """The label of each reference in the first panel that has it, at the end that is freer of curves."""
        low, high = domain or self.domain(zero=False)
        beside: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for i, label in self._labels.items():
            levels = [row for row in self.extra if row.get("r") == i]
            if not label or not levels:
                continue
            panel, y = levels[0]["f"], levels[0]["y"]
            curves = self.rows[(self.rows["f"] == panel) & self.rows["y"].notna()]
            free = {"left": 0.0, "right": 0.0}
            if len(curves):
                free["left"] = float((curves.loc[curves["x"] == curves["x"].min(), "y"] - y).abs().min())
                free["right"] = float((curves.loc[curves["x"] == curves["x"].max(), "y"] - y).abs().min())
            side = max(free, key=lambda end: free[end])
            at = levels[0]["y"] if side == "left" else levels[-1]["y"] if levels[-1]["f"] == panel else y
            said = {"role": f"inside {side}", "r": i, "f": panel, "t": label, "y": at}
            beside.setdefault((panel, side), []).append(said)
        for said_there in beside.values():
            self._move_apart(said_there, low, high, height, least)

    def _move_apart(
        self, labels: Sequence[dict[str, Any]], low: float, high: float, height: int, least: float
    ) -> None:
        """Adds labels, moved up or down where they would overlap."""
        pixels = self._pixels([label["y"] for label in labels], low, high, height)
        for label, pixel in zip(labels, spread_out(pixels, least, 4.0, height - 4.0), strict=True):
            share = pixel / height
            y = low * (high / low) ** share if self.log else low + share * (high - low)
            self.extra.append({"f": "", **label, "y": y})

    def records(self) -> list[dict[str, Any]]:
        """Plain rows; what has no value is left out, numbers keep six digits."""
        return [plain(row) for row in [*_dicts(self.rows), *self.extra]]


_TELLING = ("model", "site", "head", "metric", "target", "subset", "method", "tokens", "split", "dataset")


def tooltips(alt: Any, fields: Mapping[str, str]) -> list[Any]:
    """Field → its name on hovering; Vega-Lite writes names into an expression, so no quotes and the like."""
    return [alt.Tooltip(f"{k}:N", title=re.sub(r'[\\"\x00-\x1f]', " ", name)) for k, name in fields.items()]


def plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row for a specification: no missing values, short numbers, plain types.

    >>> plain({"x": np.float64(1 / 3), "y": float("nan"), "z": True, "t": ""})
    {'x': 0.333333, 'z': True}
    """
    told: dict[str, Any] = {}
    for key, value in row.items():
        if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
            continue
        if isinstance(value, bool | np.bool_):
            told[key] = bool(value)
        elif isinstance(value, int | np.integer):
            told[key] = int(value)
        elif isinstance(value, float | np.floating):
            short = float(f"{float(value):.6g}")
            told[key] = int(short) if short.is_integer() and abs(short) < 1e6 else short
        elif value != "":
            told[key] = str(value)
    return told


def _name(value: Any) -> str:
    return "" if value is None or pd.isna(value) else str(value)


def _dicts(frame: pd.DataFrame) -> list[dict[Any, Any]]:
    return frame.to_dict("records")


def null_bounds(frame: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Where 95 % of scores lie when there is nothing to find: quantiles, else mean ± 1.96 sd."""
    low, high = column(frame, "null_lo").astype(float), column(frame, "null_hi").astype(float)
    mean, half = column(frame, "null_mean").astype(float), 1.96 * column(frame, "null_sd").astype(float)
    return low.fillna(mean - half), high.fillna(mean + half)
