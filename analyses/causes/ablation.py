"""What the logit difference loses, or wins, without each head and MLP: zero, mean and resample ablation.

A head is ablated at the *input* of the output projection: zeroing it there is zeroing its slice of the
weights. Zeroing puts a model where it has never been; the mean over the prompts' tokens, or the value of
another prompt, is a milder question.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer
from ..result.registry import analysis
from ..statistics.resampling import STORED
from .answer_task import answer_task
from .component_views import ablation_drawn, ablation_found
from .components import all_components
from .edited_runs import Where, record, run_difference
from .patching import component_differences, effect_rows
from .source import Ablation

HOW = ("zero", "mean", "resample")


@analysis(
    title="Which parts does the answer need?",
    group="cause",
    guide="suppression",
    findings=ablation_found,
    picture=ablation_drawn,
)
def ablation(
    store: ActivationStore,
    *,
    model: Model,
    how: Literal["zero", "mean", "resample"] = "mean",
    target: Answer = "answer",
    foil: Answer = "foil",
    groups: Any = STORED,
    rows: NDArray[Any] | None = None,
    limit: int | None = 64,
    where: Where = "all",
    batch_size: int = 16,
    n_permutations: int = 2000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> AnalysisResult:
    """The change of the logit difference when one head or MLP at a time is ablated.

    Args:
        store: one row per prompt, captured from `model`.
        model: the model that is ablated.
        how: `zero`, `mean` (over all tokens of these prompts) or `resample` (another prompt's values).
        target: lens column, label column or literal answer.
        foil: likewise.
        groups: rows that belong together.
        rows: mask or indices of the store's rows to use.
        limit: at most so many prompts, drawn by whole groups.
        where: at `all` positions or at the `last` alone.
        batch_size: prompts run together.
        n_permutations: sign flips of whole groups; p is family-wise (max-T) over all components.
        n_bootstrap: cluster-bootstrap draws.
        seed: of draws, flips and donors.

    Returns:
        kind `ablation`; metric `effect` in logits per component (negative: what it did for the answer is
        gone), with interval, p and p_familywise, and `logit_difference`, that of the model as it is.

    Raises:
        LayerprobeError: an unknown `how`, or a store that this model did not make.

    Source: Michel, Levy & Neubig 2019 (1905.10650); mean and resample ablation: Wang et al. (2211.00593).

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["instruct"])
    >>> labels = ["sensitive", "answer", "foil", "role"]
    >>> columns = {"text": "prompt", "labels": labels, "group": "group", "pair": "pair"}
    >>> prompts = lp.read_prompts(demo.prompts_file(), **columns)[:16]
    >>> options = {"lens_tokens": ["answer", "foil"], "chat_template": True, "progress": False}
    >>> store = lp.capture(model, prompts, sites=["lens"], **options)
    >>> result = lp.ablation(store, model=model, n_bootstrap=20, n_permutations=20)
    >>> len(result.table.query("metric == 'effect'"))  # 8 layers of 4 heads and an MLP
    40
    """
    if how not in HOW:
        raise LayerprobeError(f"how={how!r}, expected one of {', '.join(HOW)}")
    task = answer_task(
        store, model, target=target, foil=foil, groups=groups, rows=rows, limit=limit, seed=seed
    )
    names, values = all_components(model), Ablation(how, model, task, seed)
    effects, before = np.empty((len(task), len(names))), np.empty(len(task))
    for batch in task.batches(batch_size):
        cache = record(model, batch)
        before[batch.rows] = run_difference(model, batch).cpu()
        after = component_differences(model, batch, cache, {**cache, **values.values(batch, cache)}, where)
        effects[batch.rows] = after - before[batch.rows, None]
    found = effect_rows(names, effects, before, before + 1, task, n_bootstrap, n_permutations, seed)
    start = {
        **next(row for row in found if row["metric"].startswith("corrupt")),
        "metric": "logit_difference",
    }
    kept = [start, *(row for row in found if row["metric"] == "effect")]
    fields = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "method": how,
        "target": f"{target} − {foil}",
        "seed": seed,
    }
    table = tidy({**fields, **row} for row in kept)
    return AnalysisResult(
        kind="ablation",
        table=table,
        frames={"map": table[table["metric"] == "effect"].reset_index(drop=True)},
        provenance={**fields, "where": where, "n": len(task), "store": store.provenance},
    )
