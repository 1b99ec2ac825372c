"""Peak resident memory of a capture as prompts and tokens grow, each capture in a process of its own.

    python benchmarks/memory.py            # prints tables, writes benchmarks/results/memory-<date>-cpu.md
    python benchmarks/memory.py --prompts 1000 10000 --tokens 500        # other sizes: prints only

The same captures as in tests/cache/test_scale.py (`make soak`), which holds them to bounds.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cache")]

from _results import publish  # noqa: E402
from test_scale import peak  # noqa: E402
from tiny_models import tiny_model  # noqa: E402

PROMPTS = (1_000, 10_000, 100_000)
TOKENS = (500, 3_000, 12_000)
DATA = Path(os.environ.get("LAYERPROBE_TEST_DATA", ROOT.parent / "shared"))


def table(title: str, unit: str, runs: list[tuple[int, dict]], folder: Path) -> list[str]:
    """Rows of one table: size, peak, ratio to the first, seconds of the bar."""
    lines = ["", title, "", f"| {unit} | peak MB | over the first | seconds |", "|---|---|---|---|"]
    first = 0
    for count, options in runs:
        memory, rows, said = peak(folder / f"{count}.h5", count, **options)
        (folder / f"{count}.h5").unlink()
        first = first or memory
        clock = re.findall(r"\[([\d:]+)<", said)[-1]
        seconds = sum(int(part) * 60**power for power, part in enumerate(reversed(clock.split(":"))))
        lines.append(f"| {rows:,} | {memory / 1e6:,.0f} | {memory / first:.2f} | {seconds} |")
    return lines


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--prompts", type=int, nargs="+", default=list(PROMPTS), help="prompts of one row each"
    )
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=list(TOKENS),
        help="prompts of a row per token, on stories260K",
    )
    chosen = parser.parse_args()
    lines = [
        "# Peak resident memory of a capture, a process each",
        "",
        f"{datetime.date.today()}, 2-core Xeon, CPU, one thread; `resid_post` of all layers to a file.",
    ]
    with tempfile.TemporaryDirectory() as place:
        small = {"folder": tiny_model("llama")}
        title = 'A 3-layer random-weight Llama of width 32, prompts of 4-10 words, `tokens="last"`:'
        lines += table(title, "prompts", [(n, small) for n in chosen.prompts], Path(place))
        real = {"folder": DATA / "models" / "stories260K", "rule": "all", "low": 20, "high": 60}
        if real["folder"].exists():
            title = '`stories260K`, prompts of 20-60 words, `tokens="all"`:'
            lines += table(title, "tokens", [(n, real) for n in chosen.tokens], Path(place))
    if (*chosen.prompts, *chosen.tokens) == (*PROMPTS, *TOKENS):
        publish("memory", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
