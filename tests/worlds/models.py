"""Worlds that need a model: random weights with answers exchanged by chance, and parts planted in weights."""

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from lens_worlds import tiny
from worlds.world import Draw, World

import layerprobe as lp
from layerprobe.cache.capture.run import capture
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.hooks.weights.load import load_model

NOUNS = ("cat", "dog", "baker", "pilot", "house", "park")
MOODS = ("happy", "sad", "late", "early", "red", "blue", "old", "young")
WRITES_NO = (1, 2)
"""Layer and head that write "no" in the planted model."""
REFUSED = ("cat", "dog", "red", "sad")
ALLOWED = ("house", "park", "blue", "happy")


PAIRS = [
    (noun, mood, other) for noun in NOUNS for mood, other in zip(MOODS, (*MOODS[1:], MOODS[0]), strict=True)
]


@cache
def prompts() -> PromptTable:
    """Every pair of prompts that differ in one word, with "yes" for the answer and again with "no"."""
    made = [
        {
            "id": f"{pair}-{role}-{answer}",
            "group": f"{pair}-{answer}",
            "pair": f"{pair}-{answer}",
            "role": role,
        }
        | {
            "text": f"the {noun} was {word} . was the {noun} {mood} ? answer :",
            "answer": answer,
            "foil": foil,
        }
        for pair, (noun, mood, other) in enumerate(PAIRS)
        for answer, foil in (("yes", "no"), ("no", "yes"))
        for role, word in (("target", mood), ("contrast", other))
    ]
    labels = ["answer", "foil", "role"]
    return PromptTable.from_frame(pd.DataFrame(made), labels=labels, group="group", pair="pair", id="id")


@cache
def captured(model: Any) -> Any:
    """A store in memory of the stream and the lens, of all prompts."""
    lens = {"lens_tokens": ["answer", "foil"], "progress": False}
    return capture(model, prompts(), sites=["resid_post", "lens"], **lens)


def drawn(model: Any, seed: int, *, swapped: bool) -> Any:
    """Sixteen pairs; which word is the answer is a coin for each pair where they are swapped."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(PAIRS), 16, replace=False)
    other = rng.random(16) < 0.5 if swapped else np.zeros(16, dtype=bool)
    first = 4 * chosen + 2 * other
    return captured(model).select(np.sort(np.concatenate([first, first + 1])))


def random_weights(seed: int) -> Draw:
    """Random weights; which of two words is the answer is a coin for each pair."""
    model, base = tiny("gpt2", seed=seed % 3), tiny("gpt2", seed=3)
    texts = [f"the {a} was {b} ." for a in NOUNS for b in MOODS]
    order = np.random.default_rng([seed, 6]).permutation(len(texts))
    split = {"harmful": [texts[i] for i in order[:8]], "harmless": [texts[i] for i in order[8:16]]}
    stores = {name: drawn(one, seed, swapped=True) for name, one in (("base", base), ("instruct", model))}
    return Draw(stores, model=model, more={"source": base, **split})


@cache
def changed() -> tuple[Any, Any]:
    """A base model, and the same with one head that writes "no" and against "yes" whatever it reads."""
    from tiny_models import build, tiny_tokenizer

    base, hf, tokenizer = tiny("gpt2"), build("gpt2"), tiny_tokenizer()
    width, d_head = hf.config.n_embd, hf.config.n_embd // hf.config.n_head
    layer, head = WRITES_NO
    unembed = hf.lm_head.weight.detach()
    against = unembed[tokenizer.convert_tokens_to_ids("no")] - unembed[tokenizer.convert_tokens_to_ids("yes")]
    attention, mine = hf.transformer.h[layer].attn, slice(head * d_head, (head + 1) * d_head)
    with torch.no_grad():
        attention.c_attn.bias[2 * width :][mine] = 5.0  # a value that every token carries
        attention.c_proj.weight[mine] = against
    return base, load_model(hf, tokenizer=tokenizer, check=False, name="instruct")


def a_head(seed: int) -> Draw:
    """The model whose head writes "no", beside the one without it."""
    base, model = changed()
    stores = {name: drawn(one, seed, swapped=False) for name, one in (("base", base), ("instruct", model))}
    return Draw(stores, model=model, more={"source": base})


@cache
def refusing() -> tuple[Any, Any]:
    """A model in which four words bring in a direction that "no" is read from, and the direction."""
    from tiny_models import build, tiny_tokenizer

    hf, tokenizer = build("llama"), tiny_tokenizer()
    planted = torch.randn(hf.config.hidden_size, generator=torch.Generator().manual_seed(1))
    planted /= planted.norm()
    refused, allowed = (tokenizer.convert_tokens_to_ids(list(part)) for part in (REFUSED, ALLOWED))
    with torch.no_grad():
        embedding = hf.model.embed_tokens.weight
        embedding -= (embedding @ planted)[:, None] * planted
        embedding[allowed] = 0.9 * embedding[allowed].mean(0) + 0.1 * embedding[allowed]
        embedding[refused] = embedding[allowed] + 4 * embedding.std() * planted
        for block in hf.model.layers:  # so that the stream carries the words nearly as they came in
            block.self_attn.o_proj.weight *= 0.05
            block.mlp.down_proj.weight *= 0.05
        hf.lm_head.weight[tokenizer.convert_tokens_to_ids("no")] += 4 * planted / hf.model.norm.weight
    return load_model(hf, tokenizer=tokenizer, check=False, name="planted"), planted.numpy()


def refusal(seed: int) -> Draw:
    """Prompts that end in words that are refused, and others; `instruct` has "no" added at layer 2."""
    model, direction = refusing()
    starts = ("the baker was", "he said the", "it was", "the pilot was late and the baker was")
    split = {
        name: [f"{start} {word}" for word in part for start in starts]
        for name, part in (("harmful", REFUSED), ("harmless", ALLOWED))
    }
    base = drawn(model, seed, swapped=False)
    x = np.array(base.activations("resid_post"))
    x[2] += 3 * model.lens.head.unembed.weight[model.tokenizer.convert_tokens_to_ids("no")].detach().numpy()
    other = lp.from_arrays({"resid_post": x}, ids=base.ids, model_name="instruct")
    return Draw({"base": base, "instruct": other}, model=model, more={**split, "direction": direction})


NULL = [World("random weights, answers exchanged", "model", random_weights)]
PLANTED = [
    World("a head writes the foil", "model", a_head),
    World("a direction of refusal", "model", refusal),
]
