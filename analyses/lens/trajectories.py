"""What the lens says of an answer and its foil, layer by layer, and where the answer is lost.

The logit difference of an answer A against a foil B at layer l is LD(l) = logit_A(l) − logit_B(l), read
through the lens. Everything here works on arrays [layers, rows] of it; the statistics across rows are in
`suppression`.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...hooks.errors import LayerprobeError

Floats = NDArray[np.float64]
Variants = Literal["max", "logsumexp"]


@dataclass(frozen=True)
class Trajectory:
    """Answer and foil through the layers; every array is [layers, rows]."""

    layers: tuple[int, ...]
    """layer numbers, ascending; the last one is the model's output."""
    n_layers: int
    """L, the number of blocks of the model."""
    difference: Floats
    """LD in logits; positive where the answer leads."""
    answer_log_probability: Floats
    """nats, over the whole vocabulary."""
    foil_log_probability: Floats
    """nats."""
    answer_rank: Floats
    """0 where an answer variant is the likeliest token."""
    foil_rank: Floats
    kl_to_final: Floats | None
    """KL(final ‖ lens) as captured, nats; None where the store has none."""
    answers: NDArray[np.int64] | None = None
    """[rows] code of the answer's tokens: rows of one code ask for the same token."""
    n_variants: NDArray[np.int64] | None = None
    """[rows] surface variants of the answer, the best of which is ranked."""
    vocabulary: int | None = None
    """Tokens that are known to exist: a lower bound of the vocabulary."""

    def select(self, rows: NDArray[Any]) -> "Trajectory":
        """The same with only the given rows (mask or indices)."""
        names = ("difference", "answer_log_probability", "foil_log_probability", "answer_rank", "foil_rank")
        parts = {name: getattr(self, name)[:, rows] for name in names}
        kl = None if self.kl_to_final is None else self.kl_to_final[:, rows]
        one: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[rows]
            for name in ("answers", "n_variants")
        }
        return replace(self, **parts, **one, kl_to_final=kl)


def over_variants(logits: ArrayLike, how: Variants = "max") -> Floats:
    """One logit per answer from those of its surface variants ("yes", " Yes", …), padded with NaN.

    `max` takes the likeliest variant; `logsumexp` adds their probabilities.

    >>> over_variants([[1.0, 3.0, np.nan]]).tolist()
    [3.0]
    """
    values = np.asarray(logits, dtype=np.float64)
    filled = np.where(np.isnan(values), -np.inf, values)
    top = filled.max(axis=-1)
    if how == "max":
        return np.where(np.isneginf(top), np.nan, top)
    if how != "logsumexp":
        raise LayerprobeError(f"variants={how!r}, expected 'max' or 'logsumexp'")
    safe = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        total = safe + np.log(np.exp(filled - safe[..., None]).sum(axis=-1))
    return np.where(np.isneginf(top), np.nan, total)


