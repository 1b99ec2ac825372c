"""Activation patching: what happens to the logit difference when parts of another run are put into this one.

recovery = (LD_patched − LD_corrupt) / (LD_clean − LD_corrupt), as a ratio of means over prompts: 0 where
the part changes nothing, 1 where it brings back all that separates the two runs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Answer, Role, SourceModel
from ..result.registry import analysis
from ..statistics.bounded import bounded
from ..statistics.resampling import (
    STORED,
    bootstrap_interval,
    cluster_bootstrap_weights,
    max_t,
    permutation_p,
)
from .answer_task import AnswerTask, answer_task
from .component_views import patching_drawn, patching_found
from .components import Component, all_components
from .edited_runs import Where, record, run_difference
from .paths import Path, path_effects, path_frame, paths_among, strongest
from .source import Source, contrast_source, model_source
from .sweeps import head_sweep, position_sweep, site_sweep

Floats = NDArray[np.float64]


@analysis(
    title="Which parts bring the answer back?",
    group="cause",
    guide="suppression",
    findings=patching_found,
    picture=patching_drawn,
)
def patching(
    store: ActivationStore,
    *,
    model: Model,
    source: SourceModel = "contrast",
    target: Answer = "answer",
    foil: Answer = "foil",
    role: Role = "role",
    groups: Any = STORED,
    rows: NDArray[Any] | None = None,
    limit: int | None = 64,
    where: Where = "all",
    positions: bool = True,
    paths: int = 0,
    batch_size: int = 16,
    n_permutations: int = 2000,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> AnalysisResult:
    """Recovery by every head and MLP, and by the stream at every layer and position.

    Args:
        store: one row per prompt, captured from `model`.
        model: the model that is patched.
        source: `contrast` (each target gets its contrast's values), or a loaded model (base) run on the
            same tokens.
        target: lens column, label column or literal answer.
        foil: likewise.
        role: label column with target and contrast.
        groups: rows that belong together.
        rows: mask or indices of the store's rows to use.
        limit: at most so many prompts, drawn by whole groups.
        where: replace a component's value at `all` positions or at the `last` alone.
        positions: also patch the stream by layer × position.
        paths: path patching among so many of the components that do most, and from each to the logits.
        batch_size: prompts whose patched copies run together.
        n_permutations: sign flips of whole groups; p is family-wise (max-T) over all components.
        n_bootstrap: cluster-bootstrap draws.
        seed: of draws and flips.
        progress: show a progress bar.

    Returns:
        kind `patching`; metrics `recovery` (per component) and `effect` (in logits, with p and
        p_familywise), `corrupt` and `clean` logit differences. Frames `map` (components), `positions`
        (layer × position, with the tokens) and `paths` (sender, receiver, effect in logits).

    Raises:
        LayerprobeError: runs that cannot be aligned token by token.

    Source: Vig et al. (2004.12265); Zhang & Nanda (2309.16042); paths: Wang et al. (2211.00593).

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["instruct"])
    >>> labels = ["sensitive", "answer", "foil", "role"]
    >>> columns = {"text": "prompt", "labels": labels, "group": "group", "pair": "pair"}
    >>> prompts = lp.read_prompts(demo.prompts_file(), **columns)[:16]
    >>> options = {"lens_tokens": ["answer", "foil"], "chat_template": True, "progress": False}
    >>> store = lp.capture(model, prompts, sites=["lens"], **options)
    >>> base = lp.load_model(demo.models()["base"])
    >>> result = lp.patching(store, model=model, source=base, n_bootstrap=20, n_permutations=20)
    >>> sorted(result.frames)
    ['map', 'positions']
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
    names = all_components(model)
    effects, corrupt, clean = np.empty((len(task), len(names))), np.empty(len(task)), np.empty(len(task))
    width = max(len(tokens) for tokens in task.tokens)
    by_place = np.full((len(task), model.n_layers, width), np.nan)
    batches = list(task.batches(batch_size))
    if progress:
        from tqdm.auto import tqdm

        batches = tqdm(batches, desc="patching", unit="batch")
    for batch in batches:
        cache = record(model, batch)
        values, other = origin.run(batch)
        corrupt[batch.rows], clean[batch.rows] = run_difference(model, batch).cpu(), other.cpu()
        effects[batch.rows] = (
            component_differences(model, batch, cache, values, where) - corrupt[batch.rows, None]
        )
        if positions:
            found = position_sweep(model, batch, cache, values).numpy() - corrupt[batch.rows, None, None]
            by_place[batch.rows, :, width - batch.ids.shape[1] :] = found
    fields = {
        "model": store.model_name,
        "dataset": store.dataset_name,
        "reference": origin.name,
        "target": f"{target} − {foil}",
        "seed": seed,
    }
    rest = (corrupt, clean, task, n_bootstrap, n_permutations, seed)
    result = tidy({**fields, **row} for row in effect_rows(names, effects, *rest))
    frames = {"map": result[result["metric"] == "recovery"].reset_index(drop=True)}
    if positions:
        frames["positions"] = position_frame(by_place, corrupt, clean, task, model).assign(
            model=store.model_name
        )
    if paths:
        chosen = paths_among(strongest(names, effects, paths))
        along = path_effects(model, task, origin, chosen, batch_size, corrupt)
        frames["paths"] = path_frame(effect_rows(chosen, along, *rest)).assign(model=store.model_name)
    return AnalysisResult(
        kind="patching",
        table=result,
        frames=frames,
        notes=left_out_note(left_out),
        provenance={
            "source": origin.name,
            "where": where,
            "n": len(task),
            "target": target,
            "foil": foil,
            "seed": seed,
            "store": store.provenance,
        },
    )


