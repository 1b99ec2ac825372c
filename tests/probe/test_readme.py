"""The README's own lines do what the README says."""

import re
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_notebook_lines_find_the_override():
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    summary = str(names["result"].summary())
    assert "represented and then overridden" in summary
    assert "weakened" not in summary