def read_trajectory(
    lens: Any, target: str, foil: str, *, variants: Variants = "max", n_layers: int | None = None
) -> Trajectory:
    """Answer and foil columns of a captured lens.

    Args:
        lens: a `LensTable`, logits [layers, rows, columns, variants].
        target: the column holding the evidence-supported answer.
        foil: the column holding what it is compared with.
        variants: how surface variants of one answer become one logit.
        n_layers: L where known; otherwise the last captured layer is taken for the last of the model.

    Raises:
        LayerprobeError: a column the lens does not have, or a row without any candidate.
    """
    if target == foil:
        raise LayerprobeError(
            f"target={target!r} and foil={foil!r} are one column, so the answer never leads; name two"
        )
    for name in (target, foil):
        if name not in lens.columns:
            raise LayerprobeError(
                f"the lens of this store has candidates for {', '.join(lens.columns) or 'no column'}, not "
                f"{name!r}; capture with lens_tokens=[{target!r}, {foil!r}], or pass model= to read them now"
            )
    layers = tuple(int(layer) for layer in lens.layers)
    depth = layers[-1] + 1 if n_layers is None else n_layers
    if layers[-1] != depth - 1:
        raise LayerprobeError(
            f"the lens was captured up to layer {layers[-1]} and the model has {depth}; suppression compares "
            "with the output: capture the site lens at all layers"
        )
    logits = np.asarray(lens.candidate_logits, dtype=np.float64)
    ranks = np.asarray(lens.candidate_ranks, dtype=np.float64)
    total = np.asarray(lens.logsumexp, dtype=np.float64)
    picked = {}
    for role, name in (("answer", target), ("foil", foil)):
        column = lens.columns.index(name)
        value = over_variants(logits[:, :, column], variants)
        if np.isnan(value).any():
            row = int(np.flatnonzero(np.isnan(value).any(axis=0))[0])
            raise LayerprobeError(
                f"row {row} has no lens candidate for {name!r}; give every prompt an answer "
                "and a foil, or leave those rows out"
            )
        rank = np.where(ranks[:, :, column] < 0, np.inf, ranks[:, :, column]).min(axis=-1)
        picked[role] = (value, rank)
    ids = np.asarray(lens.candidate_ids)
    own, other = (np.sort(ids[:, lens.columns.index(name)], axis=-1) for name in (target, foil))
    equal = (own == other).all(axis=-1)
    if equal.any():
        raise LayerprobeError(
            f"{int(equal.sum())} of {len(equal)} rows have the same tokens for {target!r} and {foil!r}, the "
            f"first row {int(np.flatnonzero(equal)[0])}: their difference is zero throughout; leave those "
            "rows out"
        )
    kl = getattr(lens, "kl_to_final", None)
    return Trajectory(
        layers=layers,
        n_layers=depth,
        difference=picked["answer"][0] - picked["foil"][0],
        answer_log_probability=picked["answer"][0] - total,
        foil_log_probability=picked["foil"][0] - total,
        answer_rank=picked["answer"][1],
        foil_rank=picked["foil"][1],
        kl_to_final=None if kl is None else np.asarray(kl, dtype=np.float64),
        answers=np.unique(own, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64),
        n_variants=(own >= 0).sum(axis=-1).astype(np.int64),
        vocabulary=1 + max(int(np.max(values, initial=0)) for values in (ids, ranks, lens.top_ids)),
    )


def middle_layers(layers: ArrayLike, n_layers: int) -> NDArray[np.bool_]:
    """True where L/4 ≤ l < L − 1.

    >>> np.flatnonzero(middle_layers(range(8), 8)).tolist()
    [2, 3, 4, 5, 6]
    """
    numbers = np.asarray(layers)
    return (numbers >= n_layers / 4) & (numbers < n_layers - 1)


def is_late(layer: float, n_layers: int) -> bool:
    """Late is l ≥ L/2."""
    return bool(layer >= n_layers / 2)


