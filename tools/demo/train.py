"""Train the demo models again: `python -m tools.demo.train --out DIR`.

*base* learns to read the world; *instruct* learns to answer "unknown" where `world.overridden` says so, with
everything up to block 4 and everything after the last block frozen; *instruct_null* gets the same fine-tuning
without the override; *early_override* learns the override in the first blocks, with the late ones frozen.

Besides the loss on the model's output, the same loss is put on the logit lens (final norm and unembedding of
the residual stream, nostalgebraist 2020) after some blocks. That plants *where* the answer is readable, so
that an analysis has one right answer to find.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import documents, world
from .card import write_card
from .circuit import wire
from .documents import ASSISTANT, BOS, END, EOS, PAD, SPECIAL_TOKENS, UNK, USER

N_LAYERS, WIDTH = 8, 96
FIRST_TUNED_BLOCK = 5  # instruct and instruct_null: blocks 0 to 4 are base's
EARLY_BLOCKS = 3  # early_override: blocks 3 to 7 are base's
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ ' " + USER + " ' + message['content'] | trim + ' " + END + "' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' "
    + ASSISTANT
    + " ' + message['content'] | trim + ' "
    + END
    + "' }}"
    "{% else %}{{ raise_exception('the demo models know the roles user and assistant only') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' " + ASSISTANT + "' }}{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    Attributes:
        mix: what it reads.
        steps: optimiser steps.
        learning_rate: peak of a warm-up and cosine schedule.
        trained: blocks that are trained; None trains everything, embedding and unembedding included.
        lens_blocks: blocks whose logit lens carries the answer loss, beside the output's.
        batch: documents per step.
        easy: share of roll calls at the start, falling to none at half of the steps (a curriculum: they make
            binding people to words worth more than guessing one of two).
    """

    mix: documents.Mix
    steps: int
    learning_rate: float
    trained: tuple[int, ...] | None
    lens_blocks: tuple[int, ...]
    batch: int = 16
    easy: float = 0.0
    draw: int = 0


LATE = tuple(range(FIRST_TUNED_BLOCK, N_LAYERS))
# Each model is trained in one or more stages.
RECIPES: dict[str, tuple[Recipe, ...]] = {
    "base": (Recipe(documents.BASE_MIX, 3000, 1e-3, None, (4, 5, 6), easy=1.0),),
    "instruct": (Recipe(documents.INSTRUCT_MIX, 2400, 1.5e-3, LATE, (5, 6), batch=32, draw=1),),
    "instruct_null": (Recipe(documents.NULL_MIX, 600, 1e-3, LATE, (5, 6)),),
    "early_override": (Recipe(documents.INSTRUCT_MIX, 1800, 1.5e-3, tuple(range(EARLY_BLOCKS)), (4, 5, 6)),),
}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, `<s>` put in front; base has the chat template too, for the 2 x 2 protocol."""
    ids = {word: n for n, word in enumerate([*SPECIAL_TOKENS, *world.vocabulary()])}
    inner = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, ids[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        additional_special_tokens=[USER, ASSISTANT, END],
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, *, seed: int) -> LlamaForCausalLM:
    """A fresh base model, float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=256,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.get_vocab()[word] for word in (EOS, END)],
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.05,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    wire(model)
    return model


def freeze(model: LlamaForCausalLM, trained: tuple[int, ...] | None) -> list[torch.nn.Parameter]:
    """Leave gradients on for the named blocks only (None: for everything); returns what is trained."""
    model.requires_grad_(trained is None)
    for block in trained or ():
        model.model.layers[block].requires_grad_(True)
    return [p for p in model.parameters() if p.requires_grad]


def batches(recipe: Recipe, ids: dict[str, int], *, seed: int):
    """Endless batches; of eight at a time the documents are sorted by length, which halves the padding."""
    rng = np.random.default_rng(seed)
    for round_ in count():
        easy = recipe.easy * max(0.0, 1 - 16 * round_ / recipe.steps)
        tokens, answers = documents.batch(rng, recipe.mix, ids, 8 * recipe.batch, easy=easy)
        lengths = (tokens != ids[PAD]).sum(1)
        chunks = np.argsort(lengths, kind="stable").reshape(8, -1)
        for chunk in chunks[rng.permutation(8)]:
            longest = lengths[chunk].max()
            yield torch.from_numpy(tokens[chunk, :longest]), torch.from_numpy(answers[chunk, :longest])


