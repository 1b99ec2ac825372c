"""Where benchmarks leave what they print."""

import datetime
from collections.abc import Sequence
from pathlib import Path


def publish(name: str, lines: Sequence[str], *, device: str = "cpu") -> None:
    """Print a page and keep it as benchmarks/results/NAME-DATE-DEVICE.md."""
    text = "\n".join(lines) + "\n"
    print(text)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}-{datetime.date.today()}-{device}.md").write_text(text)
