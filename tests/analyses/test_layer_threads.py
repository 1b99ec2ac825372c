"""As many layers at a time as memory has room for."""

import pytest

from layerprobe.analyses.reading import threads as layer_threads
from layerprobe.analyses.reading.threads import free_memory, threads_within_memory


def test_free_memory_is_that_of_the_machine_or_of_a_tighter_container(tmp_path, monkeypatch):
    whole = free_memory()
    assert whole is None or whole > 0
    monkeypatch.setattr(layer_threads, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100000\n")
    assert free_memory() == 400_000
    (tmp_path / "memory.max").write_text("max\n")  # no limit of its own
    assert free_memory() == pytest.approx(whole, rel=0.5) if whole else free_memory() is None


@pytest.mark.parametrize("free, threads", [(None, 8), (10_000, 8), (500, 4), (50, 1)])
def test_large_layers_take_turns(free, threads, monkeypatch):
    monkeypatch.setattr(layer_threads, "usable_cores", lambda: 8)
    monkeypatch.setattr(layer_threads, "free_memory", lambda: free)
    assert threads_within_memory(100) == threads
