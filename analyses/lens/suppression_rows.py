"""Table rows of a suppression analysis: curves and scalars of a subset, differences, and the verdict."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..result.findings import ALPHA
from ..result.words import number
from ..statistics.bounded import from_draws, null_fields
from ..statistics.resampling import benjamini_hochberg, max_t, permutation_p
from ..statistics.shares import difference_of_shares
from .contrasts import REST
from .represented import represented
from .suppression_index import (
    CI,
    Draws,
    SubsetReading,
    gap_null,
    read_subset,
    sign_flip_null,
    weighted_mean,
)
from .trajectories import Trajectory, divergence_layer, is_late, middle_layers, onset_layer

Floats = NDArray[np.float64]
SHARES = "hybrid of the two shares' exact intervals"
CURVES = ("answer_log_probability", "foil_log_probability", "answer_rank", "kl_to_final")


def subset_rows(
    trajectory: Trajectory, name: str, reading: SubsetReading, draws: Draws
) -> list[dict[str, Any]]:
    """Table rows of one subset: its curves per layer and its scalars."""
    common = {
        "subset": name,
        "n": int(reading.rows.sum()),
        "n_groups": draws.n_groups(reading.rows),
        "ci_method": CI,
    }
    rows = _curve_rows(common, "logit_difference", reading.curve, trajectory)
    weights = draws.weights * reading.rows
    for metric in CURVES:
        values = getattr(trajectory, metric)
        if values is not None:
            rows += _curve_rows(common, metric, weighted_mean(values.T, weights), trajectory)
    return rows + scalar_rows(reading, common)


def _curve_rows(
    common: Mapping[str, Any],
    metric: str,
    curve: Floats,
    trajectory: Trajectory,
    *,
    difference: bool = False,
) -> list[dict[str, Any]]:
    """One row per layer of draws [draws, layers]."""
    return [
        {
            **common,
            "layer": layer,
            "metric": metric,
            **from_draws(metric, curve[:, position], difference=difference),
        }
        for position, layer in enumerate(trajectory.layers)
    ]


def scalar_rows(reading: SubsetReading, common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Index, peak, end, share lost, handoff rate, crossing and onset of one subset."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(reading.peak > 0, reading.index / reading.peak, np.nan)
    scalars = {
        "suppression_index": reading.index,
        "peak_logit_difference": reading.peak,
        "final_logit_difference": reading.final,
        "lost_share": share,
        "handoff_rate": reading.handoff_rate,
        "crossing_layer": reading.crossing,
        "onset_layer": reading.onset,
    }
    rows = []
    for metric, values in scalars.items():
        row = {**common, "metric": metric, **from_draws(metric, values)}
        if metric == "handoff_rate":
            row |= reading.handoff_share.row
        if metric in ("suppression_index", "peak_logit_difference"):
            row["layer"] = reading.peak_layer
        if np.isnan(row["lo"]):
            missing = float(np.isnan(values[1:]).mean()) if len(values) > 1 else 1.0
            row["note"] = f"no interval: undefined in {number(missing, 'share')} of bootstrap draws"
        rows.append(row)
    return rows


def add_index_p(
    rows: list[dict[str, Any]], readings: Mapping[str, SubsetReading], draws: Draws, n: int
) -> None:
    """One-sided sign-flip p of every subset's index, family-wise over subsets, BH beside it."""
    tests = [sign_flip_null(reading.scores, draws.groups, n, draws.seed) for reading in readings.values()]
    seen, null = np.array([test[0] for test in tests]), np.stack([test[1] for test in tests], axis=1)
    p, family = permutation_p(seen, null), max_t(seen, null)
    for position, (name, q) in enumerate(zip(readings, benjamini_hochberg(p), strict=True)):
        row = next(row for row in rows if row["subset"] == name and row["metric"] == "suppression_index")
        row.update(
            p=p[position],
            p_familywise=family[position],
            q=q,
            **null_fields(null[:, position], ddof=0),
        )


