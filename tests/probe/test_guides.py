"""The code of the guides runs as it stands, block after block, as a reader would type it."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(
    "guide",
    [
        "interventions",
        "lenses",
        "separation",
        pytest.param("alignment_quality", marks=pytest.mark.soak),
        pytest.param("base_vs_instruct", marks=pytest.mark.soak),
        pytest.param("probes", marks=pytest.mark.soak),
    ],
)
def test_every_block_runs(guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", (DOCS / f"{guide}.md").read_text("utf-8"), flags=re.M | re.S
    )
    assert blocks
    names = {}
    for block in blocks:
        exec(block, names)
