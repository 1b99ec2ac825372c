"""The house: rooms say what they hold, and no name is borne twice."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    path
    for top in ("hooks", "cache", "analyses", "probe")
    for path in sorted((ROOT / top).rglob("*.py"))
    if "__pycache__" not in path.parts
]
ROOMS = sorted(
    {path.parent for path in MODULES} - {ROOT / "hooks", ROOT / "cache", ROOT / "analyses", ROOT / "probe"}
)


def docstring(path):
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in MODULES if path.stem != "__init__")
    assert not [name for name, count in names.items() if count > 1]


def test_no_file_repeats_its_folder():
    assert not [path for path in MODULES if path.stem.startswith(path.parent.name)]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(ROOT)))
def test_a_room_says_what_lives_there_and_what_it_may_import(room):
    said = docstring(room / "__init__.py")
    assert said and len(said.splitlines()) <= 6
    if room.parent != ROOT / "hooks" and room.name != "demo":
        assert "May import" in said, room


def test_every_module_says_what_it_is():
    assert not [path for path in MODULES if not docstring(path)]
