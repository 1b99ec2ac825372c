"""Probes that need no labels: contrast-consistent search and its spectral relative, on pairs of opposite
answers.

Each pair holds one question answered both ways. Truth flips within the pair, and so must the probe; the side
itself (the word "yes") is subtracted first, fold by fold, by adding the side as one more column that balances
the means.
"""

from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..result.analysis import AnalysisResult
from ..result.options import Label, Option
from ..result.registry import analysis
from ..statistics.resampling import STORED, group_codes
from .linear import linear_probe
from .loop import probe_task
from .methods import Method
from .option_checks import ProbePlan
from .picture import draw
from .problem import Fits, Floats, Problem
from .readable import found


@analysis(
    title="Can “{label}” be read off without its labels?",
    group="read",
    guide="probes",
    passes_on=linear_probe,
    findings=found,
    picture=draw,
)
def contrast_probe(
    store: ActivationStore,
    *,
    label: Label,
    side: Annotated[str | ArrayLike, Option(str, reads="column")],
    pair: Annotated[ArrayLike | None, Option(str | None, reads="column")] = None,
    method: Literal["ccs", "crc"] = "ccs",
    groups: Any = STORED,
    seed: int = 0,
    restarts: int = 8,
    **options: Any,
) -> AnalysisResult:
    """CCS (Burns et al. 2212.03827) or CRC, its first principal component of differences, at every site and
    layer.

    Labels are used for one thing in fitting: which end of the direction is called true (one bit, from
    training groups). Scoring, intervals and nulls are those of `linear_probe`.

    Args:
        store: an activation store with two rows per pair.
        label: whether the row's statement is true.
        side: which of the two answers the row carries.
        pair: which rows are a pair; default: the store's pairs.
        method: `ccs` or `crc`.
        groups: as `linear_probe`.
        seed: as `linear_probe`, and of the restarts.
        restarts: of CCS's non-convex search; the lowest loss is kept.
        **options: as `linear_probe`.

    Returns:
        As `linear_probe`. A direction's bias lies half-way between the two sides'.

    Raises:
        LayerprobeError: pairs of other than two rows, both with one side or one label; and as `linear_probe`.

    Source: CCS: Burns et al. (2212.03827); CRC: its spectral relative, in the same paper.

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> pair, side = np.arange(120) // 2, np.arange(120) % 2  # each statement as true and as false
    >>> true = side == rng.integers(2, size=60)[pair]
    >>> x = rng.normal(size=(1, 120, 8)); x[0, :, 0] += np.where(true, 3, -3); x[0, :, 1] += 5 * side
    >>> labels = {"true": true.astype(int), "side": side, "pair": pair}
    >>> store = from_arrays({"resid_post": x}, labels=labels, groups=pair)
    >>> few = {"n_permutations": 20, "n_bootstrap": 20}
    >>> result = contrast_probe(store, label="true", side="side", pair="pair", method="crc", **few)
    >>> float(result.table.query("metric == 'auroc'")["estimate"].iloc[0]) > 0.9
    True
    """
    if method not in ("ccs", "crc"):
        raise LayerprobeError(f"method={method!r} is unknown; choose from ccs, crc")
    pairs = store.pairs if pair is None else _column(store, pair, "pair")
    if pairs is None:
        raise LayerprobeError(
            "this store has no pairs; pass pair='COLUMN' saying which two rows answer one question"
        )
    sides = _column(store, side, "side")
    if len(set(map(str, sides))) != 2:
        raise LayerprobeError(
            f"side has {len(set(map(str, sides)))} values, expected two: one for each answer"
        )
    side_codes = 2.0 * group_codes(sides) - 1
    pair_codes = group_codes(pairs)

    def build(task: Any) -> tuple[Method, Any]:
        if task.kind != "binary":
            raise LayerprobeError(
                f"label {task.name!r} is {task.kind}, and a contrast probe tells true from false; pass a "
                "label of two classes"
            )
        check_both_labelled(pair_codes, task.rows, pairs)
        partners = pair_rows(pair_codes[task.rows], side_codes[task.rows])

        def fit(problem: Problem, strengths: Floats) -> Fits:
            return _fit(problem, partners, method, restarts, seed)

        def widen(x: Floats) -> Floats:
            return np.concatenate([x, side_codes[task.rows, None]], axis=1)

        return Method(fit, np.ones(1), ("binary",), False, stacked=False), widen

    plan = ProbePlan(groups=groups, seed=seed, **options)
    return probe_task(store, label, method, build, plan, drop_last=True)


