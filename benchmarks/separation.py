"""All separation indices in one pass, against scikit-learn's one by one.

    python benchmarks/separation.py                 # 20,000 rows of width 1,024, and the scaling curve
    python benchmarks/separation.py --rows 2000     # a quick look
    python benchmarks/separation.py --large         # 100,000 rows as well, ours alone

scikit-learn has no Dunn index; its `pairwise_distances_chunked`, which keeps memory bounded too, gives the
smallest distance between and the largest within. Both sides get the same float32 rows; ours re-evaluates the
extremes in float64. Sides take turns, each is warmed up on few rows, and the median is printed.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch
from _results import publish
from sklearn import metrics

from layerprobe.analyses.separation.indices import cluster_indices


def rows_of(n: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two overlapping clusters, float32."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    x = rng.standard_normal((n, width), dtype=np.float32)
    x[:, 0] += 3 * y
    return x, y


def sklearn_dunn(x: np.ndarray, y: np.ndarray) -> float:
    """Smallest distance between classes over the largest within, chunk by chunk."""

    def reduce(chunk: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
        same = y[start : start + len(chunk), None] == y[None, :]
        return np.where(same, np.inf, chunk).min(axis=1), np.where(same, chunk, 0).max(axis=1)

    found = list(metrics.pairwise_distances_chunked(x, reduce_func=reduce, working_memory=256))
    return float(min(low.min() for low, _ in found) / max(high.max() for _, high in found))


def with_sklearn(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The four indices that scikit-learn can give, by its own functions."""
    return {
        "silhouette": float(metrics.silhouette_score(x, y)),
        "davies_bouldin": float(metrics.davies_bouldin_score(x, y)),
        "calinski_harabasz": float(metrics.calinski_harabasz_score(x, y)),
        "dunn": sklearn_dunn(x, y),
    }


def timed(call: Callable[[], object]) -> float:
    """Processor seconds of one call on one thread, which do not count the turns of other programs."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peak_growth(n: int, width: int) -> float:
    """MiB that the pass adds at its peak to the rows themselves, in a fresh process."""
    code = (
        f"import sys, resource; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from separation import rows_of, cluster_indices\n"
        f"x, y = rows_of({n}, {width}); cluster_indices(x[:500], y[:500], precision='float32')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "cluster_indices(x, y, precision='float32')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print the table and keep it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="also 100,000 rows, ours alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"# Separation indices, {date.today().isoformat()}",
        "",
        f"{platform.machine()} CPU, processor seconds of one thread (the machine was shared), float32 rows, "
        "two clusters.",
        "",
        "| rows | width | ours, all five (s) | scikit-learn, four (s) | ratio | ours beyond the rows (MiB) |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    small = rows_of(1000, options.width)
    cluster_indices(*small), with_sklearn(*small)
    for n in sorted({options.rows // 8, options.rows // 4, options.rows // 2, options.rows}):
        x, y = rows_of(n, options.width)
        repeats = options.repeats if n <= 10_000 else 1
        ours, theirs = [], []
        for _ in range(repeats):
            ours.append(timed(lambda: cluster_indices(x, y, precision="float32")))  # noqa: B023
            theirs.append(timed(lambda: with_sklearn(x, y)))  # noqa: B023
        a, b = statistics.median(ours), statistics.median(theirs)
        beyond = peak_growth(n, options.width)
        lines.append(f"| {n:,} | {options.width} | {a:.2f} | {b:.2f} | {b / a:.1f} | {beyond:.0f} |")
        print(lines[-1], flush=True)
    mine, other = cluster_indices(x[:4000], y[:4000], precision="float32"), with_sklearn(x[:4000], y[:4000])
    worst = max(abs(mine[name] / other[name] - 1) for name in other)
    lines += ["", f"Largest relative difference between the two sides on 4,000 rows: {worst:.1e}."]
    if options.large:
        x, y = rows_of(100_000, options.width)
        seconds = timed(lambda: cluster_indices(x, y, precision="float32"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines += [
            "",
            f"100,000 rows, all five indices: {seconds:.0f} s on one thread, {peak:.1f} GiB at the peak of "
            "the process; a matrix of all distances would take 37 GiB.",
        ]
    publish("separation", lines)


if __name__ == "__main__":
    main()
