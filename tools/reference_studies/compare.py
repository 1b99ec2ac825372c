"""What changed between two files of `run.py`: python tools/reference_studies/compare.py BEFORE.csv AFTER.csv

Rows are matched by what they are of. A number counts as equal if every bit is. What differs or is gone, and a
column under another name, must be explained (`--explained FILE.toml`) or the exit code is 1; new studies,
results, rows and columns are listed and need no reason.

    [[explained]]
    where = "demo_*/separation-*"   # study/result
    column = "p_*"                  # default: every column
    part = "table"                  # default: every part
    reason = "the null is drawn anew"
"""

import argparse
import csv
import math
import sys
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Name = tuple[str, str, str]  # study, result, part
Key = tuple[tuple[str, str], ...]


@dataclass
class Part:
    """One table of one result: rows by what they are of."""

    same: dict[str, str] = field(default_factory=dict)
    """Columns that are the same in all rows; a colon before those that say what a row is of."""
    listed: dict[str, dict[str, str]] = field(default_factory=dict)
    """Key as written -> column -> value."""

    def rows(self) -> dict[Key, dict[str, str]]:
        """Every row with the columns that all rows share written out again."""
        keys = {name[1:]: value for name, value in self.same.items() if name.startswith(":")}
        values = {name: value for name, value in self.same.items() if not name.startswith(":")}
        found = {}
        for written, row in (self.listed or {"": {}}).items():
            pieces = [piece for piece in written.split(";") if piece]
            own = dict(piece.partition("=")[::2] for piece in pieces)
            # a summary of the whole table has no columns of single rows
            summed = "all" in own
            key = own if summed else {**keys, **own}
            found[tuple(sorted(key.items()))] = row if summed else {**values, **row}
        return found


@dataclass
class Change:
    """Something that is not as it was."""

    what: str
    """differs, missing, new or renamed."""
    name: Name
    column: str
    detail: str
    reason: str = ""

    def __str__(self) -> str:
        place = "/".join(part for part in (*self.name, self.column) if part)
        reason = f"  [{self.reason}]" if self.reason else ""
        return f"{self.what:8} {place}: {self.detail}{reason}"

    @property
    def harmless(self) -> bool:
        """New things take nothing away."""
        return self.what == "new" or bool(self.reason)


def read(path: Path) -> dict[Name, Part]:
    """The parts of a file; an empty study, result, part or key is that of the line above."""
    parts: dict[Name, Part] = defaultdict(Part)
    above = ["", "", "", ""]
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.reader(line for line in file if not line.startswith("#"))
        next(lines)
        for *place, column, value in lines:
            start = next((i for i in range(4) if place[i]), 4)
            above = [*above[:start], *place[start:]]
            part = parts[above[0], above[1], above[2]]
            if above[3] == "*":
                part.same[column] = value
            else:
                part.listed.setdefault(above[3], {})[column] = value
    return dict(parts)


def compare(before: dict[Name, Part], after: dict[Name, Part]) -> tuple[int, list[Change]]:
    """How many values are equal to the last bit, and everything else."""
    changes = renamed_results(before, after)
    equal = 0
    for name in dict.fromkeys([*before, *after]):
        if name not in after or name not in before:
            what, part = ("missing", before[name]) if name in before else ("new", after[name])
            changes.append(Change(what, name, "", f"all {len(part.rows())} rows"))
            continue
        same, found = compare_parts(name, before[name].rows(), after[name].rows())
        equal += same
        changes += found
    return equal, changes


def renamed_results(before: dict[Name, Part], after: dict[Name, Part]) -> list[Change]:
    """Results that have another name and are the same in everything; `before` takes the new name."""
    changes = []
    old, new = ({name[:2] for name in parts} for parts in (before, after))
    for study, result in sorted(old - new):
        content = contents(before, study, result)
        for other in sorted(new - old):
            if other[0] == study and contents(after, *other) == content:
                changes.append(Change("renamed", (study, result, ""), "", f"is now {other[1]}"))
                for part in content:
                    before[study, other[1], part] = before.pop((study, result, part))
                new.discard(other)
                break
    return changes


def contents(parts: dict[Name, Part], study: str, result: str) -> dict[str, Any]:
    """Parts of one result."""
    return {part: found.rows() for (s, r, part), found in parts.items() if (s, r) == (study, result)}