def contrast_rows(
    trajectory: Trajectory,
    readings: Mapping[str, SubsetReading],
    draws: Draws,
    by: str | None,
    contrast: str | None,
    n: int,
) -> list[dict[str, Any]]:
    """Every subset (column `subset`) minus the rest or `contrast` (column `minus`), as `difference_rows`."""
    if len(readings) < 2:
        return []
    if contrast is not None and f"{by}={contrast}" not in readings:
        raise LayerprobeError(
            f"contrast={contrast!r} is not a value of {by!r}, which has "
            f"{', '.join(name.split('=', 1)[1] for name in readings)}"
        )
    rows = []
    for name, reading in readings.items():
        if contrast is not None and name == f"{by}={contrast}":
            continue
        others = [other for other in readings if other != name] if contrast is None else [f"{by}={contrast}"]
        mask = np.any([readings[other].rows for other in others], axis=0)
        rest = readings[others[0]] if len(others) == 1 else read_subset(trajectory, mask, draws)
        pair = (name, others[0] if len(others) == 1 else REST)
        rows += difference_rows(trajectory, pair, reading, rest, draws, n)
    return rows


def paired_rows(
    trajectory: Trajectory,
    one: SubsetReading,
    two: SubsetReading,
    common: Mapping[str, Any],
    *,
    met: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Rows for `one` minus `two`, paired draw by draw through the shared weights: index first, then handoff
    rate, end, the curves and where they part.

    Args:
        trajectory: of `one`.
        one: of a subset of rows.
        two: of another, or of another model's.
        common: fields of all rows.
        met: where `two` is of a model of another depth, the layer of its curve that each of ours meets.
    """
    rows = [
        {**common, "metric": metric, **from_draws(metric, values, difference=True)}
        for metric, values in (
            ("suppression_index", one.index - two.index),
            ("handoff_rate", one.handoff_rate - two.handoff_rate),
            ("final_logit_difference", one.final - two.final),
        )
    ]
    if any(share.estimate in (0, 1) for share in (one.handoff_share, two.handoff_share)):
        # no draw of groups varies a rate of 0 or 1
        gap, lo, hi = difference_of_shares(one.handoff_share, two.handoff_share)
        rows[1] |= {"estimate": gap, "lo": lo, "hi": hi, "ci_method": SHARES}
    other = two.curve if met is None else two.curve[:, [two.layers.index(layer) for layer in met]]
    curve = one.curve - other
    apart = divergence_layer(curve[0], curve[1:], trajectory.layers)
    said = "first layer from which a simultaneous 95 % band stays off zero"
    note = said if np.isfinite(apart[0]) else "the curves do not stay apart"
    curves = _curve_rows(common, "logit_difference", curve, trajectory, difference=True)
    if met is not None:
        for row, layer in zip(curves, met, strict=True):
            row |= {"reference_layer": layer, "depth": row["layer"] / max(trajectory.n_layers - 1, 1)}
    return [
        *rows,
        *curves,
        {**common, "metric": "divergence_layer", **from_draws("divergence_layer", apart), "note": note},
    ]


def difference_rows(
    trajectory: Trajectory,
    pair: tuple[str, str],
    one: SubsetReading,
    two: SubsetReading,
    draws: Draws,
    n: int,
) -> list[dict[str, Any]]:
    """Rows for one subset minus another (`pair`), with a p by exchanging membership."""
    both = one.rows | two.rows
    common = {
        "subset": pair[0],
        "minus": pair[1],
        "n": int(both.sum()),
        "n_groups": draws.n_groups(both),
        "ci_method": CI,
    }
    rows = paired_rows(trajectory, one, two, common)
    scores = np.where(one.rows, one.scores, two.scores)[both]
    try:
        null = gap_null(scores, one.rows[both], draws.groups[both], n, draws.seed)
        rows[0].update(gap_p(*null))
    except LayerprobeError as error:
        rows[0]["note"] = f"no permutation p: {error}"
    return rows


def gap_p(seen: float, null: Floats) -> dict[str, float]:
    """Two-sided p of a difference, and its null, as fields of a table row."""
    p = permutation_p([seen], null[:, None], two_sided=True)[0]
    return {"p": float(p), **null_fields(null, ddof=0)}


def verdict(name: str, table: pd.DataFrame, trajectory: Trajectory, reading: SubsetReading) -> dict[str, Any]:
    """One plain judgement: `override`, `weakened`, or `none`, and where the lead is lost.

    An override needs a lead that is there at the peak, with answers that stand higher among all tokens than
    random ones there (`represented`, where ranks are known), an index above zero (interval and family-wise
    p) and a lead that is gone at the end. The same with at least half of the lead lost, but not all of it, is
    `weakened`. A lead that shrinks by less, or was never there, is neither.
    """

    own = table[(table["subset"] == name) & (table["minus"].isna() if "minus" in table else True)]

    def row(metric: str) -> pd.Series:
        return own[own["metric"] == metric].iloc[0]

    index, peak, final, share = (
        row(metric)
        for metric in ("suppression_index", "peak_logit_difference", "final_logit_difference", "lost_share")
    )
    middle = middle_layers(trajectory.layers, trajectory.n_layers)
    present = peak["lo"] > 0
    falls = index["lo"] > 0 and index["p_familywise"] <= ALPHA
    kind = "none"
    if present and falls and final["hi"] < 0:
        kind = "override"
    elif present and falls and share["lo"] >= 0.5:
        kind = "weakened"
    onset, crossing = row("onset_layer"), row("crossing_layer")
    lo, hi = onset["lo"], onset["hi"]
    standing = represented(trajectory, reading.rows, reading.peak_layer, int(middle.sum()))
    if standing.found is False:
        kind = "none"  # a lead among tokens that stand no higher than random ones
    found = kind != "none"
    early = early_lead(trajectory, reading)
    late_share = (
        float(np.mean(reading.onset[1:] >= trajectory.n_layers / 2)) if len(reading.onset) > 1 else np.nan
    )
    return {
        "subset": name,
        "verdict": kind,
        "index": index["estimate"],
        "index_lo": index["lo"],
        "index_hi": index["hi"],
        "p_familywise": index["p_familywise"],
        "peak_layer": reading.peak_layer,
        "peak": peak["estimate"],
        "final": final["estimate"],
        "lost_share": share["estimate"],
        "represented": standing.found,
        "rank_share": standing.rank_share,
        "p_represented": standing.p,
        "handoff_rate": row("handoff_rate")["estimate"],
        "onset_layer": onset["estimate"] if found else np.nan,
        "onset_lo": lo if found else np.nan,
        "onset_hi": hi if found else np.nan,
        "crossing_layer": crossing["estimate"] if found else np.nan,
        "late": bool(found and is_late(onset["estimate"], trajectory.n_layers)),
        "late_share": late_share if found else np.nan,
        "outside": bool(not found and not present and early.outside),
        "early_peak_layer": early.peak_layer if not found and not present else np.nan,
        "lead_lost_layer": onset["estimate"] if found else early.lost_layer if not present else np.nan,
    }


class EarlyLead(NamedTuple):
    """A lead before the middle layers, which the index does not look at."""

    outside: bool
    peak_layer: float
    lost_layer: float


def early_lead(trajectory: Trajectory, reading: SubsetReading) -> EarlyLead:
    """Whether the answer leads before L/4 and trails at the end, and where that lead is lost.

    The lead's lower bound is Bonferroni's over the early layers; lost is where LD stays below halfway between
    the early peak and the end.
    """
    numbers = np.asarray(trajectory.layers)
    early = numbers < trajectory.n_layers / 4
    nothing = EarlyLead(False, np.nan, np.nan)
    draws = reading.curve[1:][np.isfinite(reading.curve[1:]).all(axis=1)]
    if not early.any() or len(draws) < 2:
        return nothing
    lo = np.quantile(draws[:, early], 0.025 / early.sum(), axis=0)
    peak = int(reading.curve[0, early].argmax())
    if lo[peak] <= 0 or np.quantile(draws[:, -1], 0.975) >= 0:
        return nothing
    lost = float(onset_layer(reading.curve[0], numbers, early))
    return EarlyLead(True, float(numbers[peak]), lost)


def trust_frame(table: pd.DataFrame, trust_kl: float) -> dict[str, pd.DataFrame]:
    """{"trust": layer, kl, trusted}: smallest mean KL over subsets, and whether to believe the lens there.

    Empty where no KL was captured.
    """
    rows = table[(table["metric"] == "kl_to_final") & table["estimate"].notna()]
    if not len(rows):
        return {}
    kl = rows.groupby("layer")["estimate"].min().astype(float).rename("kl").reset_index()
    return {"trust": kl.assign(trusted=kl["kl"] <= trust_kl, limit=trust_kl)}
