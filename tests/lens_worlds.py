"""Lens tables with a known answer: curves of LD chosen by hand, plus noise that groups share."""

from functools import cache

import numpy as np

from layerprobe.cache.store.lens_table import LensTable
from layerprobe.cache.store.memory import from_arrays

FLAT = [0.0, 1.0, 4.0, 6.0, 6.0, 6.0, 6.0, 6.0]
OVERRIDDEN = [0.0, 1.0, 4.0, 6.0, 6.0, -3.0, -6.0, -7.0]
EARLY = [0.0, 1.0, 5.0, -4.0, -5.0, -6.0, -6.0, -6.0]


def lens_table(difference, *, kl=0.1):
    """A lens of two columns whose LD is the given [layers, rows]."""
    layers, rows = difference.shape
    logits = np.full((layers, rows, 2, 2), np.nan, dtype=np.float32)
    logits[..., 0, 0], logits[..., 1, 0] = difference / 2, -difference / 2
    ids = np.full((rows, 2, 2), -1)
    ids[:, 0, 0], ids[:, 1, 0] = 1, 2
    ranks = np.full(logits.shape, -1, dtype=np.int32)
    ranks[..., 0, 0], ranks[..., 1, 0] = difference < 0, difference >= 0
    total = np.log(np.exp(difference / 2) + np.exp(-difference / 2) + 1).astype(np.float32)
    top = np.zeros((layers, rows, 1))
    return LensTable(
        layers=tuple(range(layers)),
        columns=("answer", "foil"),
        candidate_ids=ids,
        candidate_logits=logits,
        candidate_ranks=ranks,
        logsumexp=total,
        top_ids=top.astype(np.int32),
        top_logits=top.astype(np.float32),
        kl_to_final=np.full((layers, rows), kl, dtype=np.float32),
    )


def world(
    sensitive=OVERRIDDEN,
    benign=FLAT,
    *,
    n_groups=40,
    per_group=2,
    noise=1.0,
    seed=0,
    name="instruct",
    resid=None,
):
    """A store of sensitive and benign rows in every group; noise is shared in a group, drawn per layer."""
    rng = np.random.default_rng(seed)
    n = n_groups * per_group * 2
    group = np.repeat(np.arange(n_groups), per_group * 2)
    kind = np.tile(["sensitive"] * per_group + ["benign"] * per_group, n_groups)
    curves = np.where(kind == "sensitive", np.array(sensitive)[:, None], np.array(benign)[:, None])
    layers = len(sensitive)
    shared = rng.normal(size=(layers, n_groups))[:, group]
    difference = curves + noise * (shared + rng.normal(size=(layers, n)))
    return from_arrays(
        {"resid_post": np.zeros((layers, n, 2), np.float32) if resid is None else resid},
        labels={"sensitive": kind},
        groups=group,
        lens=lens_table(difference),
        model_name=name,
    )


@cache
def tiny(name, seed=0):
    """A random-weight model with the word-level tokenizer, whatever the architecture's own class does."""
    from tiny_models import build, tiny_tokenizer

    from layerprobe.hooks.weights.load import load_model

    return load_model(build(name, seed=seed), tokenizer=tiny_tokenizer(), check=False, name=name)


TINY_PROMPTS = (
    "the baker was late . who was late ?",
    "the pilot was happy and the baker was sad . who was sad ?",
    "the cat was in the park . question : was it red ? answer :",
    "he said the house was old . yes or no ?",
)


@cache
def tiny_store(model, *, sites=("resid_post", "lens"), **options):
    """A few prompts with answers, captured in memory from a tiny model."""
    import pandas as pd

    from layerprobe.cache.capture.run import capture
    from layerprobe.cache.prompts.table import PromptTable

    rows = [
        {
            "id": f"{i}-{answer}",
            "text": text,
            "answer": answer,
            "foil": foil,
            "group": i,
            "pair": i,
            "role": role,
            "sensitive": "ab"[i % 2],
        }
        for i, text in enumerate(TINY_PROMPTS)
        for answer, foil, role in (("yes", "no", "target"), ("baker", "unknown", "contrast"))
    ]
    table = PromptTable.from_frame(
        pd.DataFrame(rows),
        labels=["answer", "foil", "role", "sensitive"],
        group="group",
        pair="pair",
        id="id",
    )
    return capture(model, table, sites=list(sites), lens_tokens=["answer", "foil"], progress=False, **options)
