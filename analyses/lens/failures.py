"""Looking only at failures without being fooled by them.

Prompts are often picked because the instruct model failed on them, and base is then found to do better there.
It would be, with no suppression at all: whatever made instruct fail this time is, in part, chance, and base
did not share it. Two remedies, used together: *cross-fitting* (a group is picked by some of its rows and
scored on the others, so chance is not carried over) and *symmetry* (the same is done with the models' parts
exchanged, and the two gaps are subtracted, so that lasting differences between items cancel too, and only a
difference in direction is left).
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError
from ..statistics.resampling import bootstrap_interval, cluster_bootstrap_weights, group_codes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SelectedGap:
    """A difference between models on picked prompts, in the units of the values."""

    estimate: float
    lo: float
    hi: float
    n: int
    """rows scored."""
    protocol: str


def selected_gap(
    model: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike,
    *,
    fails: ArrayLike | None = None,
    reference_fails: ArrayLike | None = None,
    protocol: str = "cross_fitted",
    n_splits: int = 20,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> SelectedGap:
    """How much more the reference keeps of the answer than the model, where answers are lost.

    Args:
        model: [rows] a value that is low where the answer is lost, such as the final logit difference.
        reference: [rows] the same of the reference model, on the same rows.
        groups: [rows]; the cross-fitted protocol needs at least two rows (paraphrases, items) per group.
        fails: [rows] bool, the model failed; default: its value is below 0.
        reference_fails: [rows] likewise of the reference.
        protocol: `cross_fitted` (symmetric, the default) or `naive`: mean of reference − model over the
            model's own failures, for comparison with published figures.
        n_splits: random halvings of each group's rows, averaged.
        n_bootstrap: cluster-bootstrap draws over groups.
        seed: of both.

    Raises:
        LayerprobeError: an unknown protocol, or groups of single rows.

    >>> rng = np.random.default_rng(0)  # no difference between the models: paraphrases of 60 items
    >>> item = np.repeat(rng.normal(size=60), 4)
    >>> model, reference = (item + rng.normal(size=240) for _ in range(2))
    >>> groups = np.arange(240) // 4
    >>> naive = selected_gap(model, reference, groups, protocol="naive", n_bootstrap=50)
    >>> fair = selected_gap(model, reference, groups, n_bootstrap=50)
    >>> naive.estimate > 0.5 > abs(fair.estimate)
    True
    """
    mine, theirs = np.asarray(model, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    codes = group_codes(groups)
    failed = mine < 0 if fails is None else np.asarray(fails, dtype=bool)
    others = theirs < 0 if reference_fails is None else np.asarray(reference_fails, dtype=bool)
    weights = np.concatenate([np.ones((1, len(codes))), cluster_bootstrap_weights(codes, n_bootstrap, seed)])
    if protocol == "naive":
        draws = _mean(theirs - mine, failed, weights)
        used = int(failed.sum())
    elif protocol == "cross_fitted":
        if np.bincount(codes).min() < 2:
            raise LayerprobeError(
                "a group has a single row, so no other row of it can be scored; group paraphrases or items "
                "of one scenario together, or compare models on all prompts"
            )
        draws, used = _symmetric(mine, theirs, failed, others, codes, weights, n_splits, seed)
    else:
        raise LayerprobeError(f"protocol={protocol!r}, expected 'cross_fitted' or 'naive'")
    known = draws[1:][np.isfinite(draws[1:])]
    lo, hi = bootstrap_interval(known) if len(known) > 0.9 * n_bootstrap and len(known) else (np.nan, np.nan)
    return SelectedGap(float(draws[0]), float(lo), float(hi), used, protocol)


def _mean(values: Floats, rows: NDArray[Any], weights: Floats) -> Floats:
    mass = weights * rows
    with np.errstate(invalid="ignore"):
        return mass @ values / mass.sum(axis=1)


def _symmetric(
    mine: Floats,
    theirs: Floats,
    failed: NDArray[Any],
    others: NDArray[Any],
    codes: NDArray[np.int64],
    weights: Floats,
    n_splits: int,
    seed: int,
) -> tuple[Floats, int]:
    """The symmetric gap, mean over splits and both directions of each; and the mean number of rows scored."""
    total, used, rng = np.zeros(len(weights)), [], np.random.default_rng(seed)
    n_groups = int(codes.max()) + 1
    for _ in range(n_splits):
        rank = np.lexsort((rng.random(len(codes)), codes))
        within = np.empty(len(codes), dtype=np.int64)
        starts = np.r_[0, np.cumsum(np.bincount(codes))][:-1]
        within[rank] = np.arange(len(codes)) - starts[codes[rank]]
        picking = within % 2 == 0
        for side in (picking, ~picking):
            # share of each group's picking rows that failed, as a weight on the rows that are scored
            shares = [
                np.bincount(codes, fail & side, n_groups) / np.maximum(np.bincount(codes, side, n_groups), 1)
                for fail in (failed, others)
            ]
            score = [share[codes] * ~side for share in shares]
            forward, backward = (
                _mean(theirs - mine, score[0], weights),
                _mean(mine - theirs, score[1], weights),
            )
            # the same gap seen from two sides; where one model never fails, the other side is all there is
            gap = np.where(
                np.isfinite(forward),
                np.where(np.isfinite(backward), (forward - backward) / 2, forward),
                -backward,
            )
            total += gap / (2 * n_splits)
            used.append(np.count_nonzero(score[0]) + np.count_nonzero(score[1]))
    return total, int(np.mean(used))


def null_world(
    seed: int,
    *,
    n_groups: int = 60,
    per_group: int = 4,
    lasting: float = 1.0,
    noise: float = 2.0,
    suppression: float = 0.0,
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Final logit differences of two models that differ only by chance and in which items they find hard.

    Args:
        seed: of the draw.
        n_groups: scenarios.
        per_group: rows of each.
        lasting: standard deviation of each model's own item difficulty.
        noise: standard deviation per row.
        suppression: taken from the first model's values; 0 is the null.

    Returns:
        values of the model, of the reference, and groups.
    """
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    shared = rng.normal(1.0, 1.5, n_groups)
    mine, theirs = (
        (shared + rng.normal(0, lasting, n_groups))[groups] + rng.normal(0, noise, len(groups))
        for _ in range(2)
    )
    return mine - suppression, theirs, groups