def prepare(
    store: ActivationStore,
    model: Model,
    source: Any,
    *,
    target: str,
    foil: str,
    role: str,
    groups: Any,
    rows: NDArray[Any] | None,
    limit: int | None,
    seed: int,
) -> tuple[AnswerTask, Source, int]:
    """The task to patch, where values come from, and how many pairs could not be aligned."""
    if source == "contrast":
        everything = answer_task(store, model, target=target, foil=foil, groups=groups, rows=rows)
        task, origin, left_out = contrast_source(everything, model, role)
        if limit is not None and len(task) > limit:
            from ..comparison.geometry import codes, subsample_groups

            keep = subsample_groups(codes(task.groups), limit, seed)
            task, origin = task.select(keep), Source(model, origin.task.select(keep), origin.name)
        return task, origin, left_out
    if isinstance(source, str):
        raise LayerprobeError(f"source={source!r}: pass 'contrast', or a loaded model such as the base model")
    task = answer_task(
        store, model, target=target, foil=foil, groups=groups, rows=rows, limit=limit, seed=seed
    )
    return task, model_source(task, model, source), 0


def left_out_note(pairs: int) -> tuple[str, ...]:
    """What a result says of pairs that could not be aligned."""
    if not pairs:
        return ()
    return (f"{pairs} pairs were left out because target and contrast differ in their number of tokens.",)


def component_differences(model: Model, batch: Any, cache: Any, values: Any, where: Where = "all") -> Floats:
    """[B, components] LD with each component replaced alone, in the order of `all_components`."""
    heads = head_sweep(model, batch, cache, values, where=where)
    mlps = site_sweep(model, batch, cache, values, where=where)
    return np.asarray(torch.cat([heads, mlps[..., None]], dim=2).flatten(1), dtype=np.float64)


def recovery_draws(effects: Floats, corrupt: Floats, clean: Floats, weights: Floats) -> Floats:
    """[draws, …] recovery as a ratio of weighted means: effects [rows, …] over clean − corrupt [rows]."""
    flat = effects.reshape(len(effects), -1)
    gap = weights @ (clean - corrupt)
    return (weights @ flat / gap[:, None]).reshape(len(weights), *effects.shape[1:])


def end_rows(corrupt: Floats, clean: Floats, weights: Floats, size: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean LD of the run as it is and of the other run, with intervals."""
    rows = []
    for name, values in (("corrupt", corrupt), ("clean", clean)):
        draws = weights @ values / weights.sum(axis=1)
        lo, hi = (float(end) for end in bootstrap_interval(draws[1:]))
        metric = f"{name}_logit_difference"
        rows.append({**size, "metric": metric, **bounded(metric, draws[0], lo, hi)})
    return rows


def effect_rows(
    names: Sequence[Component | Path],
    effects: Floats,
    corrupt: Floats,
    clean: Floats,
    task: AnswerTask,
    n_bootstrap: int,
    n_permutations: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows of every component: recovery and effect, intervals, and family-wise p by sign flips of groups."""
    weights = np.concatenate(
        [np.ones((1, len(task))), cluster_bootstrap_weights(task.groups, n_bootstrap, seed)]
    )
    n_groups = int(task.groups.max()) + 1
    sums = np.zeros((n_groups, effects.shape[1]))
    np.add.at(sums, task.groups, effects)
    signs = np.random.default_rng(seed).integers(0, 2, (n_permutations, n_groups)) * 2 - 1
    null = signs @ sums / len(task)
    seen = effects.mean(axis=0)
    p, family = permutation_p(seen, null, two_sided=True), max_t(seen, null, two_sided=True)
    size = {"n": len(task), "n_groups": n_groups, "ci_method": "cluster bootstrap, percentile"}
    rows = end_rows(corrupt, clean, weights, size)
    mass = weights.sum(axis=1)
    recovery, in_logits = recovery_draws(effects, corrupt, clean, weights), weights @ effects / mass[:, None]
    for metric, draws in (("recovery", recovery), ("effect", in_logits)):
        lo, hi = bootstrap_interval(draws[1:])
        rows += [
            {
                **size,
                **name.fields(),
                "metric": metric,
                **bounded(metric, draws[0, i], lo[i], hi[i]),
                "p": p[i],
                "p_familywise": family[i],
            }
            for i, name in enumerate(names)
        ]
    return rows


def position_frame(
    by_place: Floats, corrupt: Floats, clean: Floats, task: AnswerTask, model: Model
) -> pd.DataFrame:
    """Recovery per layer and position from the end, with the commonest token there and how common it is."""
    width = by_place.shape[2]
    rows = []
    for offset in range(-width, 0):
        known = ~np.isnan(by_place[:, 0, offset])
        tokens = [int(task.tokens[row][offset]) for row in np.flatnonzero(known)]
        values, counts = np.unique(tokens, return_counts=True)
        token = model.tokenizer.convert_ids_to_tokens(int(values[counts.argmax()]))
        gap = (clean - corrupt)[known].mean()
        for layer in range(by_place.shape[1]):
            rows.append(
                {
                    "layer": layer,
                    "position": offset,
                    "token": token,
                    "token_share": counts.max() / counts.sum(),
                    "estimate": by_place[known, layer, offset].mean() / gap if gap else np.nan,
                    "n": int(known.sum()),
                }
            )
    return pd.DataFrame(rows)
