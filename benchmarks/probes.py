"""Linear probes against scikit-learn: the same objective, both sides warmed up, interleaved, medians.

    python benchmarks/probes.py            # prints tables, writes benchmarks/results/probes-<date>-cpu.md

One layer of 2,000 rows is timed on one thread; a model of 24 layers costs 24 times that, spread over cores.
Both sides minimise the same objective; the last column of the first table says how far above the lower of
the two each one stopped (scikit-learn's solver at tol=1e-7).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datetime
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from layerprobe.analyses.layer_threads import one_blas_thread
from layerprobe.analyses.linear_probe_methods import METHODS
from layerprobe.analyses.linear_probe_problem import Problem
from layerprobe.analyses.metrics import auroc
from layerprobe.analyses.solvers.ridge import decompose, leave_out_predictions

N, FOLDS = 2000, 5
STRENGTHS = np.logspace(-5, 0, 10)


def layer(width: int, rows: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a decaying spectrum, as residual streams have, a noisy label, and folds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width)) * (np.arange(1, width + 1) ** -0.5)
    x = x / x.std() + rng.normal(size=width)
    y = ((x - x.mean(0))[:, :20].sum(1) / 4 + rng.normal(size=rows) > 0).astype(int)
    return x, y, np.arange(rows) % FOLDS


def masks_of(fold: np.ndarray) -> np.ndarray:
    """[rows, folds] 1 for rows a fold's fit sees."""
    return (fold[:, None] != np.arange(FOLDS)).astype(float)


def ours(x: np.ndarray, y: np.ndarray, fold: np.ndarray, tol: float) -> np.ndarray:
    """[folds, strengths, width] all at once."""
    return METHODS["logistic_unscaled"].fit(Problem(x, y, 2, masks_of(fold), tol), STRENGTHS)


def theirs(x: np.ndarray, y: np.ndarray, fold: np.ndarray, tol: float, cells: list[tuple[int, int]]) -> list:
    """scikit-learn, one fit per fold and C, warm-started along C within a fold as its users do."""
    fits, model = [], None
    for f, c in cells:
        if c == 0:
            model = LogisticRegression(tol=tol, max_iter=5000, warm_start=True)
        assert model is not None
        seen = fold != f
        model.set_params(C=STRENGTHS[c]).fit(x[seen], y[seen])
        fits.append((model.coef_[0].copy(), float(model.intercept_[0])))
    return fits


def objective(x: np.ndarray, y: np.ndarray, w: np.ndarray, b: float, c: float) -> float:
    """scikit-learn's objective over C."""
    z = x @ w + b
    return float(np.logaddexp(0, np.where(y == 1, -z, z)).sum() + w @ w / (2 * c))


def timed(work, *args):
    """Seconds of processor time, and result."""
    start = time.process_time()  # both sides run on one thread; other users of the machine do not count
    result = work(*args)
    return time.process_time() - start, result


def logistic_rows(widths: list[int], repeats: int) -> list[str]:
    """Table of the logistic grid."""
    lines = [
        "| rows × width | ours, s | scikit-learn, s | ratio | worst objective excess ours / theirs |",
        "|---|---|---|---|---|",
    ]
    for width in widths:
        x, y, fold = layer(width)
        folds = range(FOLDS) if width <= 1024 else range(1)  # the slow side: one fold of five, times five
        cells = [(f, c) for f in folds for c in range(len(STRENGTHS))]
        spent: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(repeats):
            seconds, fits = timed(ours, x, y, fold, 1e-6)
            spent["ours"].append(seconds)
            seconds, reference = timed(theirs, x, y, fold, 1e-7, cells)
            spent["theirs"].append(seconds * FOLDS / len(folds))
        excess = [0.0, 0.0]
        for (f, c), (w, b) in zip(cells, reference, strict=True):
            seen = fold != f
            a = objective(x[seen], y[seen], fits.weight[f, c], float(fits.bias[f, c]), STRENGTHS[c])
            s = objective(x[seen], y[seen], w, b, STRENGTHS[c])
            best = min(a, s)
            excess = [max(excess[0], (a - best) / best), max(excess[1], (s - best) / best)]
        a, s = statistics.median(spent["ours"]), statistics.median(spent["theirs"])
        lines.append(
            f"| {N} × {width} | {a:.2f} | {s:.2f} | {s / a:.1f}x | {excess[0]:.1e} / {excess[1]:.1e} |"
        )
        print(lines[-1], flush=True)
    return lines


