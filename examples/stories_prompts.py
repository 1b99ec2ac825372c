"""Prompts for `stories_study.toml`: does a small story model tell living things from tools?

usage: stories_prompts.py THINGS_CATEGORIES.tsv PROMPTS.jsonl

Takes the word list of the THINGS categories (Hebart et al. 2019; animals against tools, vehicles, furniture
and the like) and puts each word into two sentences. The word is the group: its sentences never straddle a
split.
"""

import csv
import json
import random
import sys
from pathlib import Path

ALIVE = ("animal", "bird", "insect", "mammal", "sea animal")
NOT_ALIVE = (
    "tool",
    "vehicle",
    "furniture",
    "kitchen tool",
    "musical instrument",
    "electronic device",
    "container",
)
SENTENCES = ("One day, Tom saw a {word}", "Lily had a dream about the {word}")


def words(path: Path, columns: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    """Words marked in one of these columns and in none of the others."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return sorted(
        row["Word"].replace("_", " ")
        for row in rows
        if any(row[c] == "1" for c in columns) and not any(row[c] == "1" for c in others)
    )


def main(source: str, target: str) -> None:
    """Write as many living as not living words, drawn with a fixed seed."""
    draw = random.Random(0)
    alive = words(Path(source), ALIVE, NOT_ALIVE)
    things = words(Path(source), NOT_ALIVE, ALIVE)
    size = min(len(alive), len(things), 120)
    chosen = [(w, "alive") for w in draw.sample(alive, size)] + [
        (w, "thing") for w in draw.sample(things, size)
    ]
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    with open(target, "w", encoding="utf-8") as file:
        for word, kind in chosen:
            for number, sentence in enumerate(SENTENCES):
                row = {
                    "id": f"{word}-{number}",
                    "prompt": sentence.format(word=word),
                    "kind": kind,
                    "word": word,
                }
                file.write(json.dumps(row) + "\n")
    print(f"{target}: {len(chosen) * len(SENTENCES)} prompts, {len(chosen)} words")


if __name__ == "__main__":
    main(*sys.argv[1:3])