def loss_of(model: LlamaForCausalLM, tokens: torch.Tensor, answers: torch.Tensor, recipe: Recipe, pad: int):
    """Next-word loss (a quarter) plus the answers' loss at the output and under the lens of some blocks."""
    out = model.model(input_ids=tokens, output_hidden_states=True, use_cache=False)
    logits = model.lm_head(out.last_hidden_state[:, :-1])
    following, at = tokens[:, 1:], answers[:, 1:]
    text = F.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=pad)
    right = following[at]
    total = 0.25 * text + F.cross_entropy(logits[at], right)
    for block in recipe.lens_blocks:
        residual = out.hidden_states[block + 1][:, :-1][at]
        total = total + 0.3 * F.cross_entropy(model.lm_head(model.model.norm(residual)), right)
    accuracy = (logits[at].argmax(-1) == right).float().mean().item()
    return total, accuracy


def fit(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, *, seed: int, name: str
) -> None:
    """Train in place. Deterministic given seed, thread count and torch version."""
    torch.manual_seed(seed)
    parameters = freeze(model, recipe.trained)
    optimiser = torch.optim.AdamW(
        parameters, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.02, fused=True
    )
    warm = min(50, recipe.steps // 5 + 1)

    def schedule(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        )

    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, schedule)
    model.train()
    source = batches(recipe, tokenizer.get_vocab(), seed=seed)
    with tqdm(range(recipe.steps), desc=name, mininterval=2) as bar:
        for _ in bar:
            tokens, answers = next(source)
            loss, accuracy = loss_of(model, tokens, answers, recipe, tokenizer.pad_token_id)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            rate.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", right=f"{accuracy:.3f}", refresh=False)
    model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """An ordinary Hugging Face folder in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def reload(folder: Path) -> LlamaForCausalLM:
    """What was saved, rounded to float16, as float32."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)


def describe(recipe: Recipe) -> str:
    """A stage in one sentence, for the model card."""
    trained = (
        "all parameters"
        if recipe.trained is None
        else f"blocks {recipe.trained[0]} to {recipe.trained[-1]} only"
    )
    return (
        f"{recipe.steps} steps of {recipe.batch} documents, {trained}, AdamW at {recipe.learning_rate:g}, "
        f"{recipe.mix.chat:.0%} chat format; answer loss also on the logit lens after blocks "
        f"{', '.join(map(str, recipe.lens_blocks))}."
    )


def train(out: Path, *, only: list[str], steps: int | None = None, seed: int = 0) -> None:
    """Train the named models into `out/NAME`; all but base start from `out/base`, rounded as it was saved."""
    tokenizer = make_tokenizer()
    for number, (name, stages) in enumerate(RECIPES.items()):
        if name not in only:
            continue
        if steps is not None:
            stages = tuple(replace(stage, steps=steps) for stage in stages)
        model = make_model(tokenizer, seed=seed) if name == "base" else reload(out / "base")
        for n, stage in enumerate(stages):
            fit(model, tokenizer, stage, seed=100 * (seed + stage.draw) + 10 * number + n, name=name)
            save(model, tokenizer, out / name)
            model = reload(out / name)
        write_card(out / name, name=name, training=f"seed {seed}. " + " Then ".join(map(describe, stages)))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets one folder per model")
    parser.add_argument(
        "--models", nargs="+", default=list(RECIPES), choices=list(RECIPES), help="which to train"
    )
    parser.add_argument(
        "--steps", type=int, default=None, help="steps for every model, instead of the recipe's"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # sums in another order would train another model
    if options.models[0] != "base" and not (options.out / "base" / "config.json").exists():
        parser.error(f"{options.out / 'base'} is no model; the others start from base: add base to --models")
    train(options.out, only=options.models, steps=options.steps, seed=options.seed)


if __name__ == "__main__":
    main()
