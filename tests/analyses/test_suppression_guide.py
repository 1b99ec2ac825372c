"""The code of docs/suppression.md runs as it stands, and finds what the guide says."""

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "suppression.md"


def blocks():
    return re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_guide_finds_the_override_on_prompts_that_were_told_who_was_what(capsys):
    names = {}
    exec(blocks()[0], names)
    said = capsys.readouterr().out
    (override,) = [line for line in said.splitlines() if "on sensitive prompts" in line]
    assert "the answer is represented and then overridden" in override
    assert "undecided (less than half of the lead is lost)" in said
    assert set(names["store"].labels("condition")) == {"disambiguated"}


@pytest.mark.soak
def test_every_block_of_the_guide_runs():
    names = {}
    for block in blocks():
        exec(block, names)
