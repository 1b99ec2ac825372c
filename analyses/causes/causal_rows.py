"""Table rows of a causal check: random sets, ablation, control prompts, a verdict on every component."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..result.words import number
from ..statistics.bounded import bounded
from ..statistics.resampling import bootstrap_interval, cluster_bootstrap_weights
from .answer_task import AnswerTask
from .attribution import contributions
from .choice import Patcher
from .components import Component
from .edited_runs import record, set_difference
from .patching import effect_rows
from .source import Ablation

Floats = NDArray[np.float64]
ABLATIONS = ("zero", "mean", "resample")


def random_row(metric: str, draws: Floats, size: dict[str, Any], what: str) -> dict[str, Any]:
    """Mean recovery over control sets [draws, sets], its interval, and in the note the largest."""
    if not draws.shape[1]:
        return {**size, "metric": metric, "estimate": np.nan, "note": f"no set is left: {what}"}
    mean = draws.mean(axis=1)
    lo, hi = (float(end) for end in bootstrap_interval(mean[1:]))
    count = f"{draws.shape[1]} {'set' if draws.shape[1] == 1 else 'sets'}"
    return {
        **size,
        "metric": metric,
        **bounded(metric, mean[0], lo, hi),
        "null_sd": float(draws[0].std()),
        "note": f"{count}, {what}; largest {number(draws[0].max())}",
    }


def ablation_rows(
    patcher: Patcher,
    chosen: Sequence[Component],
    corrupt: Floats,
    weights: Floats,
    size: dict[str, Any],
    seed: int,
) -> list[dict[str, Any]]:
    """Change of LD when the chosen set is ablated: what it does, without another model's values."""
    rows = []
    for how in ABLATIONS:
        ablation = Ablation(how, patcher.model, patcher.task, seed)
        changed = np.empty(len(patcher.task))
        for batch in patcher.task.batches(patcher.batch_size):
            cache = record(patcher.model, batch, ("resid_pre", *patcher.sites))
            changed[batch.rows] = set_difference(
                patcher.model,
                batch,
                chosen,
                cache,
                ablation.values(batch, cache, patcher.sites),
                where=patcher.where,
            ).cpu()
        draws = weights @ (changed - corrupt) / weights.sum(axis=1)
        lo, hi = bootstrap_interval(draws[1:])
        rows.append(
            {
                **size,
                "metric": "change_by_ablation",
                "method": how,
                **bounded("change_by_ablation", draws[0], lo, hi),
            }
        )
    return rows


def control_row(patcher: Patcher, chosen: Sequence[Component], n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Change of LD on prompts without the override when the same set is patched there: specificity."""
    task = patcher.task
    before, _ = patcher.ends()
    change = patcher.sets([chosen])[:, 0] - before
    weights = np.concatenate(
        [np.ones((1, len(task))), cluster_bootstrap_weights(task.groups, n_bootstrap, seed)]
    )
    draws = weights @ change / weights.sum(axis=1)
    lo, hi = bootstrap_interval(draws[1:])
    return {
        "metric": "change_on_control",
        **bounded("change_on_control", draws[0], lo, hi),
        "n": len(task),
        "n_groups": int(task.groups.max()) + 1,
        "ci_method": "cluster bootstrap, percentile",
        "split": "control prompts",
        "note": f"their logit difference is {number(before.mean())} before",
    }


def verdict_frame(
    patcher: Patcher,
    corrupt: Floats,
    clean: Floats,
    chosen: Sequence[Component],
    differing: Sequence[Component],
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> pd.DataFrame:
    """One row per component: what it writes, what patching it does, and whether it was chosen."""
    names = patcher.names
    singles = patcher.singles() - corrupt[:, None]
    rows = effect_rows(names, singles, corrupt, clean, patcher.task, n_bootstrap, n_permutations, seed)
    frame = pd.DataFrame([row for row in rows if row["metric"] == "recovery"])
    try:
        mine = _written(patcher.model, patcher.task, names)
        frame["attribution"] = mine - _written(patcher.source.model, patcher.source.task, names)
    except LayerprobeError:  # blocks that are not additive have no attribution
        frame["attribution"] = np.nan
    frame["chosen"] = [component in chosen for component in names]
    frame["differs"] = [component in differing for component in names]
    others = frame.loc[~frame["chosen"] & frame["differs"], "estimate"].abs()
    frame["control"] = float(others.quantile(0.95)) if len(others) else np.nan
    keep = [
        "component",
        "layer",
        "head",
        "site",
        "attribution",
        "estimate",
        "lo",
        "hi",
        "p_familywise",
        "control",
        "chosen",
        "differs",
    ]
    frame = frame[keep].rename(columns={"estimate": "effect"})
    return frame.sort_values("effect", ascending=False, kind="stable").reset_index(drop=True)


def _written(model: Model, task: AnswerTask, names: Sequence[Component]) -> Floats:
    """Mean direct attribution of components; whole attention is the sum of its heads and bias."""
    labels, values = contributions(model, task)
    mean = dict(zip(map(str, labels), values.mean(axis=0), strict=True))
    return np.array([mean[str(c).replace("attn", "attention")] for c in names])