def fold_scores(y: np.ndarray, scores: np.ndarray, fold: np.ndarray) -> float:
    """Mean AUROC over folds."""
    return float(np.mean([auroc(y[fold == f], scores[fold == f])[0] for f in range(FOLDS)]))


def our_null(x: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Fold-wise AUROC of refitted ridge probes under every relabelling; labels [rows, relabellings]."""
    predicted = leave_out_predictions(decompose(x), 2.0 * labels - 1, [10.0], fold=fold)[0]
    null = torch.zeros(labels.shape[1], dtype=torch.float64)
    truth = torch.from_numpy(labels).double()
    for f in range(FOLDS):
        mine = torch.from_numpy(np.flatnonzero(fold == f))
        ranks = predicted[mine].argsort(0).argsort(0).double() + 1
        positive = truth[mine]
        n = positive.sum(0)
        null += ((ranks * positive).sum(0) - n * (n + 1) / 2) / (n * (len(mine) - n)) / FOLDS
    return null.numpy()


def their_null(x: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The same by refitting scikit-learn's Ridge per fold and relabelling."""
    null = []
    for y in labels.T:
        scores = np.empty(len(y))
        for f in range(FOLDS):
            seen = fold != f
            scores[~seen] = Ridge(alpha=10.0).fit(x[seen], 2.0 * y[seen] - 1).predict(x[~seen])
        null.append(fold_scores(y, scores, fold))
    return np.array(null)


def permutation_rows(widths: list[int], count: int = 1000, by_hand: int = 5) -> list[str]:
    """Table of the refitted permutation null."""
    lines = [
        f"| rows × width | ours, {count} relabellings, s | scikit-learn, s ({by_hand} × "
        f"{count // by_hand}) | ratio "
        "| largest difference |",
        "|---|---|---|---|---|",
    ]
    rng = np.random.default_rng(1)
    for width in widths:
        x, y, fold = layer(width)
        labels = np.stack([rng.permutation(y) for _ in range(count)], axis=1)
        seconds, null = timed(our_null, x, labels, fold)
        slow, reference = timed(their_null, x, labels[:, :by_hand], fold)
        slow *= count / by_hand
        gap = np.abs(null[:by_hand] - reference).max()
        lines.append(f"| {N} × {width} | {seconds:.2f} | {slow:.0f} | {slow / seconds:.0f}x | {gap:.1e} |")
        print(lines[-1], flush=True)
    return lines


def scaling_rows() -> list[str]:
    """How the logistic grid's cost grows."""
    lines = ["| rows | width | strengths × folds | s |", "|---|---|---|---|"]
    for rows, width in ((500, 256), (1000, 256), (2000, 256), (4000, 256), (2000, 64), (2000, 512)):
        x, y, fold = layer(width, rows)
        seconds = statistics.median(timed(ours, x, y, fold, 1e-6)[0] for _ in range(3))
        lines.append(f"| {rows} | {width} | {len(STRENGTHS)} × {FOLDS} | {seconds:.3f} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run everything and write the page."""
    with one_blas_thread():
        ours(*layer(64), 1e-6), theirs(*layer(64), 1e-4, [(0, 0)])  # warm up both sides
        scaling = scaling_rows()
        permutations = permutation_rows([1024, 4096])
        logistic = logistic_rows([256], 3) + logistic_rows([1024], 1)[2:] + logistic_rows([4096], 1)[2:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    today = datetime.date.today().isoformat()
    page = [
        f"# Probes against scikit-learn, {today}",
        "",
        "2-core Xeon, CPU, processor seconds, one thread on both sides; the ratios are what to read. One "
        "layer each; "
        "24 layers cost 24 times as much, divided by the cores they are spread over.",
        "",
        f"## Logistic, {FOLDS} folds × {len(STRENGTHS)} C (width 4096: scikit-learn timed on one fold, "
        "times five)",
        "",
        *logistic,
        "",
        "## Permutation null with every relabelling refitted (ridge, 5 folds)",
        "",
        *permutations,
        "",
        "## How cost grows (ours)",
        "",
        *scaling,
        "",
        f"Peak memory of the whole run: {peak:.1f} GiB.",
    ]
    out = Path(__file__).parent / "results" / f"probes-{today}-cpu.md"
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(page) + "\n")
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