def _column(store: ActivationStore, values: str | ArrayLike, name: str) -> Any:
    if isinstance(values, str):
        if values not in store.label_names:
            raise LayerprobeError(
                f"{name}={values!r} is not a label column; have {', '.join(store.label_names)}"
            )
        return store.labels(values)
    array = np.asarray(values)
    if array.shape != (store.n_rows,):
        raise LayerprobeError(
            f"{name} has shape {array.shape}, expected one entry for each of {store.n_rows} rows"
        )
    return array


def check_both_labelled(codes: Any, rows: Any, names: Any) -> None:
    """Refuse pairs of which one row has a label and the other none.

    Args:
        codes: [store rows] pair of each row.
        rows: the rows that have a label.
        names: [store rows] the pairs' names.
    """
    have, labelled = np.bincount(codes), np.bincount(codes[rows], minlength=int(codes.max()) + 1)
    torn = (labelled > 0) & (labelled < have)
    if torn.any():
        first = np.asarray(names)[codes == np.flatnonzero(torn)[0]][0]
        raise LayerprobeError(
            f"{int(torn.sum())} pairs have a label on some of their rows only, such as pair {str(first)!r}; "
            "label both rows of a pair, or neither"
        )


def pair_rows(pairs: Any, sides: Any) -> Any:
    """[pairs, 2] row numbers, side −1 first.

    Raises:
        LayerprobeError: a pair that does not have exactly one row of each side.
    """
    order = np.lexsort((sides, pairs))
    counts = np.bincount(pairs)
    if not (counts[counts > 0] == 2).all() or not (np.asarray(sides)[order].reshape(-1, 2) == [-1, 1]).all():
        raise LayerprobeError(
            "every pair needs exactly two rows, one of each side; leave the others out, or pass pair= "
            "and side= that say which rows answer one question"
        )
    return order.reshape(-1, 2)


def _fit(problem: Problem, partners: Any, method: str, restarts: int, seed: int) -> Fits:
    x, y, _ = problem.tensors()
    weights, biases, left = [], [], []
    for fold in range(problem.n_folds):
        mine = partners[(problem.masks[partners, fold] > 0).all(axis=1)]
        if len(mine) < 4:
            raise LayerprobeError(
                f"{len(mine)} pairs lie wholly in one training fold; put both rows in one group"
            )
        low, high = x[mine[:, 0], :-1], x[mine[:, 1], :-1]
        means = low.mean(0), high.mean(0)
        scale = torch.cat([low - means[0], high - means[1]]).std(0, correction=0)
        scale = torch.where(scale > 1e-8, scale, 1.0)
        a, b = (low - means[0]) / scale, (high - means[1]) / scale
        w, shift, gradient = _crc(a, b) if method == "crc" else _ccs(a, b, restarts, seed)
        truth = y[mine[:, 1]] * 2.0 - 1
        if ((b - a) @ w * truth).mean() < 0:
            w, shift = -w, -shift
        w = w / scale
        # score = w·x + bias of the row's side; the column of sides (±1) carries half the difference of means
        of_side = torch.stack([shift - w @ means[0], shift - w @ means[1]])
        weights.append(torch.cat([w, of_side.diff() / 2]))
        biases.append(of_side.mean())
        left.append(gradient)
    gradients = torch.stack(left)[:, None]
    return Fits.solved(
        problem, torch.stack(weights)[:, None], torch.stack(biases)[:, None], gradients, gradients < 1e-3
    )


Direction = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""[width] weight, bias, and what is left of the gradient."""


def _crc(a: torch.Tensor, b: torch.Tensor) -> Direction:
    none = a.new_zeros(())
    return torch.linalg.svd(b - a, full_matrices=False)[2][0], none, none


def _ccs(low: torch.Tensor, high: torch.Tensor, restarts: int, seed: int) -> Direction:
    """Lowest of several minima of (p₊ − (1 − p₋))² + min(p₊, p₋)², mean over pairs."""
    width = low.shape[1]
    generator = torch.Generator().manual_seed(seed)  # the same starts on every device
    w = (torch.randn(width, restarts, generator=generator, dtype=low.dtype) / width**0.5).to(low.device)
    w.requires_grad_()
    shift = low.new_zeros(restarts, requires_grad=True)
    optimiser = torch.optim.LBFGS([w, shift], max_iter=200, history_size=10, line_search_fn="strong_wolfe")

    def losses() -> torch.Tensor:
        p, q = torch.sigmoid(low @ w + shift), torch.sigmoid(high @ w + shift)
        # a touch of weight decay: on few pairs the loss falls for ever as weights grow
        return ((q - (1 - p)) ** 2 + torch.minimum(p, q) ** 2).mean(0) + 1e-4 * (w**2).sum(0)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        total = losses().sum()
        total.backward()
        return total

    optimiser.step(closure)
    closure()
    with torch.no_grad():
        best = int(losses().argmin())
        assert w.grad is not None
        return w[:, best].clone(), shift[best].clone(), w.grad[:, best].abs().max()
