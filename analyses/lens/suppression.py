"""Late-layer suppression: does the model represent the evidence-supported answer and then override it?

For an answer A and a foil B the lens gives LD(l) = logit_A − logit_B after every block. The suppression index
is LD at its middle-layer peak minus LD at the end, the peak chosen on one half of the groups and scored on
the other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Column
from ..result.registry import analysis
from ..statistics.resampling import STORED, resolve_groups
from .suppression_index import Draws, SubsetReading, read_subset
from .suppression_rows import add_index_p, contrast_rows, subset_rows, trust_frame, verdict
from .trajectories import Trajectory, Variants, read_trajectory


@analysis(
    command="suppress",
    title="Is the answer represented and then overridden?",
    group="lens",
    guide="suppression",
)
def suppression(
    store: Any,
    *,
    target: Answer,
    foil: Answer,
    by: Column | None = None,
    contrast: str | None = None,
    groups: Any = STORED,
    model: Any = None,
    variants: Variants = "max",
    lens: Any = None,
    n_permutations: int = 2000,
    n_bootstrap: int = 1000,
    n_splits: int = 8,
    trust_kl: float = 2.0,
    seed: int = 0,
    progress: bool = False,
) -> AnalysisResult:
    """Where the lead of the answer over the foil is won, and whether late layers take it away.

    Args:
        store: captured with `lens_tokens=[target, foil]` (or holding `resid_post` where `model` is given).
        target: lens column of the evidence-supported answer, or a literal answer.
        foil: lens column of what it is compared with, or a literal answer.
        by: a label column; one reading per value, and each value against the rest.
        contrast: a value of `by` that the others are compared with, instead of with all the rest.
        groups: rows that belong together; see `resolve_groups`.
        model: reads the lens now, for stores without one and for literal answers.
        variants: surface variants of an answer by `max` or `logsumexp`.
        lens: a trained lens to read through instead of the logit lens (needs `model` or `resid_post`).
        n_permutations: sign flips and relabellings of whole groups, for p-values.
        n_bootstrap: cluster-bootstrap draws, shared by all layers, subsets and (in `compare`) models.
        trust_kl: a layer's lens is trusted where its mean KL from the output is at most this many nats on
            some subset (an override makes it large on the prompts it acts on); others are greyed in the
            figure.
        n_splits: random halvings that the index is averaged over.
        seed: of all of it.
        progress: accepted for symmetry; this takes seconds.

    Returns:
        kind `suppression`. Table: per layer and subset `logit_difference`, log-probabilities, ranks and
        `kl_to_final`; per subset `suppression_index` (layer: the peak), `peak_logit_difference`,
        `final_logit_difference`, `lost_share`, `handoff_rate`, `crossing_layer`, `onset_layer`; differences
        under subsets written "A − B". Frame `verdicts`: one row per subset, with onset and whether it is
        late.

    Raises:
        LayerprobeError: no lens for target or foil, an unknown column, too few groups.
    """
    trajectory = trajectory_of(store, target, foil, variants=variants, model=model, lens=lens)
    codes = resolve_groups(store, groups)
    draws = Draws.make(codes, n_bootstrap=n_bootstrap, n_splits=n_splits, seed=seed)
    subsets = subsets_of(store, by)
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
        scores=_scores(store, readings),
        frames={"verdicts": verdicts.assign(model=store.model_name), **trust_frame(table, trust_kl)},
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
    store: Any, target: str, foil: str, *, variants: Variants = "max", model: Any = None, lens: Any = None
) -> Trajectory:
    """The lens trajectory of a store: as captured, or read now from `resid_post`.

    Raises:
        LayerprobeError: neither is possible.
    """
    captured = store.lens
    depth = store.identity.get("model.n_layers")
    known = captured is not None and target in captured.columns and foil in captured.columns
    if known and lens is None:
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


def subsets_of(store: Any, by: str | None) -> dict[str, NDArray[np.bool_]]:
    """Subset name -> mask of rows: "all", or one "column=value" per value."""
    if by is None:
        return {"all": np.ones(store.n_rows, dtype=bool)}
    values = np.asarray(store.labels(by)).astype(str)
    return {f"{by}={value}": values == value for value in np.unique(values)}


def _scores(store: Any, readings: Mapping[str, SubsetReading]) -> pd.DataFrame:
    parts = [
        pd.DataFrame(
            {"id": np.asarray(store.ids)[r.rows], "site": "lens", "subset": name, "score": r.scores[r.rows]}
        )
        for name, r in readings.items()
    ]
    return pd.concat(parts, ignore_index=True)
