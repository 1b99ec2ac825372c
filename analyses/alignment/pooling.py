"""One representation out of many layers: sparse weights learned with a contrastive separation loss.

h̃ = Σₗ αₗ hₗ with α on the simplex (softmax, or sparsemax of Martins & Astudillo 1602.02068, which reaches
exact zeros); only α is trained (the model is frozen), as in the Alignment Quality Index (2506.13901). Two
things are added so that the weights mean something: each layer is first brought to unit scale on the training
rows, else the layer with the largest norm wins; and training starts at equal weights, which are kept unless
learned ones clearly beat them on groups held out of the training, so that no layer is named when none stands
out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...hooks.errors import LayerprobeError
from ..statistics.resampling import grouped_folds

WEIGHTINGS = ("sparsemax", "softmax")
NEEDED_GAIN = 3.0
"""Standard errors by which learned weights must beat equal ones on held-out groups; pairs share rows, so two
would be passed by noise too often."""


@dataclass(frozen=True)
class LayerPooling:
    """Learned weights of layers.

    Attributes:
        weights: [seeds, layers] on the simplex, one row per seed.
        scale: [layers] root-mean-square distance to the mean on training rows; layers are divided by it.
        steps: [seeds] training steps kept; 0 means equal weights were not beaten on held-out groups.
        heldout_gain: [seeds] fall of the held-out loss against equal weights, in standard errors.
    """

    weights: NDArray[np.float64]
    scale: NDArray[np.float64]
    steps: NDArray[np.int64]
    heldout_gain: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """[layers] weights averaged over seeds."""
        return self.weights.mean(axis=0)

    @property
    def spread_out(self) -> bool:
        """Whether most seeds found nothing better than equal weights on held-out groups."""
        return bool((self.steps == 0).mean() > 0.5)

    def pool(
        self, layers: NDArray[np.floating], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """[rows, width] weighted sum of scaled layers.

        Args:
            layers: [layers, rows, width].
            weights: [layers]; default: the mean over seeds.
        """
        alpha = (self.mean if weights is None else weights) / self.scale
        out = np.zeros(layers.shape[1:], dtype=np.float64)
        for share, values in zip(alpha, layers, strict=True):
            if share:
                out += share * np.asarray(values, dtype=np.float64)
        return out


def sparsemax(scores: Tensor) -> Tensor:
    """Euclidean projection of [layers] scores onto the simplex.

    >>> sparsemax(torch.tensor([2.0, 0.0, 0.0])).tolist()
    [1.0, 0.0, 0.0]
    >>> sparsemax(torch.tensor([0.5, 0.5, 0.5, -9.0])).mul(3).round().tolist()
    [1.0, 1.0, 1.0, 0.0]
    """
    ordered = torch.sort(scores, descending=True).values
    above = ordered.cumsum(0) - 1
    rank = torch.arange(1, len(scores) + 1, dtype=scores.dtype)
    support = int((rank * ordered > above).sum())
    return (scores - above[support - 1] / support).clamp(min=0)


def fit_pooling(
    layers: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    *,
    weighting: str = "sparsemax",
    rescale: bool = True,
    n_seeds: int = 5,
    n_pairs: int = 1000,
    n_steps: int = 100,
    margin: float = 2.0,
    seed: int = 0,
) -> LayerPooling:
    """Learn layer weights on training rows.

    The loss is contrastive: pairs of one class should be near, pairs of two classes at least `margin` apart,
    distances in units of the pooled representation's own root-mean-square pair distance (else shrinking all
    distances would lower it). Since d² = αᵀGα with G the layers' inner products of a pair's difference, each
    pair is reduced to a layers × layers matrix once, and steps cost nothing.

    Args:
        layers: [layers, rows, width], the training rows only.
        labels: [rows] two or more classes.
        groups: [rows].
        weighting: `sparsemax` or `softmax`.
        rescale: bring layers to unit scale first.
        n_seeds: random draws of pairs and of the held-out groups.
        n_pairs: pairs per kind (same class, different classes) and part (fitted, held out).
        n_steps: of Adam.
        margin: of pairs of different classes.
        seed: of the seeds.

    Raises:
        LayerprobeError: unknown weighting, or a single layer.
    """
    if weighting not in WEIGHTINGS:
        raise LayerprobeError(f"weighting={weighting!r}, expected one of {', '.join(WEIGHTINGS)}")
    if len(layers) < 2:
        raise LayerprobeError(
            "layer pooling needs two layers or more; capture more layers or pass layers= with two or more"
        )
    scale = np.ones(len(layers))
    if rescale:
        spread = [np.asarray(one, dtype=np.float64) for one in layers]
        scale = np.array([np.sqrt(((one - one.mean(0)) ** 2).sum(1).mean()) for one in spread])
        scale[scale == 0] = 1.0
    fits = []
    for number in range(n_seeds):
        rng = np.random.default_rng([seed, number])
        held = grouped_folds(groups, labels, n_folds=3, seed=int(rng.integers(2**31))) == 0
        fit, check = (
            _pair_grams(layers, scale, labels, groups, np.flatnonzero(part), n_pairs, rng)
            for part in (~held, held)
        )
        fits.append(_train(fit, check, weighting, n_steps, margin, rng))
    weights, steps, gain = (np.array(column) for column in zip(*fits, strict=True))
    return LayerPooling(weights, scale, steps, gain)


def _pair_grams(
    layers: NDArray[np.floating],
    scale: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    rows: NDArray[np.int64],
    n_pairs: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """[pairs, layers²] inner products of pair differences, for pairs of one class and of two."""
    first, second = rng.choice(rows, size=(2, 12 * n_pairs))
    # two paraphrases are near whatever the label, so pairs of one group say nothing
    apart = groups[first] != groups[second]
    same = labels[first] == labels[second]
    grams = []
    for kind in (same, ~same):
        chosen = np.flatnonzero(kind & apart)[:n_pairs]
        if len(chosen) == 0:
            raise LayerprobeError(
                "too few groups per class to learn layer weights; pass layers=[…] of one layer"
            )
        # pieces of about 64 MiB, so that wide models fit
        piece = max(1, 2**24 // (len(layers) * layers.shape[2]))
        parts = []
        for start in range(0, len(chosen), piece):
            part = chosen[start : start + piece]
            difference = [
                (np.asarray(x[first[part]], dtype=np.float32) - np.asarray(x[second[part]], dtype=np.float32))
                / s
                for x, s in zip(layers, scale, strict=True)
            ]
            tensor = torch.from_numpy(np.stack(difference, axis=1).astype(np.float32))
            parts.append(torch.bmm(tensor, tensor.transpose(1, 2)).flatten(1))
        grams.append(torch.cat(parts))
    return grams[0], grams[1]


Terms = tuple[Tensor, Tensor]


def _terms(alpha: Tensor, grams: Terms, margin: float) -> Terms:
    """Loss of every pair of one class, and of every pair of two."""
    outer = torch.outer(alpha, alpha).flatten()
    same, different = (gram @ outer for gram in grams)
    unit = (same.mean() + different.mean()) / 2 + 1e-30
    return same / unit, (margin - (different / unit + 1e-12).sqrt()).clamp(min=0).square()


def _loss(alpha: Tensor, grams: Terms, margin: float) -> Tensor:
    near, far = _terms(alpha, grams, margin)
    return near.mean() + far.mean()


def _train(
    fit: Terms, check: Terms, weighting: str, n_steps: int, margin: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], int, float]:
    """Weights of the step with the best held-out loss, if it beats equal weights beyond doubt."""
    n_layers = round(fit[0].shape[1] ** 0.5)
    scores = torch.from_numpy(rng.normal(scale=1e-3, size=n_layers).astype(np.float32)).requires_grad_()
    # Adam (1412.6980) in four lines: torch.optim would import a compiler to move twenty numbers
    first, second = torch.zeros(n_layers), torch.zeros(n_layers)
    path = [torch.full((n_layers,), 1 / n_layers)]
    for step in range(1, n_steps + 1):
        alpha = sparsemax(scores) if weighting == "sparsemax" else torch.softmax(scores, dim=0)
        loss = _loss(alpha, fit, margin)
        (slope,) = torch.autograd.grad(loss, scores)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope.square()
        move = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        scores = (scores.detach() - 0.05 * move).requires_grad_()
        path.append(alpha.detach())
    with torch.no_grad():
        # every fifth step is looked at
        losses = [float(_loss(alpha, check, margin)) for alpha in path[::5]]
        best = 5 * int(np.argmin(losses))
        gain = _gain(path[0], path[best], check, margin)
    kept = best if gain > NEEDED_GAIN else 0
    return path[kept].numpy().astype(np.float64), kept, gain


def _gain(start: Tensor, end: Tensor, grams: Terms, margin: float) -> float:
    """Fall of the held-out loss from one set of weights to another, in standard errors over pairs."""
    total = variance = 0.0
    for before, after in zip(_terms(start, grams, margin), _terms(end, grams, margin), strict=True):
        change = before - after
        total += float(change.mean())
        variance += float(change.var()) / len(change)
    return total / variance**0.5 if variance > 0 else 0.0
