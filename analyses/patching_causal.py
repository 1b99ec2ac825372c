"""Which parts cause an override: a small set found on half of the prompts, and tried on the other half.

Components are ranked by what patching each alone brings back, and added one by one until most of the logit
difference has returned. All of that happens on one half of the groups; the other half gives the numbers: the
set's recovery, that of random sets of the same make-up, what the set does to control prompts, and what
ablating it does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .components import Parts
from .patching import prepare, recovery_draws
from .patching_causal_rows import ablation_rows, control_row, random_row, verdict_frame
from .patching_choice import Patcher, choose, random_like
from .patching_runs import Where
from .patching_source import half_of_groups
from .resampling import STORED, bootstrap_interval, cluster_bootstrap_weights
from .result import AnalysisResult, tidy


def causal(
    store: Any,
    *,
    model: Any,
    source: Any,
    target: str = "answer",
    foil: str = "foil",
    role: str = "role",
    groups: Any = STORED,
    rows: NDArray[Any] | None = None,
    control: NDArray[Any] | None = None,
    limit: int | None = 64,
    enough: float = 0.9,
    most: int = 12,
    n_random: int = 20,
    lookahead: int = 4,
    where: Where = "all",
    parts: Parts = "heads",
    batch_size: int = 32,
    n_permutations: int = 2000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> AnalysisResult:
    """The heads and MLPs whose restoration brings the answer back, confirmed on prompts that did not choose
    them.

    Args:
        store: one row per prompt, captured from `model`.
        model: the model with the override.
        source: a loaded model without it (base), or `contrast`.
        target: lens column, label column or literal answer.
        foil: likewise.
        role: label column with target and contrast.
        groups: rows that belong together.
        rows: rows that show the override.
        control: rows that do not; the set is patched there too, from the same source (a model).
        limit: at most so many prompts (and so many controls), drawn by whole groups.
        enough: stop adding components at this recovery on the choosing half.
        most: or at so many components.
        n_random: random sets of as many heads and MLPs, from the components not chosen.
        lookahead: how many of the best remaining components are tried at each step.
        where: replace values at `all` positions or at the `last`.
        parts: choose among `heads` and MLPs, or among whole attention `layers` and MLPs. A head is patched at
            the input of the output projection, so another model's head is written through this model's
            weights; with `layers` what the other model wrote is put in as it was, and patching everything is
            exactly the other model (where they share embedding, final norm and unembedding).
        batch_size: prompts run together.
        n_permutations: sign flips of groups for the family-wise p of single components.
        n_bootstrap: cluster-bootstrap draws.
        seed: of halves, draws and random sets.

    Returns:
        kind `causal`. Metrics: `recovery_of_set`, `recovery_of_random_sets` (mean over sets; hi is the
        largest), `change_on_control` (logits), `change_by_ablation` per method. Frame `verdicts`: component,
        attribution (this model minus the source's), effect and interval, p_familywise, control (largest
        random single effect), chosen. Frame `path`: recovery as components are added, on the choosing half.

    Raises:
        LayerprobeError: runs that cannot be aligned.
    """
    task, origin, left_out = prepare(
        store,
        model,
        source,
        target=target,
        foil=foil,
        role=role,
        groups=groups,
        rows=rows,
        limit=limit,
        seed=seed,
    )
    patcher = Patcher(model, task, origin, batch_size, where, parts)
    half = half_of_groups(task.groups, seed)
    choosing, scoring = patcher.select(half), patcher.select(~half)
    chosen, path = choose(choosing, enough=enough, most=most, lookahead=lookahead)
    corrupt, clean = scoring.ends()
    weights = np.concatenate(
        [np.ones((1, len(scoring.task))), cluster_bootstrap_weights(scoring.task.groups, n_bootstrap, seed)]
    )
    rng = np.random.default_rng(seed)
    random = [random_like(chosen, patcher.names, rng) for _ in range(n_random)]
    found = scoring.sets([chosen, *random]) - corrupt[:, None]
    draws = recovery_draws(found, corrupt, clean, weights)
    size = {
        "n": len(scoring.task),
        "n_groups": int(scoring.task.groups.max()) + 1,
        "split": "half that did not choose",
        "ci_method": "cluster bootstrap, percentile",
    }
    lo, hi = bootstrap_interval(draws[1:, 0])
    table: list[dict[str, Any]] = [
        {**size, "metric": "recovery_of_set", "estimate": draws[0, 0], "lo": float(lo), "hi": float(hi)}
    ]
    table.append(random_row(draws, size))
    for name, values in (("corrupt", corrupt), ("clean", clean)):
        ends = weights @ values / weights.sum(axis=1)
        lo, hi = bootstrap_interval(ends[1:])
        table.append(
            {
                **size,
                "metric": f"{name}_logit_difference",
                "estimate": ends[0],
                "lo": float(lo),
                "hi": float(hi),
            }
        )
    table += ablation_rows(scoring, chosen, corrupt, weights, size, seed)
    if control is not None:
        table.append(
            control_row(
                store, model, origin, chosen, patcher, target, foil, groups, control, limit, n_bootstrap, seed
            )
        )
    singles = scoring.singles() - corrupt[:, None]
    verdicts = verdict_frame(scoring, singles, corrupt, clean, chosen, n_bootstrap, n_permutations, seed)
    fields = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "reference": origin.name,
        "target": f"{target} − {foil}",
        "seed": seed,
    }
    notes = (
        (f"{left_out} pairs were left out because target and contrast differ in their number of tokens.",)
        if left_out
        else ()
    )
    return AnalysisResult(
        kind="patching_causal",
        table=tidy({**fields, **row} for row in table),
        frames={"verdicts": verdicts, "path": path},
        notes=notes,
        provenance={
            "chosen": [str(c) for c in chosen],
            "source": origin.name,
            "where": where,
            "parts": parts,
            "seed": seed,
            "enough": enough,
            "most": most,
            "n_random": n_random,
            "store": store.provenance,
        },
    )
