"""Memory stays bounded whatever the number of prompts and tokens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import tiny_model

SCRIPT = """
import random, re, sys, time
sys.path.insert(0, {tests!r})
from layerprobe import capture, load_model
from layerprobe.cache.prompts import PromptTable
import layerprobe.cache.capture.assembly as assembly
assembly.BLOCK_BYTES = {block}
rng = random.Random(0)
words = {words!r}
count = int(sys.argv[1])
texts = tuple(" ".join(rng.choices(words, k=rng.randint({low}, {high}))) for _ in range(count))
table = PromptTable(tuple(str(i) for i in range(count)), texts)
model = load_model({folder!r}, check=False)
store = capture(model, table, sites="resid_post", tokens={rule!r}, path=sys.argv[2])
assert store.complete
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(peak.group(1), store.n_rows)
"""
WORDS = ["the", "cat", "dog", "baker", "pilot", "was", "at", "park", "house", "late", "happy", "sad"]


def peak(path, count, *, folder, rule="last", low=4, high=10, block=1 << 20):
    """Peak resident memory in bytes of a capture in a process of its own, its rows, and what it said."""
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
    return int(kilobytes) * 1024, int(rows), done.stderr


@pytest.mark.soak
def test_a_hundred_times_the_prompts_take_the_same_memory(tmp_path):
    folder = tiny_model("llama")
    few, _, _ = peak(tmp_path / "few.h5", 1_000, folder=folder)
    many, rows, _ = peak(tmp_path / "many.h5", 100_000, folder=folder)
    print(f"1,000 prompts: {few / 1e6:.0f} MB; 100,000 prompts: {many / 1e6:.0f} MB")
    assert rows == 100_000
    assert many / few < 1.10


def seconds(clock):
    """Seconds of tqdm's `mm:ss` or `h:mm:ss`."""
    return sum(int(part) * 60**power for power, part in enumerate(reversed(clock.split(":"))))


@pytest.mark.soak
def test_a_million_tokens_of_a_real_model_in_bounded_memory(stories, tmp_path):
    few, rows, _ = peak(tmp_path / "few.h5", 500, folder=stories, rule="all", low=20, high=60)
    many, all_rows, said = peak(tmp_path / "many.h5", 12_000, folder=stories, rule="all", low=20, high=60)
    bars = re.findall(r"(\d+)%\|[^|]*\| *([\d.]+)([kM]?)/([\d.]+)([kM]) \[([\d:]+)<", said)
    (estimate,) = re.findall(r"about ([\d.]+) (s|min), by a measured batch", said)
    foretold = float(estimate[0]) * (60 if estimate[1] == "min" else 1)
    took = seconds(bars[-1][5])
    print(f"{rows:,} tokens: {few / 1e6:.0f} MB; {all_rows:,} tokens: {many / 1e6:.0f} MB, {took} s")
    print(f"foretold {foretold:.0f} s; half of the bar after {half_time(bars) / took:.0%} of the time")
    assert all_rows > 1_000_000
    assert many / few < 1.25
    assert bars[-1][0] == "100"
    assert 0.3 < half_time(bars) / took < 0.7
    assert 1 / 3 < foretold / took < 3


def half_time(bars):
    """Seconds at which the bar stood at half."""
    return next(seconds(bar[5]) for bar in bars if int(bar[0]) >= 50)
