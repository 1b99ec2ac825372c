"""Contrastive yes/no pairs, from BBQ-style files or from anybody's own table.

In a pair the evidence supports the same answer twice: once about a member of the stereotyped group
(*target*), once about the person they are compared with (*contrast*). From BBQ (Parrish et al. 2022,
2110.08193) the contrast is the mirrored twin: the disambiguated context of the same question in which the two
groups have changed places, word for word. Asking "Is it X?" about the person the evidence names makes every
answer yes, so a model that always says yes would be perfect; *reversed* items ask about the other person, and
their answer is no.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ...hooks.errors import LayerprobeError

LEFT_OUT = ["category", "example_id", "question", "why"]


@dataclass(frozen=True)
class ContrastivePairs:
    """Pairs in long form, and an account of what could not be paired."""

    table: pd.DataFrame
    """One row per prompt: id, prompt, answer, foil, pair, role (target | contrast), item (direct | reversed),
    group, …
    """
    counts: pd.DataFrame
    """Per category: candidates (targets in a disambiguated context), pairs made, left out."""
    left_out: pd.DataFrame
    """Per candidate without a pair: category, example_id, question and why."""

    def prompts(self, *, name: str = "contrastive_pairs") -> Any:
        """The prompts as a `PromptTable`, ready for `capture`."""
        from ...cache.prompts.table import PromptTable

        labels = [str(column) for column in self.table if column not in ("id", "prompt", "pair", "group")]
        return PromptTable.from_frame(
            self.table, text="prompt", labels=labels, group="group", pair="pair", id="id", name=name
        )

    def to_jsonl(self, path: str | Path) -> Path:
        """Write the prompts, one JSON object per line."""
        self.table.to_json(path, orient="records", lines=True, force_ascii=False)
        return Path(path)


def pairs_from_table(table: pd.DataFrame | Iterable[Mapping[str, Any]]) -> ContrastivePairs:
    """Pairs from a plain table: prompt, answer, foil, pair, role; optional group, item, id and any others.

    Args:
        table: one row per prompt; every `pair` (and `item`) has one row with role target and one with
        contrast.

    Raises:
        LayerprobeError: a missing column, a pair without both roles, or answers that differ within a pair.

    >>> same = {"answer": "yes", "foil": "no", "pair": 1}
    >>> rows = [{"prompt": f"Was it {who}?", "role": role, **same}
    ...         for who, role in (("Ann", "target"), ("Bob", "contrast"))]
    >>> pairs_from_table(rows).counts["pairs"].tolist()
    [1]
    """
    frame = table.copy() if isinstance(table, pd.DataFrame) else pd.DataFrame([dict(row) for row in table])
    needed = ("prompt", "answer", "foil", "pair", "role")
    missing = [name for name in needed if name not in frame]
    if missing:
        raise LayerprobeError(
            f"a table of pairs needs the columns {', '.join(needed)}; {', '.join(missing)} are missing"
        )
    frame["item"] = frame.get("item", pd.Series("direct", index=frame.index))
    for key, part in frame.groupby(["pair", "item"], sort=False):
        if sorted(part["role"]) != ["contrast", "target"]:
            raise LayerprobeError(
                f"pair {key[0]!r} has roles {sorted(part['role'])}, expected one target and one contrast"
            )
        if part["answer"].nunique() > 1:
            raise LayerprobeError(
                f"pair {key[0]!r} has answers {sorted(part['answer'].unique())}; the members of a pair "
                "have the same evidence-supported answer"
            )
    for name, source in (("group", "pair"), ("id", None), ("category", None)):
        if name not in frame:
            frame[name] = (
                frame[source]
                if source
                else (
                    "all"
                    if name == "category"
                    else [
                        f"{p}-{i}-{r}"
                        for p, i, r in zip(frame["pair"], frame["item"], frame["role"], strict=True)
                    ]
                )
            )
    counts = (
        frame[frame["role"] == "target"].groupby("category", sort=False).size().rename("pairs").reset_index()
    )
    counts = counts.assign(candidates=counts["pairs"], left_out=0)[
        ["category", "candidates", "pairs", "left_out"]
    ]
    return ContrastivePairs(frame, counts, pd.DataFrame(columns=LEFT_OUT))


def show(pairs: ContrastivePairs, n: int = 20) -> str:
    """Counts and n pairs spread evenly over the table, as Markdown for a reader to judge."""
    lines = [
        *markdown(pairs.counts),
        "",
    ]
    names = list(dict.fromkeys(pairs.table["pair"]))
    for name in names[:: max(1, len(names) // n)][:n]:
        part = pairs.table[pairs.table["pair"] == name].set_index("role")
        lines.append(f"**{name}** (group {part['group'].iloc[0]}, answer *{part['answer'].iloc[0]}*)\n")
        lines += [
            f"- {role}: " + part.loc[role, "prompt"].replace("\n", " / ") for role in ("target", "contrast")
        ]
        lines.append("")
    return "\n".join(lines)


def markdown(table: pd.DataFrame) -> list[str]:
    """Lines of a Markdown table."""
    body = [table.columns.tolist(), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in body]
