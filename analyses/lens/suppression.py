"""Late-layer suppression: does the model represent the evidence-supported answer and then override it?

For an answer A and a foil B the lens gives LD(l) = logit_A − logit_B after every block. The suppression index
is LD at its middle-layer peak minus LD at the end, the peak chosen on one half of the groups and scored on
the other.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.labels import read_classes
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Column, Count, Draws, Positive
from ..result.registry import analysis
from ..statistics.resampling import STORED, resolve_groups
from ..statistics.row_order import canonical_order
from .suppression_index import Draws as Resampling
from .suppression_index import SubsetReading, read_subset
from .suppression_rows import add_index_p, contrast_rows, subset_rows, trust_frame, verdict
from .suppression_view import draw, found
from .trajectories import Trajectory, Variants, read_trajectory

if TYPE_CHECKING:
    from ...hooks.model import Model


@analysis(
    command="suppress",
    title="Is the answer represented and then overridden?",
    group="lens",
    guide="suppression",
    without=("model", "lens"),
    findings=found,
    picture=draw,
)
def suppression(
    store: ActivationStore,
    *,
    target: Answer,
    foil: Answer,
    by: Column | None = None,
    contrast: str | None = None,
    groups: Any = STORED,
    model: "Model | None" = None,
    variants: Variants = "max",
    lens: Any = None,
    n_permutations: Draws = 2000,
    n_bootstrap: Draws = 1000,
    n_splits: Count = 8,
    trust_kl: Positive = 2.0,
    seed: int = 0,
    progress: bool = False,
) -> AnalysisResult:
    """The lens reading of an answer and its foil, layer by layer, and what late layers take away.

    For an answer A and a foil B, LD(l) = logit_A − logit_B after block l. The suppression index is LD at
    its peak among the middle layers (L/4 ≤ l < L − 1) minus LD at the output, the peak chosen on one half
    of the groups and scored on the other, so that it is centred on zero where nothing is lost. Lenses: the
    logit lens (nostalgebraist 2020) and the tuned lens (2303.08112).

    Args:
        store: captured with `lens_tokens=[target, foil]` (or holding `resid_post` where `model` is given).
        target: label column with the answers, or one literal answer.
        foil: label column with the foils, or one literal answer such as unknown.
        by: label column: one curve per value, and each value against the rest.
        contrast: a value of `by` that the others are compared with (default: each with all the rest).
        groups: rows that belong together; see `resolve_groups`.
        model: reads the lens now, for stores without one and for literal answers.
        variants: surface variants of an answer (" yes", "Yes") by `max` or `logsumexp` of their logits.
        lens: a trained lens to read through instead of the logit lens (needs `model` and `resid_post`).
        n_permutations: sign flips and relabellings of whole groups, for p-values.
        n_bootstrap: cluster-bootstrap draws, shared by all layers, subsets and (in `compare`) models.
        n_splits: random halvings that the index is averaged over.
        trust_kl: a layer's lens is trusted where its mean KL from the output is at most this many nats on
            some subset (an override makes it large on the prompts it acts on); others are greyed.
        seed: of all of it.
        progress: accepted for symmetry; this takes seconds.

    Returns:
        kind `suppression`. Table, in logits, nats, ranks, shares and layers from 0: per layer and subset
        `logit_difference`, log-probabilities, ranks and `kl_to_final`; per subset `suppression_index` (layer:
        the peak), `peak_logit_difference`, `final_logit_difference`, `lost_share`, `handoff_rate`,
        `crossing_layer`, `onset_layer`; differences of `subset` minus `minus` (a subset, or "rest"), with
        `divergence_layer`. Frame `verdicts`: one row per subset, with onset and whether it is late.

    Raises:
        LayerprobeError: no lens for target or foil, both the same, an unknown column, too few groups.

    >>> from layerprobe.cache.store.lens_table import LensTable
    >>> from layerprobe.cache.store.memory import from_arrays
    >>> noise = np.random.default_rng(0).normal(size=(8, 40))
    >>> lead = np.array([0, 1, 4, 6, 6, -3, -6, -7.0])[:, None] + noise
    >>> table = LensTable(
    ...     layers=tuple(range(8)),
    ...     columns=("answer", "foil"),
    ...     candidate_ids=np.tile([[[1], [2]]], (40, 1, 1)),
    ...     candidate_logits=np.stack([lead / 2, -lead / 2], axis=-1)[..., None],
    ...     candidate_ranks=np.zeros((8, 40, 2, 1), int),
    ...     logsumexp=np.full((8, 40), 9.0),
    ...     top_ids=np.zeros((8, 40, 1), int),
    ...     top_logits=np.zeros((8, 40, 1)),
    ...     kl_to_final=np.zeros((8, 40)),
    ... )
    >>> store = from_arrays({"resid_post": np.zeros((8, 40, 2))}, groups=np.arange(40), lens=table)
    >>> result = suppression(store, target="answer", foil="foil", n_bootstrap=99, n_permutations=99)
    >>> (finding,) = result.findings
    >>> finding.verdict, [int(one.value) for one in finding.numbers if one.unit == "layers"]
    ('found', [5])
    """
    order = canonical_order(store)
    trajectory = trajectory_of(store, target, foil, variants=variants, model=model, lens=lens).select(order)
    codes = resolve_groups(store, groups)[order]
    draws = Resampling.make(codes, n_bootstrap=n_bootstrap, n_splits=n_splits, seed=seed)
    subsets = {name: mask[order] for name, mask in subsets_of(store, by).items()}
    readings = {name: read_subset(trajectory, rows, draws) for name, rows in subsets.items()}
    rows = [
        row for name, reading in readings.items() for row in subset_rows(trajectory, name, reading, draws)
    ]
    add_index_p(rows, readings, draws, n_permutations)
    differences = contrast_rows(trajectory, readings, draws, by, contrast, n_permutations)
    common = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "site": "lens",
        "tokens": store.tokens,
        "space": "logits",
        "method": "logit_lens" if lens is None else "tuned_lens",
        "target": f"{target} − {foil}",
        "seed": seed,
    }
    table = tidy({**row, **common} for row in rows + differences)
    verdicts = pd.DataFrame([verdict(name, table, trajectory, readings[name]) for name in readings])
    return AnalysisResult(
        kind="suppression",
        table=table,
        scores=_scores(np.asarray(store.ids)[order], readings),
        frames={
            name: frame.assign(model=store.model_name)
            for name, frame in {"verdicts": verdicts, **trust_frame(table, trust_kl)}.items()
        },
        provenance={
            "target": target,
            "foil": foil,
            "by": by,
            "variants": variants,
            "n_bootstrap": n_bootstrap,
            "n_permutations": n_permutations,
            "n_splits": n_splits,
            "seed": seed,
            "n_layers": trajectory.n_layers,
            "store": store.provenance,
        },
    )


def trajectory_of(
    store: ActivationStore,
    target: str,
    foil: str,
    *,
    variants: Variants = "max",
    model: "Model | None" = None,
    lens: Any = None,
) -> Trajectory:
    """The lens trajectory of a store: as captured, or read now from `resid_post`.

    Raises:
        LayerprobeError: neither is possible, or answer and foil are the same.
    """
    captured = store.lens
    depth = store.identity.get("model.n_layers")
    known = captured is not None and target in captured.columns and foil in captured.columns
    if captured is not None and known and lens is None:
        return read_trajectory(captured, target, foil, variants=variants, n_layers=depth)
    if model is None:
        if captured is not None and lens is None:
            return read_trajectory(
                captured, target, foil, variants=variants, n_layers=depth
            )  # raises, naming them
        raise LayerprobeError(
            f"this store has no captured lens; capture with lens_tokens=[{target!r}, {foil!r}], or pass "
            "model= to read resid_post through its unembedding"
        )
    from .from_model import lens_from_model

    return read_trajectory(
        lens_from_model(store, model, target, foil, lens=lens),
        target,
        foil,
        variants=variants,
        n_layers=model.n_layers,
    )


def subsets_of(store: ActivationStore, by: str | None) -> dict[str, NDArray[np.bool_]]:
    """Subset name -> mask of rows: "all", or one "column=value" per value."""
    if by is None:
        return {"all": np.ones(store.n_rows, dtype=bool)}
    labelled = read_classes(store, by, least=1)
    of_row = np.full(store.n_rows, -1)
    of_row[labelled.rows] = labelled.codes
    return {f"{by}={value}": of_row == code for code, value in enumerate(labelled.classes)}


def _scores(ids: NDArray[Any], readings: Mapping[str, SubsetReading]) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"id": ids[r.rows], "site": "lens", "subset": name, "score": r.scores[r.rows]})
        for name, r in readings.items()
    ]
    return pd.concat(parts, ignore_index=True)
