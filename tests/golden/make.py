"""Writes the golden file of the current format version: `python tests/golden/make.py`. Never overwrite an
old one.

Everything in it follows from a formula, so that a test can say what any release must read back.
"""

from pathlib import Path

import numpy as np

from layerprobe.cache.file.batch_plan import make_plan
from layerprobe.cache.file.creation import Contents
from layerprobe.cache.file.layout import VERSION, ArraySpec
from layerprobe.cache.file.writer import StoreWriter
from layerprobe.cache.prompts.columns import PromptColumns, as_column

FOLDER = Path(__file__).parent
LENGTHS = np.array([3, 1, 4, 1, 5])
TEXTS = ["a b c", "é", "d e f g", "é", "naïve 字 x y z"]
LAYERS, WIDTH, HEADS = (0, 2), 4, (2, 3)
LENS_LAYERS, COLUMNS, VARIANTS, TOP = (0, 1, 2), 2, 2, 3


def values(key: str, layers: int, rows: int, shape: tuple[int, ...]) -> np.ndarray:
    """Small numbers, exact in every stored type, different at every place and in every array."""
    count = layers * rows * int(np.prod(shape))
    salt = sum(key.encode()) % 17
    return ((np.arange(count) * 7 + salt) % 64 - 32).reshape(layers, rows, *shape) / 4


def specs(dtype: str) -> tuple[ArraySpec, ...]:
    """Sites with and without layers, heads, and a lens."""
    return (
        ArraySpec("activations/embed", None, (WIDTH,), dtype),
        ArraySpec("activations/head_out", LAYERS, HEADS, dtype),
        ArraySpec("activations/resid_post", LAYERS, (WIDTH,), dtype),
        ArraySpec("lens/candidate_logits", LENS_LAYERS, (COLUMNS, VARIANTS), "float32"),
        ArraySpec("lens/candidate_ranks", LENS_LAYERS, (COLUMNS, VARIANTS), "int32"),
        ArraySpec("lens/kl_to_final", LENS_LAYERS, (), "float32"),
        ArraySpec("lens/logsumexp", LENS_LAYERS, (), "float32"),
        ArraySpec("lens/top_ids", LENS_LAYERS, (TOP,), "int32"),
        ArraySpec("lens/top_logits", LENS_LAYERS, (TOP,), "float32"),
    )


def contents(dtype: str) -> Contents:
    """Five prompts, the fourth a copy of the second, all tokens kept: fourteen rows in several blocks."""
    examples = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    arrays = specs(dtype)
    header = {
        "model_name": "golden-model",
        "dataset_name": "golden-prompts",
        "dtype": dtype,
        "tokens": "all",
        "lens_tokens": ["answer", "foil"],
        "labels": ["answer", "flag", "foil", "score", "a/b"],
        "spans": ["subject"],
        "identity": {"tokens": "all", "dtype": dtype},
        "provenance": {"model": {"source": "golden"}, "prompts_source": "golden.jsonl"},
        "arrays": [
            {
                "key": spec.key,
                "layers": None if spec.layers is None else list(spec.layers),
                "shape": list(spec.shape),
                "dtype": spec.dtype,
            }
            for spec in arrays
        ],
    }
    columns = PromptColumns(
        ids=as_column(["p0", "p1", "p2", "p3", "p4"]),
        labels={
            "answer": as_column(["yes", "no", None, "no", "字"]),
            "flag": np.array([True, False, True, False, True]),
            "foil": as_column(["no", "yes", "yes", "yes", "no"]),
            "score": np.array([0.5, -1.0, np.nan, 2.0, 3.0]),
            "a/b": np.arange(5),
        },
        groups=as_column(["g", "h", "g", "h", "i"]),
        pairs=as_column([1, 1, 2, 2, 3]),
        splits=None,
        spans={"subject": np.array([[0, 1], [-1, -1], [2, 3], [-1, -1], [0, 5]])},
        texts=TEXTS,
        token_ids=np.arange(len(examples), dtype=np.int32) + 100,
        token_starts=starts.astype(np.int64),
    )
    identical = np.array([0, 1, 2, 1, 4])
    plan = make_plan(LENGTHS, LENGTHS, identical, batch_tokens=8, block_rows=6, row_bytes=1 << 20)
    return Contents(
        header=header,
        volatile={"created": "2026-01-01T00:00:00+00:00", "versions": {"layerprobe": "golden"}},
        columns=columns,
        examples=examples.astype(np.int64),
        positions=np.concatenate([np.arange(length) for length in LENGTHS]).astype(np.int64),
        plan=plan,
        arrays=arrays,
        candidate_ids=(np.arange(len(examples) * 4, dtype=np.int32) % 9 - 1).reshape(-1, 2, 2),
    )


def stored(spec: ArraySpec, rows: int) -> np.ndarray:
    """The values of one array in its stored type."""
    numbers = values(spec.key, spec.n_layers, rows, spec.shape)
    if spec.dtype == "bfloat16":
        return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(spec.storage)


def write(path: Path, dtype: str) -> None:
    """Write a whole store."""
    what = contents(dtype)
    with StoreWriter.create(path, what) as writer:
        for block in range(what.plan.n_blocks):
            rows = np.concatenate([np.arange(a, b) for a, b in what.plan.runs_of(block)])
            buffers = {spec.key: stored(spec, len(what.examples))[:, rows] for spec in what.arrays}
            writer.write(block, buffers)


if __name__ == "__main__":
    for kind in ("bfloat16", "float32"):
        target = FOLDER / f"store-{VERSION}-{kind}.h5"
        if target.exists():
            raise SystemExit(f"{target} exists: a golden file is never written again")
        write(target, kind)
        print(target, target.stat().st_size)
