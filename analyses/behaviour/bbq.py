"""BBQ-style JSONL into contrastive pairs: the mirrored twin of every context about a stereotyped person."""

import argparse
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...hooks.errors import LayerprobeError
from .contrastive import LEFT_OUT, ContrastivePairs, show

TEMPLATE = "{priming}{context}\n{question} Is it {person}?\nAnswer yes or no:"
COLUMNS = (
    "id",
    "prompt",
    "answer",
    "foil",
    "pair",
    "role",
    "item",
    "group",
    "category",
    "polarity",
    "person",
    "other",
)


@dataclass(frozen=True)
class _Item:
    """A disambiguated BBQ row: who the evidence names, and who else is there."""

    row: Mapping[str, Any]
    name: str
    other_name: str
    person: str
    other: str
    stereotyped: bool

    @property
    def question(self) -> tuple[str, str]:
        return str(self.row["question_index"]), self.row["question"]


def bbq_pairs(
    files: str | Path | Sequence[str | Path],
    *,
    reversed_items: bool = True,
    articles: bool = False,
    priming: str | None = None,
    prime: str = "none",
    template: str = TEMPLATE,
    answers: tuple[str, str] = ("yes", "no"),
) -> ContrastivePairs:
    """Contrastive yes/no pairs from BBQ-style JSONL.

    Args:
        files: JSONL with context, question, answer options, groups, polarity and condition.
        reversed_items: add, for every pair, the pair that asks about the other person; its answer is no.
        articles: also pair twins that differ in "a" and "an" besides the exchanged names.
        priming: a sentence put before the context.
        prime: which prompts get it: `both`, `target`, `contrast` or `none`.
        template: with {priming}, {context}, {question} and {person}.
        answers: the words for yes and no.

    Raises:
        LayerprobeError: a file that is not BBQ-style, an unknown `prime`, or priming without a place.

    >>> import json, tempfile
    >>> def row(number, right, wrong):
    ...     return {
    ...         "example_id": number, "question_index": "1", "question_polarity": "neg",
    ...         "context_condition": "disambig", "category": "Religion", "label": 0,
    ...         "answer_info": {"ans0": [right] * 2, "ans1": [wrong] * 2, "ans2": ["Unknown", "unknown"]},
    ...         "additional_metadata": {"stereotyped_groups": ["Muslim"]}, "question": "Who left?",
    ...         "context": f"A {right} man met a {wrong} man. The {right} man left.",
    ...         "ans0": f"The {right} man", "ans1": f"The {wrong} man", "ans2": "Unknown",
    ...     }
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     for mirrored in (row(0, "Muslim", "Hindu"), row(1, "Hindu", "Muslim")):
    ...         print(json.dumps(mirrored), file=file, flush=True)
    ...     pairs = bbq_pairs(file.name, reversed_items=False)
    >>> sorted(pairs.table["role"])
    ['contrast', 'target']
    """
    if prime not in ("both", "target", "contrast", "none"):
        raise LayerprobeError(f"prime={prime!r}, expected 'both', 'target', 'contrast' or 'none'")
    if (priming is None) != (prime == "none"):
        raise LayerprobeError(
            f"priming={priming!r} with prime={prime!r}: give a sentence and say which prompts get it"
        )
    rows: list[dict[str, Any]] = []
    counts, left_out = [], []
    for path in [files] if isinstance(files, str | Path) else files:
        items = _read(Path(path))
        targets = [item for item in items if item.stereotyped]
        twins = _twins([item for item in items if not item.stereotyped], articles)
        made = 0
        for target in targets:
            twin = twins.get((*target.question, _form(_mirror(target), articles)))
            if twin is None:
                left_out.append(_unpaired(target, Path(path).stem))
                continue
            made += 1
            for reverse in (False, True) if reversed_items else (False,):
                rows += _prompts(target, twin, reverse, priming, prime, template, answers)
        counts.append(
            {
                "category": Path(path).stem,
                "candidates": len(targets),
                "pairs": made,
                "left_out": len(targets) - made,
            }
        )
    return ContrastivePairs(
        pd.DataFrame(rows, columns=list(COLUMNS)),
        pd.DataFrame(counts),
        pd.DataFrame(left_out, columns=LEFT_OUT),
    )


