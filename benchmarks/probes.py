"""Linear probes against scikit-learn: the same objective, both sides warmed up, interleaved, medians.

    python benchmarks/probes.py            # prints tables, writes benchmarks/results/probes-<date>-cpu.md
    python benchmarks/probes.py --only scaling calls                     # some tables: prints only

One layer of 2,000 rows is timed on one thread, and many layers for us. The grid of C is that of
`linear_probe`. Rows come with two spectra: *decaying* has the eigenvalues (k^-1.2, standardised) that
MiniLM's and stories260K's layers have, along random directions; *flat* has independent features, which no
model has and on which gradient methods do best. Both sides minimise the same objective, each at the loosest
of its tolerances at which it stops within 1e-6 (relative) of the minimum for every C, ours on all folds,
scikit-learn (for the time that takes) on the first; the last column says how far above the lower of the two
each one stopped on all folds.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import datetime
import resource
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import torch
from _results import publish
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from layerprobe import from_arrays, linear_probe
from layerprobe.analyses.probes.methods import METHODS
from layerprobe.analyses.probes.problem import Fits, Problem
from layerprobe.analyses.reading.threads import one_blas_thread
from layerprobe.analyses.solvers.ridge import decompose, leave_out_predictions
from layerprobe.analyses.statistics.metrics import auroc

N, FOLDS = 2000, 5
STRENGTHS = METHODS["logistic"].strengths


def layer(
    width: int, rows: int = N, seed: int = 0, spectrum: str = "decaying"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a decaying spectrum, as residual streams have, or a flat one; a noisy label; folds."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(rows, width))
    y = (factors[:, :20].sum(1) / 4 + rng.normal(size=rows) > 0).astype(int)
    x = factors
    if spectrum == "decaying":
        x = factors * np.arange(1, width + 1) ** -0.6 @ np.linalg.qr(rng.normal(size=(width, width)))[0]
    return x / x.std() + rng.normal(size=width), y, np.arange(rows) % FOLDS


def masks_of(fold: np.ndarray) -> np.ndarray:
    """[rows, folds] 1 for rows a fold's fit sees."""
    return (fold[:, None] != np.arange(FOLDS)).astype(float)


def ours(x: np.ndarray, y: np.ndarray, fold: np.ndarray, method: str = "logistic", tol: float = 1e-6) -> Fits:
    """[folds, strengths, width] all at once; the tolerance is that of `linear_probe` unless given."""
    return METHODS[method].fit(Problem(x, y, 2, masks_of(fold), tol), STRENGTHS)


def seen_rows(x: np.ndarray, fold: np.ndarray, f: int, method: str) -> np.ndarray:
    """Rows that one fold's fit sees, scaled by themselves where the method scales."""
    rows = x[fold != f]
    return StandardScaler().fit_transform(rows) if method == "logistic" else rows


def theirs(x: np.ndarray, y: np.ndarray, fold: np.ndarray, method: str, tol: float, folds: range) -> list:
    """scikit-learn, one fit per fold and C, warm-started along C within a fold as its users do."""
    fits = []
    for f in folds:
        model = LogisticRegression(tol=tol, max_iter=20000, warm_start=True)
        rows = seen_rows(x, fold, f, method)
        for c in STRENGTHS:
            model.set_params(C=c).fit(rows, y[fold != f])
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


def reached(x, y, fold, method, fits: Fits | list, folds: range) -> np.ndarray:
    """[folds, strengths] objectives where one side stopped."""
    values = np.empty((len(folds), len(STRENGTHS)))
    for row, f in enumerate(folds):
        z, truth, raw = seen_rows(x, fold, f, method), y[fold != f], x[fold != f]
        scale = raw.std(axis=0) if method == "logistic" else np.ones(x.shape[1])
        middle = raw.mean(axis=0) if method == "logistic" else np.zeros(x.shape[1])
        for c, strength in enumerate(STRENGTHS):
            if isinstance(fits, Fits):
                weight = fits.weight[f, c]
                w, b = weight * scale, float(fits.bias[f, c] + weight @ middle)
            else:
                w, b = fits[row * len(STRENGTHS) + c]
            values[row, c] = objective(z, truth, w, b, strength)
    return values


def fair_tolerances(x, y, fold, method) -> tuple[float, float]:
    """The loosest tolerance at which each side is within 1e-6 (relative) of the minimum: ours on all folds,
    theirs on the first."""
    one, every = range(1), range(FOLDS)
    best = reached(x, y, fold, method, ours(x, y, fold, method, 1e-10), every)
    found = []
    for work, tolerances, folds in (
        (lambda tol: ours(x, y, fold, method, tol), (1e-6, 1e-7, 1e-8, 1e-9), every),
        (lambda tol: theirs(x, y, fold, method, tol, one), (1e-4, 1e-5, 1e-6, 1e-7, 1e-8), one),
    ):
        for tol in tolerances:
            if (reached(x, y, fold, method, work(tol), folds) <= best[folds] * (1 + 1e-6)).all():
                break
        found.append(tol)
    return found[0], found[1]


