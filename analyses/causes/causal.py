"""Which parts cause an override: a small set found on some prompts, and tried on others.

Components are ranked by what patching each alone brings back, and added one by one until most of the logit
difference has returned. All of that happens on one half of the groups, or on a store of its own; the other
half, or a store of fresh prompts, gives the numbers: the set's recovery, that of other sets as large, what
moving the same components as far in random directions does, what the set does to control prompts, and what
ablating it does.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Role, SourceModel
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.resampling import STORED, bootstrap_interval, cluster_bootstrap_weights
from .causal_rows import ablation_rows, control_row, random_row, verdict_frame
from .causal_view import draw, found
from .choice import Patcher, choose, random_sets
from .components import Parts
from .edited_runs import Where
from .patching import end_rows, left_out_note, prepare, recovery_draws
from .source import half_of_groups


@analysis(
    title="Which parts cause the override?",
    group="cause",
    guide="suppression",
    aliases=("patching_causal",),
    findings=found,
    picture=draw,
)
def causal(
    store: ActivationStore,
    *,
    model: Model,
    source: SourceModel = "contrast",
    confirm: Any = None,
    target: Answer = "answer",
    foil: Answer = "foil",
    role: Role = "role",
    groups: Any = STORED,
    rows: NDArray[Any] | None = None,
    control: NDArray[Any] | None = None,
    limit: int | None = 64,
    enough: float = 0.9,
    most: int = 12,
    n_random: int = 20,
    lookahead: int = 16,
    where: Where = "all",
    parts: Parts = "heads",
    batch_size: int = 32,
    n_permutations: int = 2000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> AnalysisResult:
    """The heads and MLPs whose restoration brings the answer back, confirmed on prompts that did not choose.

    Args:
        store: one row per prompt, captured from `model`.
        model: the model with the override.
        source: a loaded model without it (base), or `contrast`.
        confirm: a store of other prompts, captured from `model`: `store` then chooses with all its rows, and
            all of `confirm` is what the numbers are of (`confirm.select(...)` narrows it).
        target: lens column, label column or literal answer.
        foil: likewise.
        role: label column with target and contrast.
        groups: rows that belong together; with `confirm` as stored, or None.
        rows: rows of `store` that show the override.
        control: rows of `store` that do not; the set is patched there too, from the same model.
        limit: at most so many prompts (and so many controls), drawn by whole groups.
        enough: stop adding components at this recovery where they are chosen.
        most: or at so many components.
        n_random: other sets as large, of components that the runs differ in, and as many random directions.
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
        kind `patching_causal`. Metrics: `recovery_of_set`, `recovery_of_random_sets` (other sets as large, of
        components in which the two runs differ at all; the note says how many there are),
        `recovery_of_random_directions` (the chosen components moved as far from their own values as patching
        moves them), `change_on_control` (logits), `change_by_ablation` per method. Frame `verdicts`:
        component, attribution (this model minus the source's), effect and interval, p_familywise, control
        (95 % quantile of what others that differ do alone), chosen, differs. Frame `path`: recovery as
        components are added, where they were chosen.

    Raises:
        LayerprobeError: runs that cannot be aligned, prompts that are to choose and confirm both.

    Source: greedy choice as in Conmy et al. 2023 (2304.14997), confirmed on prompts that did not choose.

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["instruct"])
    >>> labels = ["sensitive", "answer", "foil", "role"]
    >>> columns = {"text": "prompt", "labels": labels, "group": "group", "pair": "pair"}
    >>> prompts = lp.read_prompts(demo.prompts_file(), **columns)[:16]
    >>> options = {"lens_tokens": ["answer", "foil"], "chat_template": True, "progress": False}
    >>> store = lp.capture(model, prompts, sites=["lens"], **options)
    >>> base = lp.load_model(demo.models()["base"])
    >>> few = {"n_bootstrap": 20, "n_permutations": 20, "n_random": 2, "most": 2}
    >>> result = lp.causal(store, model=model, source=base, **few)
    >>> "recovery_of_set" in set(result.table["metric"])
    True
    """

    def patcher_of(some: Any, chosen_rows: NDArray[Any] | None) -> tuple[Patcher, int]:
        task, origin, left_out = prepare(
            some,
            model,
            source,
            target=target,
            foil=foil,
            role=role,
            groups=groups,
            rows=chosen_rows,
            limit=limit,
            seed=seed,
        )
        return Patcher(model, task, origin, batch_size, where, parts), left_out

    if control is not None and source == "contrast":
        raise LayerprobeError(
            "control= asks what the source model does to other prompts; with source='contrast' leave it out"
        )
    patcher, left_out = patcher_of(store, rows)
    if confirm is None:
        half = half_of_groups(patcher.task.groups, seed)
        choosing, scoring, split = patcher.select(half), patcher.select(~half), "half that did not choose"
    else:
        check_fresh(store, confirm, groups)
        choosing, scoring, split = patcher, patcher_of(confirm, None)[0], "prompts that did not choose"
    chosen, path = choose(choosing, enough=enough, most=most, lookahead=lookahead)
    differing = choosing.differing()
    others = random_sets(chosen, differing, n_random, seed)
    corrupt, clean = scoring.ends()
    weights = np.concatenate(
        [np.ones((1, len(scoring.task))), cluster_bootstrap_weights(scoring.task.groups, n_bootstrap, seed)]
    )
    size = {
        "n": len(scoring.task),
        "n_groups": int(scoring.task.groups.max()) + 1,
        "split": split,
        "ci_method": "cluster bootstrap, percentile",
    }
    sets = recovery_draws(scoring.sets([chosen, *others]) - corrupt[:, None], corrupt, clean, weights)
    moved = scoring.random_directions(chosen, n_random, seed) - corrupt[:, None]
    lo, hi = bootstrap_interval(sets[1:, 0])
    table: list[dict[str, Any]] = [
        {**size, "metric": "recovery_of_set", **bounded("recovery_of_set", sets[0, 0], lo, hi)},
        random_row("recovery_of_random_sets", sets[:, 1:], size, f"of {len(differing)} parts that differ"),
        random_row(
            "recovery_of_random_directions",
            recovery_draws(moved, corrupt, clean, weights),
            size,
            "the chosen parts moved as far in random directions",
        ),
        *end_rows(corrupt, clean, weights, size),
        *ablation_rows(scoring, chosen, corrupt, weights, size, seed),
    ]
    if control is not None:
        table.append(control_row(patcher_of(store, control)[0], chosen, n_bootstrap, seed))
    verdicts = verdict_frame(scoring, corrupt, clean, chosen, differing, n_bootstrap, n_permutations, seed)
    fields = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "reference": patcher.source.name,
        "target": f"{target} − {foil}",
        "seed": seed,
    }
    return AnalysisResult(
        kind="patching_causal",
        table=tidy({**fields, **row} for row in table),
        frames={"verdicts": verdicts, "path": path},
        notes=left_out_note(left_out),
        provenance={
            "chosen": [str(c) for c in chosen],
            "differing": [str(c) for c in differing],
            "source": patcher.source.name,
            "where": where,
            "parts": parts,
            "seed": seed,
            "enough": enough,
            "most": most,
            "lookahead": lookahead,
            "n_random": n_random,
            "store": store.provenance,
            "confirm": None if confirm is None else confirm.provenance,
        },
    )


def check_fresh(store: ActivationStore, confirm: Any, groups: Any) -> None:
    """Refuse prompts that would choose the components and confirm them too.

    Raises:
        LayerprobeError: shared groups (or prompt ids, where groups are not as stored).
    """
    by_group = groups is STORED and store.groups is not None and confirm.groups is not None
    names = [set(map(str, np.asarray(s.groups if by_group else s.ids))) for s in (store, confirm)]
    shared = sorted(names[0] & names[1])
    if shared:
        what = "groups" if by_group else "prompts"
        raise LayerprobeError(
            f"confirm= shares {len(shared)} {what} with the store that chooses (first: {shared[0]!r}); leave "
            "them out, or leave confirm out to split the store by groups"
        )