def compare_parts(
    name: Name, before: dict[Key, dict[str, str]], after: dict[Key, dict[str, str]]
) -> tuple[int, list[Change]]:
    """Match rows by the key columns of both files, then columns by name, then the values."""
    before, after, changes = same_keys(name, before, after)
    for what, here, there in (("missing", before, after), ("new", after, before)):
        if rows := [key for key in here if key not in there]:
            changes.append(Change(what, name, "", f"{len(rows)} rows, such as {shown(rows[0])}"))
    matched = [key for key in before if key in after]
    columns: dict[str, list[tuple[str | None, str | None]]] = defaultdict(list)
    for key in matched:
        for column in {**before[key], **after[key]}:
            columns[column].append((before[key].get(column), after[key].get(column)))
    gone = [c for c, pairs in columns.items() if all(b is None for _, b in pairs)]
    come = [c for c, pairs in columns.items() if all(a is None for a, _ in pairs)]
    for column in gone:
        values = [before[key].get(column) for key in matched]
        new = next((c for c in come if [after[key].get(c) for key in matched] == values), None)
        if new is None:
            changes.append(Change("missing", name, column, f"column of {len(columns[column])} values"))
        else:
            come.remove(new)
            changes.append(Change("renamed", name, column, f"is now {new}, all values equal"))
    changes += [Change("new", name, c, f"column of {len(columns[c])} values") for c in come]
    equal = 0
    for column, pairs in columns.items():
        if any(a is not None for a, _ in pairs) and any(b is not None for _, b in pairs):
            unlike = [pair for pair in pairs if not alike(*pair)]
            equal += len(pairs) - len(unlike)
            if unlike:
                changes.append(Change("differs", name, column, size(unlike, len(pairs))))
    return equal, changes


def same_keys(
    name: Name, before: dict[Key, dict[str, str]], after: dict[Key, dict[str, str]]
) -> tuple[dict[Key, dict[str, str]], dict[Key, dict[str, str]], list[Change]]:
    """Both sides under the key columns that they share; others are renamed, gone or new."""
    old, new = ({column for key in rows for column, _ in key} for rows in (before, after))
    changes = []
    renames: dict[str, str] = {}
    for column in sorted(old - new):
        values = Counter(value for key in before for c, value in key if c == column)
        others = sorted(new - old - set(renames.values()))
        same = (c for c in others if Counter(v for key in after for k, v in key if k == c) == values)
        other = next(same, None)
        if other is None:
            changes.append(Change("missing", name, column, "rows no longer say it"))
        else:
            renames[column] = other
            changes.append(Change("renamed", name, column, f"is now {other}, all values equal"))
    changes += [
        Change("new", name, column, "rows now say it") for column in sorted(new - old - set(renames.values()))
    ]
    shared = (old & new) | set(renames.values())
    return numbered(before, shared, renames), numbered(after, shared, {}), changes


def numbered(
    rows: dict[Key, dict[str, str]], shared: set[str], renames: dict[str, str]
) -> dict[Key, dict[str, str]]:
    """Rows under the shared columns of their keys; those that are then alike are told apart by a number."""
    found: dict[Key, dict[str, str]] = {}
    for key, row in rows.items():
        named = [(renames.get(column, column), value) for column, value in key]
        kept = tuple(sorted(piece for piece in named if piece[0] in shared))
        copy, wanted = 1, kept
        while wanted in found:
            copy += 1
            wanted = (*kept, ("copy", str(copy)))
        found[wanted] = row
    return found


def alike(a: str | None, b: str | None) -> bool:
    """The same words, or the same number however it is written."""
    if a == b or a is None or b is None:
        return a == b
    x, y = number(a), number(b)
    return x is not None and x == y


def number(text: str | None) -> float | None:
    """A finite number, or None; hashes that look like one are none."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and len(text or "") != 16 else None


def size(pairs: list[tuple[str | None, str | None]], total: int) -> str:
    """How many differ and by how much at most, relative to the larger of the two."""
    sizes = []
    for a, b in pairs:
        x, y = number(a), number(b)
        if x is not None and y is not None:
            sizes.append((abs(x - y) / max(abs(x), abs(y)), f"{a} → {b}"))
    if sizes:
        largest, example = max(sizes)
        return f"{len(pairs)} of {total} values, by {largest:.1e} at most ({example})"
    return f"{len(pairs)} of {total} values, such as {pairs[0][0]} → {pairs[0][1]}"


def shown(key: Key) -> str:
    """A key as it is written."""
    return " ".join(f"{column}={value}" for column, value in key) or "the only one"


def explain(changes: list[Change], path: Path) -> list[str]:
    """Give every change the first reason that fits; returns the entries that fit none."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("explained", [])
    used = set()
    for change in changes:
        for i, entry in enumerate(entries):
            place, part = "/".join(change.name[:2]), change.name[2]
            wanted = ((place, entry["where"]), (part, entry.get("part", "*")))
            if all(fnmatchcase(*pair) for pair in (*wanted, (change.column, entry.get("column", "*")))):
                change.reason = entry["reason"]
                used.add(i)
                break
    return [entry["where"] for i, entry in enumerate(entries) if i not in used]


def main() -> int:
    """Print what is equal and what is not; 1 where something is unexplained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--explained", type=Path, help="TOML of intended differences")
    args = parser.parse_args()
    equal, changes = compare(read(args.before), read(args.after))
    idle = explain(changes, args.explained) if args.explained else []
    for change in sorted(changes, key=lambda c: (c.what, c.name, c.column)):
        print(change)
    for where in idle:
        print(f"unused   {where}: explains nothing")
    open_ones = [change for change in changes if not change.harmless]
    print(f"{equal:,} values equal to the last bit; {len(changes)} changes, {len(open_ones)} unexplained")
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main())
