"""Where tests find the real text and the real trained model, and the switches every test runs under."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

ROOT = Path(__file__).resolve().parents[1]
collect_ignore = ["checks"]  # scripts of `make check`, not tests


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real labelled text and stories260K (`tests/data_sources.toml` says how to fetch it)."""
    folder = Path(os.environ.get("LAYERPROBE_TEST_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no test data at {folder}: set LAYERPROBE_TEST_DATA (see tests/data_sources.toml)")
    return folder


@pytest.fixture(scope="session")
def stories(test_data: Path) -> Path:
    """The real trained Llama-architecture model stories260K, a local folder."""
    return test_data / "models" / "stories260K"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none")
