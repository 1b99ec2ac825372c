"""What tuning wrote into activations on unrelated text, read as tokens (Minder et al. 2025, 2510.13900)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..reading.pairing import pair_stores
from ..result.analysis import AnalysisResult, tidy
from ..result.options import Count, ModelName
from ..result.registry import analysis
from ..statistics.resampling import STORED, resolve_groups
from .geometry import codes, halves
from .readout_view import draw, found

if TYPE_CHECKING:
    from ...hooks.model import Model


@analysis(
    command="readout",
    title="What did tuning write into activations?",
    group="compare",
    guide="base_vs_instruct",
    on="stores",
    least=2,
    findings=found,
    picture=draw,
    frames={"tokens": "Tokens that the mean difference points to, by layer"},
    aliases=("comparison_readout",),
)
def mean_difference_readout(
    stores: Mapping[Any, ActivationStore],
    *,
    model: "Model",
    reference: ModelName | None = None,
    site: str = "resid_post",
    top_k: Count = 10,
    groups: Any = STORED,
    seed: int = 0,
) -> AnalysisResult:
    """Tokens that the mean activation difference between two models points to, per layer.

    Args:
        stores: model name -> store of the same, preferably unrelated, prompts.
        model: the tuned model, whose final norm and unembedding read the difference.
        reference: key of the model subtracted (default: the first).
        site: a site as wide as the residual stream.
        top_k: tokens shown per layer.
        groups: rows that belong together, for the split-half agreement; default: the stores' groups where
            they have some; None: each prompt its own.
        seed: of the halves.

    Returns:
        kind `mean_difference_readout`. Metric `split_half_cosine` per layer says whether there is a mean
        difference to read at all (around 0: only noise). Frame `tokens`: the top tokens of each layer with
        their logits.

    Raises:
        LayerprobeError: stores that do not match, or a site of another width.

    Source: Minder et al. 2025 (2510.13900).

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["base"], dtype="float32", check=False)
    >>> x = np.random.default_rng(0).normal(size=(1, 20, model.d_model))
    >>> word = model.tokenizer.convert_tokens_to_ids("unknown")
    >>> moved = x + 9 * model.lens.head.unembed.weight[word].detach().numpy()
    >>> stores = {name: lp.from_arrays({"resid_post": v}) for name, v in (("base", x), ("it", moved))}
    >>> result = mean_difference_readout(stores, model=model)
    >>> result.frames["tokens"]["token"].iloc[0]
    'unknown'
    """
    paired = pair_stores(stores, reference)
    store = paired.stores[paired.reference]
    if groups is STORED and store.groups is None:
        groups = None
    of_group = codes(resolve_groups(store, groups)[paired.order[paired.reference]])
    half = halves(of_group, seed)
    rows, tokens = [], []
    for name in paired.stores:
        if name == paired.reference:
            continue
        for layer in paired.shared_layers(site):
            difference = paired.activations(name, site, layer) - paired.activations(
                paired.reference, site, layer
            )
            if difference.shape[1] != model.d_model:
                raise LayerprobeError(
                    f"{site} has width {difference.shape[1]} and the stream of {model.name} "
                    f"{model.d_model}; use resid_post"
                )
            one, two, mean = (
                difference[half].mean(axis=0),
                difference[~half].mean(axis=0),
                difference.mean(axis=0),
            )
            scale = np.linalg.norm(one) * np.linalg.norm(two)
            rows.append(
                {
                    "model": name,
                    "reference": paired.reference,
                    "dataset": store.dataset_name,
                    "site": site,
                    "layer": layer,
                    "metric": "split_half_cosine",
                    "estimate": float(one @ two / scale) if scale > 0 else float("nan"),
                    "n": len(difference),
                    "n_groups": int(of_group.max()) + 1,
                    "seed": seed,
                    "note": "cosine of the mean differences of two halves of the prompts"
                    if scale > 0
                    else "the models do not differ here",
                }
            )
            logits = model.lens.unembed(torch.as_tensor(mean[None], dtype=torch.float32))[0].float()
            top = logits.topk(min(top_k, len(logits)))
            tokens += (
                [
                    {
                        "model": name,
                        "layer": layer,
                        "rank": rank,
                        "token": model.tokenizer.convert_ids_to_tokens(int(index)),
                        "logit": float(value),
                    }
                    for rank, (index, value) in enumerate(zip(top.indices, top.values, strict=True))
                ]
                if scale > 0
                else []
            )
    return AnalysisResult(
        kind="mean_difference_readout",
        table=tidy(rows),
        frames={"tokens": pd.DataFrame(tokens)},
        provenance={"site": site, "reference": paired.reference, "seed": seed},
    )
