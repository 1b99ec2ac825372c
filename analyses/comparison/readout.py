"""What tuning wrote into activations on unrelated text, read as tokens (Minder et al. 2025, 2510.13900)."""

from typing import Any

import numpy as np
import torch

from ...hooks.errors import LayerprobeError
from ..reading.pairing import pair_stores
from ..result.analysis import AnalysisResult, tidy
from ..result.registry import analysis
from .geometry import codes, halves


@analysis(
    command="readout",
    title="What did tuning write into activations?",
    group="compare",
    guide="base_vs_instruct",
    on="stores",
    least=2,
    aliases=("comparison_readout",),
)
def mean_difference_readout(
    stores: dict[Any, Any],
    *,
    model: Any,
    reference: Any = None,
    site: str = "resid_post",
    top_k: int = 10,
    groups: Any = None,
    seed: int = 0,
) -> AnalysisResult:
    """Tokens that the mean activation difference between two models points to, per layer.

    Args:
        stores: model name -> store of the same, preferably unrelated, prompts.
        model: the tuned model, whose final norm and unembedding read the difference.
        reference: key of the model subtracted; the first by default.
        site: a site of the stream's width.
        top_k: tokens shown per layer.
        groups: rows that belong together, for the split-half agreement; None: each prompt its own.
        seed: of the halves.

    Returns:
        kind `mean_difference_readout`. Metric `split_half_cosine` per layer says whether there is a mean
        difference to read at all (around 0: only noise). Frame `tokens`: the top tokens of each layer with
        their logits.

    Raises:
        LayerprobeError: stores that do not match, or a site of another width.
    """
    from ..statistics.resampling import resolve_groups

    paired = pair_stores(stores, reference)
    store = paired.stores[paired.reference]
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
    import pandas as pd

    return AnalysisResult(
        kind="comparison_readout",
        table=tidy(rows),
        frames={"tokens": pd.DataFrame(tokens)},
        provenance={"site": site, "reference": paired.reference, "seed": seed},
    )


def summarise(result: AnalysisResult) -> list[str]:
    """Per model: the layer with the most reproducible difference, and its tokens."""
    sentences = []
    for model, part in result.table.groupby("model", sort=False):
        if part["estimate"].isna().all():
            sentences.append(
                f"{model} and {part['reference'].iloc[0]} do not differ on these {part['n'].iloc[0]} prompts."
            )
            continue
        best = part.iloc[int(np.nanargmax(part["estimate"].to_numpy(dtype=float)))]
        shown = result.frames["tokens"].query("model == @model and layer == @best.layer").head(5)["token"]
        sentences.append(
            f"{model} minus {best['reference']} on {best['n']} prompts: the mean difference is most "
            f"reproducible at {best['site']}[{best['layer']}] "
            f"(split-half cosine {best['estimate']:.2f}) and reads as {', '.join(map(repr, shown))}."
        )
    return sentences


def draw(result: AnalysisResult) -> Any:
    """Split-half cosine of the mean difference per layer."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for model, part in result.table.groupby("model", sort=False):
        figure.add_scatter(x=part["layer"], y=part["estimate"], name=str(model), mode="lines+markers")
    figure.update_layout(
        template="plotly_white", xaxis_title="layer", yaxis_title="split-half cosine of the mean difference"
    )
    return figure
