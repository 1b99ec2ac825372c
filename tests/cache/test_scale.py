"""Memory stays bounded whatever the number of prompts and tokens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_model

SCRIPT = """
import random, re, sys
sys.path.insert(0, {tests!r})
from layerprobe import capture, load_model
from layerprobe.cache.prompts import PromptTable
import layerprobe.cache.assembly as assembly
assembly.BLOCK_BYTES = {block}
rng = random.Random(0)
words = {words!r}
count = int(sys.argv[1])
texts = tuple(" ".join(rng.choices(words, k=rng.randint({low}, {high}))) for _ in range(count))
table = PromptTable(tuple(str(i) for i in range(count)), texts)
model = load_model({folder!r}, check=False)
store = capture(model, table, sites="resid_post", tokens={rule!r}, path=sys.argv[2], progress=False)
assert store.complete
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(peak.group(1), store.n_rows)
"""
WORDS = ["the", "cat", "dog", "baker", "pilot", "was", "at", "park", "house", "late", "happy", "sad"]


def peak(path, count, *, folder, rule="last", low=4, high=10, block=1 << 20):
    """Peak resident memory in bytes of a capture in a process of its own, and its rows."""
    tests = str(Path(__file__).parents[1])
    values = {"tests": tests, "block": block, "words": WORDS, "low": low, "high": high}
    code = SCRIPT.format(**values, folder=str(folder), rule=rule)
    done = subprocess.run(
        [sys.executable, "-c", code, str(count), str(path)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=True,
    )
    kilobytes, rows = done.stdout.split()
    return int(kilobytes) * 1024, int(rows)


@pytest.mark.soak
def test_a_hundred_times_the_prompts_take_the_same_memory(tmp_path):
    folder = tiny_model("llama")
    few, _ = peak(tmp_path / "few.h5", 1_000, folder=folder)
    many, rows = peak(tmp_path / "many.h5", 100_000, folder=folder)
    print(f"1,000 prompts: {few / 1e6:.0f} MB; 100,000 prompts: {many / 1e6:.0f} MB")
    assert rows == 100_000
    assert many / few < 1.10


@pytest.mark.soak
def test_a_million_tokens_of_a_real_model_in_bounded_memory(stories, tmp_path):
    few, rows = peak(tmp_path / "few.h5", 500, folder=stories, rule="all", low=20, high=60)
    many, all_rows = peak(tmp_path / "many.h5", 11_000, folder=stories, rule="all", low=20, high=60)
    print(f"{rows:,} tokens: {few / 1e6:.0f} MB; {all_rows:,} tokens: {many / 1e6:.0f} MB")
    assert all_rows > 1_000_000
    assert many / few < 1.25
