"""Probes with layers side by side on a device against the same call on the CPU's threads.

    python benchmarks/probes_device.py [--device cuda] [--layers 24] [--widths 1024 4096]

One `linear_probe` call over all layers of 2,000 rows (logistic and ridge, 5 folds, the default grid of
strengths), both sides warmed up, medians of several calls. The last column is the largest difference between
the two sides' scores of any row: it is the same minimum. Without a CUDA device there is nothing to compare.
"""

import argparse
import datetime
import statistics
import time
from typing import Any

import numpy as np
import torch
from _results import publish
from probes import layer

from layerprobe import from_arrays, linear_probe

LEAN: dict[str, Any] = {"groups": None, "n_permutations": 0, "n_bootstrap": 20, "baselines": False}


def model_store(layers: int, width: int, rows: int = 2000) -> Any:
    """A store with as many layers as asked for, each with its own rows and the decaying spectrum."""
    rng = np.random.default_rng(0)
    x, y, _ = layer(width, rows)
    mixed = [x + 0.3 * x.std() * rng.normal(size=x.shape) for _ in range(layers)]
    return from_arrays({"resid_post": np.stack(mixed).astype(np.float32)}, labels={"y": y})


def median_seconds(rounds: int, store: Any, method: str, device: str) -> tuple[float, Any]:
    """Wall-clock seconds of a call, and its result."""
    seconds = []
    for _ in range(rounds + 1):  # the first warms up
        start = time.perf_counter()
        result = linear_probe(store, label="y", method=method, device=device, **LEAN)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), result


def main() -> None:
    """Run and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("No CUDA device here: nothing to compare with the CPU.")
        return
    lines = [
        "| method | layers × rows × width | CPU threads, s | device, s | ratio | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for width in chosen.widths:
        store = model_store(chosen.layers, width)
        for method in ("logistic", "ridge"):
            on_cpu, one = median_seconds(1, store, method, "cpu")
            on_device, other = median_seconds(chosen.rounds, store, method, chosen.device)
            gap = np.abs(one.scores["score"] - other.scores["score"]).max()
            lines.append(
                f"| {method} | {chosen.layers} × 2000 × {width} | {on_cpu:.1f} | {on_device:.2f} "
                f"| {on_cpu / on_device:.1f}x | {gap:.1e} |"
            )
            print(lines[-1], flush=True)
    machine = torch.cuda.get_device_name()
    publish(
        "probes-device",
        [
            f"# Probes on a GPU, {datetime.date.today()}",
            "",
            f"One {machine}; CPU of the same machine.",
            "",
            *lines,
        ],
        device="gpu",
    )


if __name__ == "__main__":
    main()