def _read(path: Path) -> list[_Item]:
    if not path.is_file():
        raise LayerprobeError(f"no file {path}; give a BBQ-style JSONL file")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            item = _item(row) if row["context_condition"] == "disambig" else None
        except (KeyError, ValueError, StopIteration, TypeError) as error:
            raise LayerprobeError(
                f"{path.name}, line {number} is not BBQ-style ({type(error).__name__}: {error}); expected "
                "context, question, ans0-2, answer_info, label, context_condition, question_polarity and "
                "additional_metadata.stereotyped_groups"
            ) from error
        if item is not None:
            items.append(item)
    return items


def _item(row: Mapping[str, Any]) -> _Item | None:
    """The row's people, or None where the evidence names neither; a name is the first in `answer_info`."""
    people = [i for i in range(3) if row["answer_info"][f"ans{i}"][1] != "unknown"]
    label = int(row["label"])
    if label not in people:
        return None
    other = next(i for i in people if i != label)
    # the group is the second entry in most categories, the first in Nationality
    mine, theirs = (
        set(row["answer_info"][f"ans{i}"]) & set(row["additional_metadata"]["stereotyped_groups"])
        for i in (label, other)
    )
    if bool(mine) == bool(theirs):
        return None
    name, other_name = (row["answer_info"][f"ans{i}"][0] for i in (label, other))
    person, other_person = (re.sub(r"^The\b", "the", row[f"ans{i}"]) for i in (label, other))
    return _Item(row, name, other_name, person, other_person, bool(mine))


def _mirror(item: _Item) -> str:
    """The context with the two groups' names exchanged."""
    swap = {item.name: item.other_name, item.other_name: item.name}
    return re.sub(
        rf"\b({'|'.join(map(re.escape, sorted(swap, key=len, reverse=True)))})\b",
        lambda m: swap[m.group(0)],
        item.row["context"],
    )


def _form(context: str, articles: bool) -> str:
    return re.sub(r"\b([Aa])n\b", r"\1", context) if articles else context


def _twins(contrasts: Iterable[_Item], articles: bool) -> dict[tuple[str, str, str], _Item]:
    return {(*item.question, _form(item.row["context"], articles)): item for item in contrasts}


def _unpaired(target: _Item, category: str) -> dict[str, Any]:
    return {
        "category": category,
        "example_id": target.row["example_id"],
        "question": target.row["question"],
        "why": f"no context equals this one with {target.name!r} and {target.other_name!r} exchanged",
    }


def _prompts(
    target: _Item,
    twin: _Item,
    reverse: bool,
    priming: str | None,
    prime: str,
    template: str,
    answers: tuple[str, str],
) -> Iterable[dict[str, Any]]:
    category, number = target.row["category"], target.row["example_id"]
    item = "reversed" if reverse else "direct"
    for role, member in (("target", target), ("contrast", twin)):
        person, other = (member.other, member.person) if reverse else (member.person, member.other)
        before = f"{priming} " if priming is not None and prime in ("both", role) else ""
        yield {
            "id": f"{category}-{member.row['example_id']}-{item}",
            "prompt": template.format(
                priming=before, context=member.row["context"], question=member.row["question"], person=person
            ),
            "answer": answers[reverse],
            "foil": answers[not reverse],
            "pair": f"{category}-{number}-{item}",
            "role": role,
            "item": item,
            "group": f"{category}-{target.row['question_index']}",
            "category": category,
            "polarity": member.row["question_polarity"],
            "person": person,
            "other": other,
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print counts and some pairs of BBQ-style files; with --out, write them all."""
    parser = argparse.ArgumentParser(
        prog="python -m layerprobe.analyses.behaviour.bbq", description=main.__doc__
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--show", type=int, default=20, help="how many pairs to print")
    parser.add_argument("--out", type=Path, help="JSONL to write")
    parser.add_argument("--articles", action="store_true", help='also pair twins that differ in "a" and "an"')
    options = parser.parse_args(arguments)
    pairs = bbq_pairs(options.files, articles=options.articles)
    print(show(pairs, options.show))
    if options.out is not None:
        pairs.to_jsonl(options.out)


if __name__ == "__main__":
    main()