def logistic_rows() -> list[str]:
    """Table of the logistic grid. Theirs is timed on all folds for `logistic`, on one (× 5) for the other."""
    lines = [
        "| rows × width | spectrum | method | ours, s | scikit-learn, s | ratio | tolerances "
        "| worst excess ours / theirs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cases = [(w, s, "logistic") for w in (1024, 4096) for s in ("decaying", "flat")]
    for width, spectrum, method in [*cases, (1024, "decaying", "logistic_unscaled")]:
        x, y, fold = layer(width, spectrum=spectrum)
        our_tol, their_tol = fair_tolerances(x, y, fold, method)
        folds = range(FOLDS if method == "logistic" else 1)
        first, _ = timed(ours, x, y, fold, method, our_tol)
        theirs_s, reference = timed(theirs, x, y, fold, method, their_tol, folds)
        second, fits = timed(ours, x, y, fold, method, our_tol)
        a, s = (first + second) / 2, theirs_s * FOLDS / len(folds)
        mine, other = (reached(x, y, fold, method, side, folds) for side in (fits, reference))
        best = np.minimum(mine, other)
        lines.append(
            f"| {N} × {width} | {spectrum} | {method} | {a:.2f} | {s:.2f} | {s / a:.1f}x "
            f"| {our_tol:.0e} / {their_tol:.0e} "
            f"| {(mine / best - 1).max():.1e} / {(other / best - 1).max():.1e} |"
        )
        print(lines[-1], flush=True)
    return lines


def probe_all(stack: np.ndarray, y: np.ndarray, fold: np.ndarray) -> None:
    """The default's grid at every layer, kept in float32 until its turn."""
    for one in stack:
        ours(one.astype(np.float64), y, fold, "logistic")


def whole_model_rows() -> list[str]:
    """Ours over as many layers as a model has, one after another, and the memory that takes."""
    lines = ["| layers × rows × width | s | peak memory, GiB | of it the layers, GiB |", "|---|---|---|---|"]
    for layers, width in ((24, 1024), (24, 4096)):
        x, y, fold = layer(width)
        stack = np.stack([x.astype(np.float32)] * layers)
        seconds, _ = timed(probe_all, stack, y, fold)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        lines.append(
            f"| {layers} × {N} × {width} | {seconds:.1f} | {peak:.2f} | {stack.nbytes / 2**30:.2f} |"
        )
        print(lines[-1], flush=True)
    return lines


def fold_scores(y: np.ndarray, scores: np.ndarray, fold: np.ndarray) -> float:
    """Mean AUROC over folds."""
    return float(np.mean([auroc(y[fold == f], scores[fold == f])[0] for f in range(FOLDS)]))


def our_null(x: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Fold-wise AUROC of refitted ridge probes under every relabelling; labels [rows, relabellings]."""
    targets = torch.from_numpy(2.0 * labels - 1)
    predicted = leave_out_predictions(decompose(x), targets, [10.0], fold=fold)[0]
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
    for rows, width in (
        (500, 256),
        (1000, 256),
        (2000, 256),
        (4000, 256),
        (2000, 64),
        (2000, 512),
        (2000, 2048),
    ):
        x, y, fold = layer(width, rows)
        seconds = statistics.median(timed(ours, x, y, fold, "logistic")[0] for _ in range(3))
        lines.append(f"| {rows} | {width} | {len(STRENGTHS)} × {FOLDS} | {seconds:.3f} |")
        print(lines[-1], flush=True)
    return lines


def call_rows() -> list[str]:
    """Cost of a whole `linear_probe` call as layers and targets grow."""
    lines = ["| layers | targets | s |", "|---|---|---|"]
    x, y, _ = layer(256, 1000)
    rng = np.random.default_rng(2)
    names = [f"t{i}" for i in range(4)]
    labels = {name: np.where(rng.random(len(y)) < 0.1 * i, 1 - y, y) for i, name in enumerate(names)}
    store = from_arrays({"resid_post": np.stack([x] * 8).astype(np.float32)}, labels=labels)
    options: dict[str, Any] = {"groups": None, "n_permutations": 1000, "n_bootstrap": 1000, "threads": 1}
    linear_probe(store, label=names[0], layers=[0], **options)
    for layers, targets in ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (4, 4)):
        work = partial(linear_probe, store, label=names[:targets], layers=list(range(layers)), **options)
        lines.append(f"| {layers} | {targets} | {timed(work)[0]:.2f} |")
        print(lines[-1], flush=True)
    return lines


#: what can be asked for alone, in the order in which it runs
TABLES = {
    "scaling": scaling_rows,
    "calls": call_rows,
    "model": whole_model_rows,
    "permutations": partial(permutation_rows, [1024, 4096]),
    "logistic": logistic_rows,
}


def main() -> None:
    """Run everything and write the page, or some tables and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(TABLES), help="tables to make (default: all)")
    only = parser.parse_args().only
    with one_blas_thread():
        x, y, fold = layer(64)
        ours(x, y, fold), theirs(x, y, fold, "logistic", 1e-4, range(1))  # warm up both sides
        made = {name: make() for name, make in TABLES.items() if not only or name in only}
    if only:
        for name, lines in made.items():
            print(f"\n## {name}", *lines, sep="\n")
        return
    scaling, calls, model, permutations, logistic = (made[name] for name in TABLES)
    today = datetime.date.today().isoformat()
    page = [
        f"# Probes against scikit-learn, {today}",
        "",
        "2-core Xeon, CPU, processor seconds, one thread on both sides; the ratios are what to read. One "
        "layer each; more layers are spread over the cores.",
        "",
        f"## Logistic, {FOLDS} folds × {len(STRENGTHS)} C",
        "",
        "`logistic` is the default and scales inside each fold (scikit-learn: StandardScaler, then "
        "LogisticRegression, warm-started along C). Each side has the loosest of its own tolerances that "
        "comes within 1e-6 of the minimum for every C, ours on all folds, scikit-learn on the first; "
        "searching for it is not timed. "
        "*Decaying*: eigenvalues as in trained models (k^-1.2); *flat*: independent features, the easiest "
        "case for a gradient method, which activations never are.",
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
        "A whole `linear_probe` call on 1,000 rows × 256 with baselines, 1,000 draws and 1,000 relabellings:",
        "",
        *calls,
        "",
        "`logistic` over several layers on one thread, one after another, and the process's peak memory, "
        "data included:",
        "",
        *model,
    ]
    publish("probes", page)


if __name__ == "__main__":
    main()
