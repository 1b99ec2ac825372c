"""`refusal_direction` as studies and the command line call it: on the prompts of a store, by their label."""

import numpy as np

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ...hooks.model import Model
from ..result.analysis import AnalysisResult
from ..result.options import Label, Positive, Share, Value


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
    from .refusal import refusal_direction

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
