"""Run the reference studies and write down every number: python tools/reference_studies/run.py --out FILE.csv

Twelve studies that together call every public analysis, small enough for a minute on two cores. Two runs of
the same code on one machine give the same file to the last bit; `compare.py` says what another one changed.
"""

import argparse
import csv
import os
import platform
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# before torch is imported: sums in one order, and nothing fetched
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import on_arrays
from record import WORDS, Row, array_rows, cell, rows_of_result, summary
from worlds import demo_prompts, tiny, tiny_prompts

import layerprobe as lp

HERE = Path(__file__).parent
HEADER = ("study", "result", "part", "key", "column", "value")
IN_PYTHON = (
    on_arrays.array_probes,
    on_arrays.array_geometry,
    on_arrays.models_in_hand,
    on_arrays.stores_and_pairs,
)


def lay_out(folder: Path) -> None:
    """Write the models and prompts that the TOML studies name."""
    for name, seed in (("llama", 0), ("llama", 1), ("gpt2", 0)):
        tiny(folder, name, seed)
    tiny(folder, "llama", reward=True)
    tiny_prompts(folder)
    for every in (3, 6):
        demo_prompts(folder, every)


def studies(folder: Path) -> Iterator[tuple[str, Any]]:
    """(study, its results one by one), in a fixed order."""
    for path in sorted(HERE.glob("*.toml")):
        yield path.stem, from_toml(path, folder)
    for function in IN_PYTHON:
        yield function.__name__, function(folder)


def from_toml(path: Path, folder: Path) -> Iterator[tuple[str, Any]]:
    """Results of a study whose `@here` is the working folder, and why those that failed did."""
    study = tomllib.loads(path.read_text(encoding="utf-8").replace("@here", str(folder)))
    run = lp.run_study(study, out=folder / path.stem, progress=False)
    yield from run.results.items()
    for name, why in run.failures.items():
        print(f"{path.stem}: {name} failed: {why}", file=sys.stderr)
        yield name, {"failed": [why]}


def rows_of(study: str, name: str, result: Any) -> Iterator[Row]:
    """Rows of an AnalysisResult, or of a mapping of arrays and lists."""
    if hasattr(result, "table"):
        yield from rows_of_result(study, name, result)
        return
    for key, value in result.items():
        words = isinstance(value, list) and value and isinstance(value[0], str)
        cells = summary("all", str(key), value) if words else array_rows("all", str(key), value)
        for found in cells:
            yield (study, name, "arrays", *found)


def sentences_of(study: str, name: str, result: Any, folder: Path) -> str:
    """What the result says of itself, and its table's notes."""
    if not hasattr(result, "table"):
        said = [f"{key}: {cell(value)}" for key, value in result.items() if key.endswith(("text", "said"))]
        return "\n".join([f"== {study} / {name}", *said, ""]) if said else ""
    said = str(result.summary()).splitlines()
    for column in sorted(WORDS & set(result.table.columns)):
        said += [f"{column}: {words}" for words in result.table[column].dropna().unique()]
    text = "\n".join([f"== {study} / {name}", *said, ""])
    return text.replace(str(folder), "@here")


def main() -> None:
    """Write the numbers, and the sentences where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="CSV of the numbers")
    parser.add_argument("--sentences", type=Path, help="text of the sentences")
    parser.add_argument("--only", help="run the studies whose name contains this")
    args = parser.parse_args()
    rows: list[Row] = []
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix="reference-") as made:
        folder = Path(made)
        lay_out(folder)
        for study, results in studies(folder):
            if args.only and args.only not in study:
                continue
            start, before = time.perf_counter(), len(rows)
            for name, result in results:
                rows += rows_of(study, name, result)
                said.append(sentences_of(study, name, result, folder))
            took = time.perf_counter() - start
            print(f"{study}: {len(rows) - before:,} numbers, {took:.0f} s", file=sys.stderr, flush=True)
    write(args.out, rows)
    if args.sentences:
        args.sentences.write_text("\n".join(filter(None, said)), encoding="utf-8")


def write(path: Path, rows: list[Row]) -> None:
    """The CSV, its first line saying what machine the bits are of.

    Study, result, part and key are left empty where they are those of the line above: a third of the size.
    """
    import torch

    above: tuple[str, ...] = ("", "", "", "")
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {platform.machine()}, {cpu()}, torch {torch.__version__}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in rows:
            start = next((i for i in range(4) if row[i] != above[i]), 4)
            writer.writerow([*[""] * start, *row[start:]])
            above = row[:4]


def cpu() -> str:
    """Name of the processor; its vector instructions decide the last bits."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
