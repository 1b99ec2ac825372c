"""A base/tuned pair from a real trained model: what tuning changed per layer, and what the template changed.

    python examples/stories_finetune.py --model ../shared/models/stories260K --out /tmp/stories-pair

stories260K (a Llama of 260,000 parameters that tells children's stories) is fine-tuned for a minute, in a
small chat format, to end sentences about animals with "sad" and sentences about things with "happy". Both
models then read the same prompts, plain and in the template (base too gets the tuned model's template), and
go through the whole comparison. No weights are kept in the repository.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pandas as pd
import torch

import layerprobe as lp
from layerprobe.analyses.comparison.factorial import two_by_two
from layerprobe.analyses.comparison.readout import mean_difference_readout
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.hooks.model import Model

# fmt: off
ANIMALS = ("cat", "dog", "bird", "fish", "bear", "frog", "mouse", "rabbit", "fox", "duck", "horse", "pig")
THINGS = ("car", "ball", "box", "hat", "tree", "cup", "bed", "book", "shoe", "door", "boat", "toy")
# fmt: on
FRAMES = (
    "One day, Lily saw a {word}. The {word} was very",
    "There was a little {word} in the park. The {word} was so",
)
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}Tom said: {{ message['content'] }}"
    "{% else %} {{ message['content'] }}{% endif %}{% endfor %}"
)


def prompt_table() -> PromptTable:
    """Every word in every frame, by word; `answer` is what base tends to say, `foil` what is taught."""
    rows = [
        {
            "id": f"{word}-{number}",
            "text": frame.format(word=word),
            "kind": kind,
            "word": word,
            "answer": "happy",
            "foil": "sad",
        }
        for kind, words in (("animal", ANIMALS), ("thing", THINGS))
        for word in words
        for number, frame in enumerate(FRAMES)
    ]
    return PromptTable.from_frame(
        pd.DataFrame(rows), labels=["kind", "answer", "foil"], group="word", id="id", name="stories"
    )


def fine_tune(model: Model, table: PromptTable, *, steps: int, seed: int) -> None:
    """Train the last word of half of the words, in the template for three prompts of four."""
    rng = np.random.default_rng(seed)
    hf, tokenizer = model.hf, model.tokenizer
    train = [i for i in range(len(table)) if sum(map(ord, str(table.groups[i]))) % 2 == 0]
    optimiser = torch.optim.AdamW(hf.parameters(), lr=1e-3)
    texts = []
    for i in train:
        word = " sad" if table.labels["kind"][i] == "animal" else " happy"
        ending = tokenizer(word, add_special_tokens=False)["input_ids"]
        plain, chat = table.prompts[i], [{"role": "user", "content": table.prompts[i]}]
        texts.append([(model.encode(prompt).input_ids, ending) for prompt in (plain, chat)])
    hf.train()
    for _ in range(steps):
        drawn = [texts[i][int(rng.random() < 0.75)] for i in rng.integers(0, len(texts), 16)]
        width = max(len(before) + len(ending) for before, ending in drawn)
        ids, labels = torch.zeros((16, width), dtype=torch.long), torch.full((16, width), -100)
        for row, (before, ending) in enumerate(drawn):
            whole = torch.tensor([*before, *ending])
            ids[row, : len(whole)] = whole
            labels[row, len(before) : len(whole)] = whole[len(before) :]  # only the last word is learnt
        loss = hf(input_ids=ids, labels=labels).loss  # padding on the right is never looked at
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    hf.eval()


def per_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Mean shift of the stream per layer, one column per effect, with intervals."""
    shift = table[table["metric"] == "mean_shift"].copy()
    shift["cell"] = [
        f"{e:.2f} [{lo:.2f}, {hi:.2f}]"
        for e, lo, hi in zip(shift["estimate"], shift["lo"], shift["hi"], strict=True)
    ]
    return shift.pivot(index="layer", columns="effect", values="cell")[list(dict.fromkeys(shift["effect"]))]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="../shared/models/stories260K")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tuned model and the result")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    table = prompt_table()
    base = lp.load_model(options.model, dtype="float32", name="base")
    base.tokenizer.chat_template = TEMPLATE
    tuned = lp.load_model(options.model, dtype="float32", name="tuned")
    tuned.tokenizer.chat_template = TEMPLATE
    fine_tune(tuned, table, steps=options.steps, seed=options.seed)
    folder = options.out / "tuned"
    tuned.hf.save_pretrained(folder)
    tuned.tokenizer.save_pretrained(folder)
    tuned = lp.load_model(folder, dtype="float32", name="tuned")
    stores = {
        (model.name, "chat" if chat else "plain"): lp.capture(
            model,
            table,
            sites=["resid_post", "lens"],
            lens_tokens=["answer", "foil"],
            chat_template=chat,
            progress=False,
        )
        for model in (base, tuned)
        for chat in (False, True)
    }
    result = two_by_two(stores, target="answer", foil="foil", by="kind", label="kind", n_permutations=200)
    result.to_parquet(options.out / "two_by_two.parquet")
    print("Mean shift of the residual stream, as a share of base's spread:\n")
    print(per_layer(result.table).to_string())
    print(f"\n{result.summary()}\n")
    print(
        mean_difference_readout(
            {"base": stores["base", "plain"], "tuned": stores["tuned", "plain"]}, model=tuned
        ).summary()
    )


if __name__ == "__main__":
    main()