def handoff(difference: ArrayLike, middle: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[rows] the answer leads at some middle layer and trails at the end.

    Args:
        difference: [layers, rows] LD.
        middle: [layers] mask.
    """
    values = np.asarray(difference)
    return (values[middle] > 0).any(axis=0) & (values[-1] < 0)


def _stays(condition: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[…, layers] true from where the condition holds until the end."""
    return np.flip(np.logical_and.accumulate(np.flip(condition, -1), axis=-1), -1)


def _first(mask: NDArray[np.bool_], layers: ArrayLike) -> Floats:
    numbers = np.asarray(layers, dtype=np.float64)
    return np.where(mask.any(axis=-1), numbers[mask.argmax(axis=-1)], np.nan)


def crossing_layer(curves: ArrayLike, layers: ArrayLike) -> Floats:
    """First layer from which LD stays below zero, after having been above it; NaN where there is none.

    Args:
        curves: […, layers] LD.
        layers: [layers] their numbers.

    >>> crossing_layer([[1, 2, -1, -3], [1, -1, 2, 2], [-1, -1, -1, -1]], range(4)).tolist()
    [2.0, nan, nan]
    """
    values = np.asarray(curves, dtype=np.float64)
    stays = _stays(values < 0)
    return _first(stays & ~stays[..., :1], layers)


def onset_layer(curves: ArrayLike, layers: ArrayLike, middle: NDArray[np.bool_]) -> Floats:
    """First layer where the lead is lost: LD stays below halfway between its middle-layer peak and its end.

    Defined for a lead that falls without ever turning negative too; NaN where the end is not below the peak.

    Args:
        curves: […, layers] LD.
        layers: [layers] their numbers.
        middle: [layers] mask; the peak is looked for there.

    >>> onset_layer([[0, 8, 8, 7, 1, 0]], range(6), np.array([0, 1, 1, 1, 1, 0], bool)).tolist()
    [4.0]
    """
    values = np.asarray(curves, dtype=np.float64)
    inside = np.where(middle, values, -np.inf)
    peak = inside.max(axis=-1, keepdims=True)
    where = inside.argmax(axis=-1)[..., None]
    after = np.arange(values.shape[-1]) > where
    lost = _stays(values < (peak + values[..., -1:]) / 2) & after & (peak > values[..., -1:])
    return _first(lost, layers)


def divergence_layer(
    difference: ArrayLike, draws: ArrayLike, layers: ArrayLike, *, level: float = 0.95
) -> Floats:
    """First layer from which two curves stay apart, judged by a simultaneous (sup-t) bootstrap band.

    Args:
        difference: [layers] one curve minus the other.
        draws: [n_boot, layers] the same under each bootstrap draw.
        layers: [layers] their numbers.
        level: coverage of the band over all layers together.

    Returns:
        [1 + n_boot] the layer, then that of every draw held to the same band; NaN where the curves do not
        stay apart to the end, or fewer than two draws are finite.
    """
    curves = np.concatenate(
        [np.asarray(difference, dtype=np.float64)[None], np.asarray(draws, dtype=np.float64)]
    )
    centre, boot = curves[0], curves[1:]
    boot = boot[np.isfinite(boot).all(axis=1)]  # a draw may hold none of the rows of a small subset
    if len(boot) < 2:
        return np.full(len(curves), np.nan)
    spread = np.maximum(boot.std(axis=0, ddof=1), 1e-12)
    reach = np.quantile(np.max(np.abs(boot - centre) / spread, axis=1), level)
    return _first(_stays(np.abs(curves) > reach * spread), layers)


@dataclass(frozen=True)
class CrossFit:
    """A suppression index whose peak layer was chosen on rows that do not score it; first draw = the data."""

    index: Floats
    """[draws] LD at the peak − LD at the end."""
    peak: Floats
    """[draws] LD at the peak."""
    final: Floats
    """[draws] LD at the end."""
    scores: Floats
    """[rows] index of each row, averaged over splits, from the data's own choice of peak."""
    layer: int
    """the layer most often chosen."""


def crossfit_index(
    difference: ArrayLike, layers: ArrayLike, middle: NDArray[np.bool_], weights: ArrayLike, halves: ArrayLike
) -> CrossFit:
    """max over middle layers of LD(l) − LD(L), peak chosen on one half of the groups and scored on the other.

    Both halves play both parts, over several splits; each bootstrap draw chooses its peaks anew. A plain peak
    minus end is positive on noise; this is centred on zero there.

    Args:
        difference: [layers, rows] LD.
        layers: [layers] their numbers.
        middle: [layers] where a peak may be.
        weights: [draws, rows] multiplicities, first row of ones; zero leaves a row out.
        halves: [splits, rows] true for one half of the groups.
    """
    values, multiplicity = np.asarray(difference, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    candidates = np.flatnonzero(middle)
    sides = np.asarray(halves, dtype=bool)
    peaks, ends = np.zeros(len(multiplicity)), np.zeros(len(multiplicity))
    scores, chosen = np.zeros(values.shape[1]), []
    for half in sides:
        top, end, total = 0.0, 0.0, 0.0
        for scoring in (half, ~half):
            choosing = multiplicity * ~scoring
            best = candidates[(choosing @ values[candidates].T).argmax(axis=1)]
            mass = multiplicity * scoring
            sums = mass @ values.T
            top = top + sums[np.arange(len(best)), best]
            end = end + sums[:, -1]
            total = total + mass.sum(axis=1)
            scores[scoring] += (values[best[0]] - values[-1])[scoring] / len(sides)
            chosen.append(int(best[0]))
        with np.errstate(invalid="ignore"):
            peaks += top / total / len(sides)
            ends += end / total / len(sides)
    numbers = np.asarray(layers)
    common = np.bincount(chosen).argmax()
    return CrossFit(peaks - ends, peaks, ends, scores, int(numbers[common]))
