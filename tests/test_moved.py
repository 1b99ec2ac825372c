"""Former import paths: each is found, says where its contents are now, and hands out the same objects."""

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from layerprobe._moved import MOVED


@pytest.mark.parametrize("now", sorted(set(MOVED.values())))
def test_every_module_of_the_table_is_there(now):
    assert find_spec(f"layerprobe.{now}") is not None


def test_a_former_module_is_the_present_one():
    with pytest.warns(DeprecationWarning, match="has moved"):
        former = import_module("layerprobe.analyses.trajectories")
    assert former is import_module("layerprobe.analyses.lens.trajectories")


def test_a_package_that_bears_a_former_name_hands_out_what_stood_there():
    with pytest.warns(DeprecationWarning, match=r"import layerprobe\.cache\.prompts\.table"):
        from layerprobe.cache.prompts import PromptTable
    assert PromptTable is import_module("layerprobe.cache.prompts.table").PromptTable
    with pytest.raises(ImportError, match="nothing_like_it"):
        from layerprobe.cache.prompts import nothing_like_it  # noqa: F401


def test_a_former_command_still_runs():
    done = subprocess.run(
        [sys.executable, "-m", "layerprobe.analyses.contrastive_pairs", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert "BBQ" in done.stdout


def test_the_command_is_still_found_where_it_stood():
    with pytest.warns(DeprecationWarning, match="has moved"):
        from layerprobe.probe.cli import main
    assert callable(main)
