"""Tables of false alarms and power for docs/statistics.md: `python -m tools.worlds_table --write`.

Every analysis is run on every null world that it reads, and on planted worlds of growing strength.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- worlds: begin -->", "<!-- worlds: end -->"


def false_alarms(draws: int, kinds: list[str]) -> Iterator[str]:
    """Markdown rows: analysis, world, draws, found, bound, claims."""
    from worlds.calls import CALLS, NULLS
    from worlds.measure import count, most

    yield f"Draws of a null world in which anything was claimed, of {draws} each, and the bound at 0.1 %.\n"
    yield "| analysis | world | draws | found | bound | claims |\n|---|---|---|---|---|---|"
    for kind in kinds or sorted(CALLS):
        worlds = CALLS[kind].worlds(NULLS)
        hits = 0
        for world in worlds:
            one = count(kind, world, draws)
            print(one, file=sys.stderr, flush=True)
            hits += one.hits
            claims = ", ".join(one.claims)
            yield f"| `{kind}` | {world.name} | {draws} | {one.hits} | {one.bound} | {claims} |"
        if len(worlds) > 1:
            together = draws * len(worlds)
            yield f"| `{kind}` | **all** | {together} | **{hits}** | {most(together)} | |"


def power(draws: int, kinds: list[str]) -> Iterator[str]:
    """Markdown rows: analysis, world, effect found in 80 % of draws, the textbook's."""
    from worlds.power import QUESTIONS, enough

    yield f"\nThe effect that is found in 80 % of draws ({draws} for each strength).\n"
    yield "| analysis | world | effect | textbook | unit | the textbook's test |\n|---|---|---|---|---|---|"
    for one in QUESTIONS:
        if kinds and one.kind not in kinds:
            continue
        ours, theirs = (f"{value:.2f}" if value < float("inf") else "> all" for value in enough(one, draws))
        print(one.kind, one.world, ours, theirs, file=sys.stderr, flush=True)
        yield f"| `{one.kind}` | {one.world} | {ours} | {theirs} | {one.unit} | {one.called} |"


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/statistics.md, else printed")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--power-draws", type=int, default=40)
    parser.add_argument("kinds", nargs="*", help="default: all analyses")
    asked = parser.parse_args()
    sys.path[:0] = [str(ROOT / "tests")]
    warnings.simplefilter("ignore")
    rows = [*false_alarms(asked.draws, asked.kinds), *power(asked.power_draws, asked.kinds)]
    text = "\n".join(rows)
    if not asked.write:
        print(text)
        return
    page = ROOT / "docs" / "statistics.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
