"""Selectivity of token-level probes: does the probe read a property, or has it memorised word types?

A control task (Hewitt & Liang 1909.03368) gives every word type a random label. It can be solved only by
memorising words, so a probe that does well on it shows capacity, not representation. It works where types
recur across groups; for labels of whole prompts it would score chance by construction, and the online
codelength is used instead.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.task import Task, make_task
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Count, HeldOut, Label
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.metrics import balanced_accuracy
from ..statistics.resampling import STORED, cluster_bootstrap_weights
from .linear import linear_probe
from .selectivity_view import draw, found

CI_METHOD = "cluster bootstrap over held-out groups, and t over control draws"


def control_labels(types: NDArray[Any], labels: NDArray[Any], seed: int = 0) -> NDArray[Any]:
    """A random label for every type, drawn from the labels' own frequencies.

    Args:
        types: [rows] word type, such as the token id.
        labels: [rows]; rows without one get none.
        seed: of the draw.
    """
    _, of_row = np.unique(types, return_inverse=True)
    values = np.asarray(labels)
    missing = pd.isna(values)
    drawn = np.random.default_rng(seed).choice(values[~missing], size=int(of_row.max()) + 1)[of_row]
    if missing.any():
        drawn = drawn.astype(object)
        drawn[missing] = None
    return drawn


@analysis(
    title="Does the probe read “{label}”, or memorise words?",
    group="read",
    guide="probes",
    passes_on=linear_probe,
    without=("metrics", "positive", "permute", "n_permutations", "baselines"),
    findings=found,
    picture=draw,
)
def selectivity(
    store: ActivationStore,
    *,
    label: Label,
    groups: Any = STORED,
    types: Any = None,
    n_controls: Count = 5,
    held_out: HeldOut = 0.3,
    n_folds: int = 5,
    n_bootstrap: int = 1000,
    seed: int = 0,
    **options: Any,
) -> AnalysisResult:
    """Balanced accuracy on the label minus that on control labels, at every site and layer.

    The label and all controls are scored on the same held-out rows, so that the difference is paired. Its
    interval holds what another sample of groups would change (cluster bootstrap of the difference) and what
    another draw of control labels would (t over the draws), in quadrature.

    Args:
        store: with one row per token and a label that differs between tokens.
        label: a label column of classes.
        groups: as `linear_probe`.
        types: [rows] word types; default: the token ids of the store.
        n_controls: random labellings of the word types; with one there is no interval.
        held_out: as `linear_probe`.
        n_folds: as `linear_probe`.
        n_bootstrap: cluster-bootstrap draws.
        seed: as `linear_probe`, and of the controls.
        **options: as `linear_probe`.

    Returns:
        Rows of metric `selectivity` with `estimate` = accuracy − mean control accuracy, and both beside it
        with the controls' standard deviation `control_sd`; `.frames["best_layer"]` as `linear_probe`.

    Raises:
        LayerprobeError: fewer than a handful of word types, no tokens to tell them by; and as `linear_probe`.

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> words = np.arange(200) % 10
    >>> x = np.eye(10)[words][None] + 0.1 * rng.normal(size=(1, 200, 10))  # which word, and no more
    >>> store = from_arrays({"resid_post": x}, labels={"noun": (words < 5).astype(int), "word": words})
    >>> few = {"n_controls": 3, "n_bootstrap": 20}
    >>> result = selectivity(store, label="noun", groups=None, types=words, **few)
    >>> abs(float(result.table.query("metric == 'selectivity'")["estimate"].iloc[0])) < 0.2
    True
    """
    if "metrics" in options:
        raise LayerprobeError("selectivity is a difference of balanced accuracies: leave metrics= out")
    if n_controls < 1:
        raise LayerprobeError(f"n_controls={n_controls}, expected 1 or more (5 give an interval)")
    kinds = _token_types(store) if types is None else np.asarray(types)
    if kinds.shape != (store.n_rows,):
        raise LayerprobeError(
            f"types has shape {kinds.shape}, expected one for each of the {store.n_rows} rows"
        )
    if label not in store.label_names:
        raise LayerprobeError(
            f"label={label!r} is not a column of this store; have {', '.join(store.label_names)}"
        )
    labels = np.asarray(store.labels(label))
    task = make_task(
        store, label, groups=groups, held_out=held_out, n_folds=n_folds, seed=seed, kind=options.get("kind")
    )
    if task.kind == "regression":
        raise LayerprobeError(f"label {label!r} is graded; a control task needs classes, such as bins of it")
    n_types = len(np.unique(kinds[task.rows]))
    if n_types < 2:
        raise LayerprobeError(
            f"the {len(task.rows)} rows are of {n_types} word type, and a control task labels word types at "
            "random: capture several tokens a prompt (tokens='all'), or use online_codelength"
        )
    same_rows = np.zeros(store.n_rows, dtype=bool)
    same_rows[task.rows[task.test]] = True
    common = {"groups": groups, "metrics": ["balanced_accuracy"], "n_folds": n_folds, "seed": seed, **options}
    common |= {"held_out": same_rows, "n_permutations": 0, "baselines": False}
    real = linear_probe(store, label=label, n_bootstrap=n_bootstrap, **common)
    hits = [_held_out_hits(real)]
    for k in range(n_controls):
        control = control_labels(kinds, labels, seed + k)
        # their own intervals are of no use, and an analysis wants a few draws
        hits.append(_held_out_hits(linear_probe(store, label=control, n_bootstrap=20, **common)))
    weights = cluster_bootstrap_weights(task.groups[task.test], n_bootstrap, seed + 3)
    rows = []
    for (_, row), *scored in zip(real.table.iterrows(), *hits, strict=True):
        rows.append({**row, **_difference(scored, weights, task)})
    return AnalysisResult(
        kind="selectivity",
        table=tidy(rows),
        frames={"best_layer": real.frames["best_layer"]},
        provenance={"label": label, "n_controls": n_controls},
    )


Scored = tuple[NDArray[Any], NDArray[np.bool_]]
"""[held-out rows] labels, and whether the probe got each right."""


def _held_out_hits(result: AnalysisResult) -> Iterator[Scored]:
    assert result.scores is not None
    rows = result.scores[result.scores["split"] == "held_out"]
    places = [column for column in ("site", "layer", "head") if column in rows]
    for _, place in rows.groupby(places, sort=False, dropna=False):
        yield place["label"].to_numpy(), (place["predicted"] == place["label"]).to_numpy()


def _difference(scored: list[Scored], weights: NDArray[Any], task: Task) -> dict[str, Any]:
    """Accuracy less the mean control accuracy at one place, with its interval."""
    from scipy.special import stdtrit

    accuracy, draws = [], []
    for label, hit in scored:
        codes = np.unique(label.astype(str), return_inverse=True)[1]
        said = np.where(hit, codes, -1)
        accuracy.append(float(balanced_accuracy(codes, said)[0]))
        draws.append(balanced_accuracy(codes, said, weights))
    controls = np.array(accuracy[1:])
    found = {
        "metric": "selectivity",
        "estimate": accuracy[0] - float(controls.mean()),
        "accuracy": accuracy[0],
        "control": float(controls.mean()),
        "lo": None,
        "hi": None,
        "ci_method": None,
    }
    if len(controls) < 2:
        return found | {"note": "no interval: one control is one random draw; pass n_controls=5"}
    n_groups = len(np.unique(task.groups[task.test]))
    differences = draws[0] - np.mean(draws[1:], axis=0)
    spread = float(np.nanstd(differences, ddof=1)) * np.sqrt(n_groups / (n_groups - 1))
    between = float(controls.std(ddof=1))
    half = np.hypot(
        stdtrit(n_groups - 1, 0.975) * spread,
        stdtrit(len(controls) - 1, 0.975) * between / np.sqrt(len(controls)),
    )
    if half == 0:
        return found | {"note": "no interval: all predictions are alike, or all are right, in every draw"}
    gap = accuracy[0] - float(controls.mean())
    bounds = {**bounded("selectivity", gap, gap - half, gap + half), "ci_method": CI_METHOD}
    return found | bounds | {"control_sd": between, "note": None}


def _token_types(store: ActivationStore) -> NDArray[Any]:
    ids = store.token_ids() if callable(store.token_ids) else store.token_ids
    if ids is None:
        raise LayerprobeError("this store keeps no token ids; pass types=, the word type of each row")
    pairs = zip(np.asarray(store.examples).tolist(), np.asarray(store.positions).tolist(), strict=True)
    return np.array([ids[example][position] for example, position in pairs])
