"""Reading a lens now from the `resid_post` of a store: with a loaded model, or with any trained lens."""

from typing import Any

import numpy as np
import torch

from ...cache.prompts.candidates import CandidateTokens, candidate_array, check_candidates
from ...cache.store.activations import ActivationStore
from ...cache.store.lens_table import LensTable
from ...hooks.errors import LayerprobeError

ROWS_AT_ONCE = 256


def lens_from_model(
    store: ActivationStore, model: Any, target: str, foil: str, *, lens: Any = None
) -> LensTable:
    """A `LensTable` of two columns from the store's `resid_post`.

    Args:
        store: with `resid_post` at every layer and, for answers by label column, that column.
        model: whose final norm and unembedding read it (and whose tokenizer names the answers).
        target: label column of the answer, or a literal answer.
        foil: likewise.
        lens: what reads it; the model's logit lens by default, or a tuned lens.

    Raises:
        LayerprobeError: no `resid_post` up to the last layer, another model's store, or answers without a
            token.
    """
    if "resid_post" not in store.sites:
        raise LayerprobeError(
            "this store holds no resid_post, so no lens can be read from it; capture with "
            'sites=["resid_post"], or with sites=["lens"] and lens_tokens='
        )
    check_same_model(store, model)
    layers = store.layers("resid_post")
    if layers[-1] != model.n_layers - 1:
        raise LayerprobeError(
            f"the store has resid_post up to layer {layers[-1]} and {model.name} has "
            f"{model.n_layers}; capture the last layer too, it is what the others are compared with"
        )
    reader = model.lens if lens is None else lens
    ids = candidate_ids(store, model, target, foil)
    flat = torch.as_tensor(ids.reshape(len(ids), -1)).long()
    parts: dict[str, list[np.ndarray]] = {
        name: []
        for name in (
            "candidate_logits",
            "candidate_ranks",
            "logsumexp",
            "top_ids",
            "top_logits",
            "kl_to_final",
        )
    }
    for layer in layers:
        found: dict[str, list[np.ndarray]] = {name: [] for name in parts}
        for start in range(0, store.n_rows, ROWS_AT_ONCE):
            rows = slice(start, min(start + ROWS_AT_ONCE, store.n_rows))
            resid = torch.as_tensor(
                np.array(store.activations("resid_post", layer, rows=rows), dtype=np.float32)
            )
            last = torch.as_tensor(
                np.array(store.activations("resid_post", layers[-1], rows=rows), dtype=np.float32)
            )
            final = torch.log_softmax(model.lens.unembed(last).float(), dim=-1)
            which = model.lens if layer == layers[-1] else reader
            out = which.read(resid, layer=layer, candidate_ids=flat[rows], final_log_probs=final)
            for name in parts:
                found[name].append(getattr(out, name).cpu().numpy())
        for name in parts:
            parts[name].append(np.concatenate(found[name]))
    shape = (len(layers), store.n_rows, 2, ids.shape[-1])
    arrays = {name: np.stack(values) for name, values in parts.items()}
    arrays["candidate_logits"] = arrays["candidate_logits"].reshape(shape)
    arrays["candidate_ranks"] = arrays["candidate_ranks"].reshape(shape)
    return LensTable(layers=tuple(layers), columns=(target, foil), candidate_ids=ids, **arrays)


def check_same_model(store: ActivationStore, model: Any) -> None:
    """Refuse to read a store with another model's unembedding, where the store says which weights made it.

    Raises:
        LayerprobeError: weights differ, or widths do.
    """
    known = store.identity.get("model.weights_sha256", store.identity.get("weights_sha256"))
    if known is not None and known != model.identity.as_dict().get("weights_sha256"):
        raise LayerprobeError(
            f"this store was captured from other weights than those of {model.name} "
            f"({str(known)[:12]}…); pass the model that it was captured from ({store.model_name})"
        )
    if "resid_post" in store.sites and store.shape("resid_post")[-1] != model.d_model:
        raise LayerprobeError(
            f"resid_post has width {store.shape('resid_post')[-1]}, {model.name} has {model.d_model}; "
            "pass the model that the store was captured from"
        )


def candidate_ids(store: ActivationStore, model: Any, target: str, foil: str) -> np.ndarray:
    """[rows, 2, variants] token ids of answer and foil for every row, -1 where there are fewer variants.

    The strings come from the label columns of those names, or are taken literally.
    """
    texts = store.texts or [""] * store.n_prompts
    words = []
    for name in (target, foil):
        words.append(
            np.asarray(store.labels(name)).astype(str)
            if name in store.label_names
            else np.full(store.n_rows, name)
        )
    finder = CandidateTokens(model.tokenizer)
    answers = list(zip(*words, strict=True))
    found = [
        [finder.first_tokens(texts[example], word) for word in pair]
        for example, pair in zip(np.asarray(store.examples), answers, strict=True)
    ]
    found = check_candidates(found, answers, (target, foil), [str(name) for name in store.ids])
    return candidate_array(found)
