"""The refusal direction (Arditi et al. 2024, 2406.11717): a mean difference that is chosen by what it does.

Candidates are r = mean(harmful) − mean(harmless) of the stream entering a layer, at a position counted from
the end. Projecting one out everywhere (x − r̂ r̂ᵀ x) must lower refusal on harmful prompts, adding it must
raise refusal on harmless ones, and ablation must hardly change what the model says to harmless ones (KL ≤
0.1, layer < 0.8 L).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..result.analysis import AnalysisResult, tidy
from ..result.directions import Directions
from ..result.options import Label, Positive, Share, Value
from ..result.registry import analysis
from .refusal_runs import (
    evaluate,
    first_tokens,
    last_logits,
    log_odds,
    stream_means,
)
from .refusal_view import draw, found

Prompts = Sequence[Any]


def refusal_direction_on_store(
    store: ActivationStore,
    *,
    model: Model,
    label: Label,
    harmful: Value,
    harmless: Value,
    refusal_tokens: tuple[str, ...],
    max_kl: Positive = 0.1,
    layer_bound: Share = 0.8,
    seed: int = 0,
) -> AnalysisResult:
    """`refusal_direction` on the prompts of a store, as the model saw them.

    Args:
        store: with the texts of the prompts.
        model: whose activations the store holds.
        label: label column that tells the two kinds of prompts apart.
        harmful: its value on prompts that the model refuses.
        harmless: its value on prompts that it answers.
        refusal_tokens: as `refusal_direction`.
        max_kl: as `refusal_direction`.
        layer_bound: as `refusal_direction`.
        seed: as `refusal_direction`.

    Raises:
        LayerprobeError: no prompt has the value, or the store keeps no texts; and as `refusal_direction`.
    """
    return refusal_direction(
        model,
        _texts(store, label, harmful),
        _texts(store, label, harmless),
        refusal_tokens=refusal_tokens,
        max_kl=max_kl,
        layer_bound=layer_bound,
        seed=seed,
    )


def _texts(store: ActivationStore, label: str, value: str) -> list[str]:
    """The rendered prompts with this value, each once."""
    values = [str(v) for v in store.labels(label)]
    chosen = np.array([v == str(value) for v in values], dtype=bool)
    if not chosen.any():
        raise LayerprobeError(
            f"no prompt has {label} = {value!r}; {label} is one of {', '.join(sorted(set(values))[:8])}"
        )
    if store.texts is None:
        raise LayerprobeError("this store keeps no texts; capture it again from the prompts")
    return [store.texts[i] for i in dict.fromkeys(store.examples[chosen].tolist())]


@analysis(
    title="Is there one direction of refusal?",
    group="cause",
    guide="base_vs_instruct",
    findings=found,
    picture=draw,
    call=refusal_direction_on_store,
)
def refusal_direction(
    model: Model,
    harmful: Prompts,
    harmless: Prompts,
    *,
    refusal_tokens: Sequence[str],
    positions: Sequence[int] = (-1,),
    max_kl: float = 0.1,
    layer_bound: float = 0.8,
    validation: float = 0.3,
    test: float = 0.3,
    batch_size: int = 16,
    seed: int = 0,
) -> AnalysisResult:
    """Find, and test on held-out prompts, the direction whose removal stops the model from refusing.

    Args:
        model: a loaded (instruct) model.
        harmful: texts or lists of chat messages that it refuses.
        harmless: likewise, that it answers; as many, more or less.
        refusal_tokens: strings that a refusal begins with, such as "I" or "Sorry" (their first tokens count).
        positions: positions from the end of the prompt at which candidates are taken.
        max_kl: largest admissible KL(unedited ‖ ablated) on harmless prompts, nats.
        layer_bound: only layers below this share of L.
        validation: share of each set kept for choosing; means come from what is left of these two.
        test: share of each set on which the chosen direction is reported, which nothing else sees.
        batch_size: prompts run at once.
        seed: of that split.

    Returns:
        kind `refusal_direction`. Table: per layer and position, on validation prompts, `refusal_ablated`
        (log-odds of refusing on harmful prompts with the direction removed: low is good), `refusal_added` (on
        harmless ones with it added: high is good), `kl_ablated`, and whether the candidate is admissible; for
        the chosen one the same on test prompts, where choosing did not flatter it, beside those of a random
        direction as long (metrics `random_…`). `directions`: the chosen one at `resid_pre` of its layer.
        Provenance names it.

    Raises:
        LayerprobeError: fewer than 5 prompts of a kind, unknown tokens, or no admissible candidate.

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["instruct"])
    >>> asked = lp.read_prompts(demo.prompts_file(), text="prompt", labels=["sensitive"])
    >>> kinds = asked.labels["sensitive"]
    >>> harmful, harmless = ([asked.prompts[i] for i in np.flatnonzero(kinds == kind)[:12]]
    ...                      for kind in ("sensitive", "benign"))
    >>> result = lp.refusal_direction(model, harmful, harmless, refusal_tokens=["unknown"], max_kl=10.0)
    >>> list(result.directions)[0][0]
    'resid_pre'
    """
    for name, prompts in (("harmful", harmful), ("harmless", harmless)):
        if len(prompts) < 6:
            raise LayerprobeError(
                f"{len(prompts)} {name} prompts are too few to find, choose and test on; give at least 6"
            )
    tokens = first_tokens(model, refusal_tokens)
    parts = {
        name: split(prompts, validation, test, seed)
        for name, prompts in (("harmful", harmful), ("harmless", harmless))
    }
    means = {name: stream_means(model, p["train"], positions, batch_size) for name, p in parts.items()}
    candidates = means["harmful"] - means["harmless"]
    valid = {name: part["validation"] for name, part in parts.items()}
    plain = {name: last_logits(model, prompts, batch_size) for name, prompts in valid.items()}
    rows = unedited_rows(model, plain, tokens, "validation prompts")
    limit = int(np.ceil(layer_bound * model.n_layers))
    admissible = []
    for layer in range(limit):
        for place, position in enumerate(positions):
            vector = candidates[layer, place]
            if float(vector.norm()) < 1e-6:
                continue  # the same tokens stand there in both kinds of prompt
            found = evaluate(model, vector, layer, valid, plain["harmless"], tokens, batch_size)
            fits = found["kl_ablated"] <= max_kl and found["refusal_added"] > float(
                log_odds(plain["harmless"], tokens).mean()
            )
            rows += [
                {
                    "model": model.name,
                    "site": "resid_pre",
                    "layer": layer,
                    "position": position,
                    "metric": metric,
                    "estimate": value,
                    "n": len(valid["harmless" if metric != "refusal_ablated" else "harmful"]),
                    "admissible": bool(fits),
                    "split": "validation prompts",
                }
                for metric, value in found.items()
            ]
            if fits:
                admissible.append((found["refusal_ablated"], layer, place))
    if not admissible:
        raise LayerprobeError(
            f"no candidate keeps KL on harmless prompts at or below {max_kl} and induces refusal below "
            f"layer {limit}; give "
            "more prompts, other positions, or a larger max_kl"
        )
    _, layer, place = min(admissible)
    vector = candidates[layer, place]
    held = {name: part["test"] for name, part in parts.items()}
    rows += tested_rows(model, vector, layer, positions[place], held, tokens, batch_size, seed)
    chosen = vector.float().cpu().numpy()
    return AnalysisResult(
        kind="refusal_direction",
        table=tidy({**row, "seed": seed} for row in rows),
        directions=Directions(
            {"resid_pre": {layer: chosen / np.linalg.norm(chosen)}}, {"resid_pre": {layer: np.array(0.0)}}
        ),
        provenance={
            "layer": layer,
            "position": positions[place],
            "norm": float(np.linalg.norm(chosen)),
            "max_kl": max_kl,
            "layer_bound": layer_bound,
            "refusal_tokens": list(refusal_tokens),
            "seed": seed,
        },
    )


def split(prompts: Prompts, validation: float, test: float, seed: int) -> dict[str, list[Any]]:
    """Train, validation and test prompts, each once and in random order; at least two of each.

    >>> {name: len(part) for name, part in split(range(10), 0.3, 0.3, 0).items()}
    {'validation': 3, 'test': 3, 'train': 4}
    """
    # the same prompt twice would be found with and tested on; their order given decides nothing
    distinct = sorted({repr(prompt): prompt for prompt in prompts}.items())
    prompts = [prompt for _, prompt in distinct]
    order = np.random.default_rng(seed).permutation(len(prompts))
    first = max(2, int(len(prompts) * validation))
    second = first + max(2, int(len(prompts) * test))
    places = {"validation": order[:first], "test": order[first:second], "train": order[second:]}
    if len(places["train"]) < 2:
        raise LayerprobeError(
            f"validation={validation} and test={test} leave {len(places['train'])} of {len(prompts)} prompts "
            "to find directions in; give smaller shares, or more prompts"
        )
    return {name: [prompts[i] for i in where] for name, where in places.items()}


def unedited_rows(
    model: Model, plain: Mapping[str, Tensor], tokens: Tensor, where: str
) -> list[dict[str, Any]]:
    """Log-odds of refusing either kind of prompt as the model is."""
    return [
        {
            "model": model.name,
            "metric": f"refusal_{name}",
            "estimate": float(log_odds(logits, tokens).mean()),
            "n": len(logits),
            "split": where,
            "note": "unedited",
        }
        for name, logits in plain.items()
    ]


def tested_rows(
    model: Model,
    vector: Tensor,
    layer: int,
    position: int,
    prompts: Mapping[str, Prompts],
    tokens: Tensor,
    size: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The chosen direction, and a random one as long, on prompts that neither found nor chose it."""
    plain = {name: last_logits(model, part, size) for name, part in prompts.items()}
    noise = torch.randn(vector.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    random = (noise / noise.norm()).to(vector) * vector.norm()
    rows = unedited_rows(model, plain, tokens, "test prompts")
    for prefix, direction in (("", vector), ("random_", random)):
        found = evaluate(model, direction, layer, prompts, plain["harmless"], tokens, size)
        rows += [
            {
                "model": model.name,
                "site": "resid_pre",
                "layer": layer,
                "position": position,
                "metric": f"{prefix}{metric}",
                "estimate": value,
                "n": len(prompts["harmful" if metric == "refusal_ablated" else "harmless"]),
                "split": "test prompts",
            }
            for metric, value in found.items()
        ]
    return rows
