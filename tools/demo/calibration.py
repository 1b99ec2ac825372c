"""How often the null pair raises a false alarm: suppression and its differences over re-drawn prompt sets.

*instruct_null* was tuned like *instruct* but for the override. Each draw tells other scenarios of the demo's
world, runs *base* and *instruct_null* on them and asks what the demo asks, twice:

- benign − sensitive, as the demo does. The twelve words of either kind are the same in every draw, while the
  bootstrap resamples scenarios as if their words were drawn too: these intervals are wider than they need be.
- one half − other half of the scenarios, halved at random. Nothing can be there, so an interval off zero is a
  false alarm and misses the true value at once.

The world has 475 reserved scenarios and a draw takes 96 of them, so two draws share a fifth of theirs, and
estimates spread over draws by a tenth less than over draws from an endless world.
"""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from layerprobe.analyses.comparison.models import compare
from layerprobe.analyses.statistics.intervals import exact_binomial_bound
from layerprobe.cache.capture.run import capture
from layerprobe.cache.prompts.table import PromptTable
from layerprobe.hooks.weights.load import load_model
from layerprobe.probe.demo import models

from .prompts import prompt_rows

SIDES = {"sensitive": ("benign", "sensitive"), "half": ("one", "other")}
"""label column -> the two values that are compared."""
MODELS = {
    "base": ("base", None),
    "instruct_null": ("instruct_null", None),
    "instruct_null − base": ("instruct_null", "base"),
}
"""name in the table -> model and reference of a `suppression_index` row."""


def prompt_set(draw: int, *, words: int | None = None) -> PromptTable:
    """The prompts of one draw with evidence, of the splits test and heldout; `half` is random by scenario.

    Args:
        draw: of `prompt_rows`.
        words: only so many words of either kind, for a quick look.
    """
    frame = pd.DataFrame(
        row
        for row in prompt_rows(draw=draw)
        if row["condition"] == "disambiguated" and row["split"] != "train"
    )
    if words is not None:
        number = frame.groupby("sensitive")["word"].transform(
            lambda column: column.astype("category").cat.codes
        )
        frame = frame[number < words]
    scenarios = np.unique(frame["group"])
    order = np.random.default_rng([draw, 1]).permutation(len(scenarios))
    half = dict(zip(scenarios[order], np.resize(SIDES["half"], len(scenarios)), strict=True))
    frame = frame.assign(half=frame["group"].map(half))
    labels = ["sensitive", "half", "answer", "foil"]
    return PromptTable.from_frame(frame, text="prompt", labels=labels, group="group", pair="pair", id="id")


def readings(
    draws: Iterable[int], *, words: int | None = None, n_bootstrap: int = 300, n_permutations: int = 300
) -> Iterator[dict[str, Any]]:
    """The index of every draw, model and side, and of their differences: estimate, interval, p, verdict."""
    loaded = {
        name: load_model(models()[name], dtype="float32", check=False, name=name)
        for name in ("base", "instruct_null")
    }
    for draw in draws:
        prompts = prompt_set(draw, words=words)
        stores = {
            name: capture(
                model,
                prompts,
                sites=["lens"],
                lens_tokens=["answer", "foil"],
                chat_template=True,
                progress=False,
            )
            for name, model in loaded.items()
        }
        for by, sides in SIDES.items():
            result = compare(
                stores,
                target="answer",
                foil="foil",
                by=by,
                n_bootstrap=n_bootstrap,
                n_permutations=n_permutations,
                seed=draw,
            )
            yield from ({"draw": draw, **row} for row in _index_rows(result, by, sides))


def _index_rows(result: Any, by: str, sides: tuple[str, str]) -> Iterator[dict[str, Any]]:
    table = result.table
    index = table[table["metric"] == "suppression_index"]
    found = set(result.frames["verdicts"].query("verdict != 'none'")["model"])
    one, other = (f"{by}={side}" for side in sides)
    for name, (model, reference) in MODELS.items():
        same = index["reference"].isna() if reference is None else index["reference"] == reference
        mine = index[(index["model"] == model) & same].fillna({"minus": ""}).set_index(["subset", "minus"])
        asked = {" − ".join(sides): (one, other), sides[0]: (one, ""), sides[1]: (other, "")}
        for words, where in asked.items():
            kept = {key: float(mine.loc[where, key]) for key in ("estimate", "lo", "hi", "p")}
            yield {"model": name, "on": words, **kept, "verdict": model in found}


def rates(found: pd.DataFrame) -> pd.DataFrame:
    """Means over draws, and how many intervals and tests went wrong.

    Args:
        found: rows of `readings`.

    Returns:
        by `model` and `on`: `draws`, `mean`, `sd`, `width` (mean length of intervals), `off_zero` (intervals
        that exclude zero), `rejected` (p ≤ 0.05), `missed` (intervals without the mean over all draws),
        `verdicts` (draws where something was said of that model).
    """
    mean = found.groupby(["model", "on"])["estimate"].transform("mean")
    marked = found.assign(
        width=found["hi"] - found["lo"],
        off_zero=(found["lo"] > 0) | (found["hi"] < 0),
        rejected=found["p"] <= 0.05,
        missed=(found["lo"] > mean) | (found["hi"] < mean),
    )
    grouped = marked.groupby(["model", "on"], sort=False)
    return grouped.agg(
        draws=("draw", "size"),
        mean=("estimate", "mean"),
        sd=("estimate", "std"),
        width=("width", "mean"),
        off_zero=("off_zero", "sum"),
        rejected=("rejected", "sum"),
        missed=("missed", "sum"),
        verdicts=("verdict", "sum"),
    )


def as_markdown(table: pd.DataFrame, prompts: int) -> str:
    """The rates as a table for the docs, with the bound that they are held to."""
    n = int(table["draws"].iloc[0])
    few, many = exact_binomial_bound(n, 0.05)
    lines = [
        f"{n} draws of {prompts} prompts. At 5 %, {few} to {many} of {n} are within the exact binomial bound "
        "at 0.1 %.",
        "",
        "| index of | on | mean | sd over draws | interval length | off zero | p ≤ 0.05 | mean missed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in table.reset_index().to_dict("records"):
        off, rejected, missed = (
            f"{row[key]} ({row[key] / n:.1%})" for key in ("off_zero", "rejected", "missed")
        )
        if " − " not in row["on"]:
            off = rejected = "not a null"
        numbers = " | ".join(f"{row[key]:.3f}" for key in ("mean", "sd", "width"))
        lines.append(f"| {row['model']} | {row['on']} | {numbers} | {off} | {rejected} | {missed} |")
    said = {name: table["verdicts"][name, "benign"] for name in ("base", "instruct_null")}
    counts = " and ".join(f"{count} of {n} for {name}" for name, count in said.items())
    return "\n".join([*lines, "", f'Draws with a verdict other than "no evidence of suppression": {counts}.'])


def main(arguments: Sequence[str] | None = None) -> None:
    """Count false alarms over re-drawn prompt sets of the null pair."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.calibration", description=main.__doc__)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--words", type=int, help="only so many words of either kind, for a quick look")
    parser.add_argument("--csv", type=Path, help="where to keep every reading")
    options = parser.parse_args(arguments)
    found = pd.DataFrame(readings(range(1, 1 + options.draws), words=options.words))
    if options.csv is not None:
        found.to_csv(options.csv, index=False)
    print(as_markdown(rates(found), len(prompt_set(1, words=options.words))))


if __name__ == "__main__":
    main()
