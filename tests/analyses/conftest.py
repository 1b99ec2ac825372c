"""A RuntimeWarning of numpy (a mean of nothing, an overflow) in an analysis is a mistake, not a message."""

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error::RuntimeWarning"))