def trap_table(n: int = 100) -> dict[str, list[float]]:
    """Both protocols over many null worlds, and over as many with a true suppression of 1.5 logits.

    Returns:
        row name -> [mean estimate, share of intervals off zero], naive then cross-fitted.
    """
    out = {}
    for name, truth in (("no suppression", 0.0), ("suppression of 1.5 logits", 1.5)):
        for protocol in ("naive", "cross_fitted"):
            found = [
                selected_gap(
                    *null_world(seed, suppression=truth), protocol=protocol, n_bootstrap=200, n_splits=4
                )
                for seed in range(n)
            ]
            off = [not gap.lo <= 0 <= gap.hi for gap in found]
            out[f"{name}, {protocol}"] = [
                float(np.mean([gap.estimate for gap in found])),
                float(np.mean(off)),
            ]
    return out


def trap_figure(table: dict[str, list[float]]) -> str:
    """The table as a small SVG of bars."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="720" height="180" font-family="sans-serif"',
        ' font-size="13"><rect width="720" height="180" fill="white"/>',
        '<text x="12" y="18">Gap between base and instruct on failures (logits)</text>',
        '<line x1="280" x2="280" y1="24" y2="170" stroke="black"/>',
    ]
    for number, (name, (estimate, _)) in enumerate(table.items()):
        y, width = 30 + 34 * number, 90 * estimate
        colour = "#c44" if "naive" in name else "#2a6"
        left, right = 280 + min(width, 0), 288 + max(width, 0)
        parts += [
            f'<text x="268" y="{y + 15}" text-anchor="end">{name.replace("_", "-")}</text>',
            f'<rect x="{left:.1f}" y="{y}" width="{abs(width):.1f}" height="20" fill="{colour}"/>',
            f'<text x="{right:.1f}" y="{y + 15}">{estimate:.2f}</text>',
        ]
    return "".join([*parts, "</svg>\n"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what both protocols find where there is nothing, and where there is something."""
    parser = argparse.ArgumentParser(
        prog="python -m layerprobe.analyses.lens.failures", description=main.__doc__
    )
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--figure", type=Path, help="SVG to write")
    options = parser.parse_args(arguments)
    table = trap_table(options.worlds)
    print("| worlds | mean gap (logits) | intervals off zero |\n| --- | --- | --- |")
    for name, (estimate, off) in table.items():
        print(f"| {name.replace('_', '-')} | {estimate:.2f} | {off:.0%} |")
    if options.figure is not None:
        options.figure.write_text(trap_figure(table))


if __name__ == "__main__":
    main()
