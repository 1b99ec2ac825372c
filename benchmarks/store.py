"""Bytes to disk and back: the store against raw writes, np.memmap, and the ways in which people store
activations.

    python benchmarks/store.py [--megabytes 400] [--repeats 5]

Every writer gets the same blocks of rows and syncs once per block. Prints a table and writes it to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from layerprobe.cache.batches import make_plan
from layerprobe.cache.columns import PromptColumns, as_column
from layerprobe.cache.creation import Contents
from layerprobe.cache.layout import ArraySpec
from layerprobe.cache.store import open_store
from layerprobe.cache.writer import StoreWriter

LAYERS, WIDTH, BLOCK = 24, 1024, 1024


def blocks(rows: int) -> list[np.ndarray]:
    """Blocks [layers, rows of the block, width] in float16."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((LAYERS, BLOCK, WIDTH), dtype=np.float32).astype(np.float16)
    return [np.roll(block, shift, axis=0) for shift in range(rows // BLOCK)]


def raw(folder: Path, data: list[np.ndarray]) -> None:
    """One file, sequential writes, a sync per block."""
    with (folder / "raw.bin").open("wb", buffering=0) as file:
        for block in data:
            for layer in block:
                file.write(memoryview(layer).cast("B"))
            os.fdatasync(file.fileno())


def raw_allocated(folder: Path, data: list[np.ndarray]) -> None:
    """The same with the file's blocks allocated first, as the store has them: a sync changes no metadata."""
    with (folder / "raw.bin").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, sum(block.nbytes for block in data))
        for block in data:
            for layer in block:
                file.write(memoryview(layer).cast("B"))
            os.fdatasync(file.fileno())


def store(folder: Path, data: list[np.ndarray]) -> None:
    """The store with everything it does: checksums, running statistics, journal."""
    rows = len(data) * BLOCK
    ones = np.ones(rows, dtype=np.int64)
    plan = make_plan(ones, ones, np.arange(rows), batch_tokens=BLOCK, block_rows=BLOCK, row_bytes=WIDTH * 2)
    spec = ArraySpec("activations/resid_post", tuple(range(LAYERS)), (WIDTH,), "float16")
    header = {
        "model_name": "m", "dataset_name": "d", "dtype": "float16", "tokens": "last", "lens_tokens": [],
        "labels": [], "spans": [], "identity": {}, "provenance": {},
        "arrays": [{"key": spec.key, "layers": list(range(LAYERS)), "shape": [WIDTH], "dtype": "float16"}],
    }  # fmt: skip
    columns = PromptColumns(
        as_column([str(row) for row in range(rows)]),
        texts=[""] * rows,
        token_ids=np.zeros(rows, dtype=np.int32),
        token_starts=np.arange(rows + 1),
    )
    contents = Contents(header, {}, columns, np.arange(rows), np.zeros(rows, dtype=np.int64), plan, (spec,))
    with StoreWriter.create(folder / "store.h5", contents) as writer:
        for index, block in enumerate(data):
            writer.write(index, {spec.key: block})


def store_without_statistics(folder: Path, data: list[np.ndarray]) -> None:
    """The path of the bytes alone: checksums and journal, no running statistics."""
    take_in = StoreWriter._take_in
    StoreWriter._take_in = lambda self, buffers: None  # type: ignore[method-assign]
    try:
        store(folder, data)
    finally:
        StoreWriter._take_in = take_in  # type: ignore[method-assign]


def chunked(folder: Path, data: list[np.ndarray]) -> None:
    """h5py's automatic chunks, `dset[:, i:j] = x`."""
    with h5py.File(folder / "chunked.h5", "w") as file:
        shape = (LAYERS, len(data) * BLOCK, WIDTH)
        dataset = file.create_dataset("x", shape, dtype="f2", chunks=True)
        for index, block in enumerate(data):
            dataset[:, index * BLOCK : (index + 1) * BLOCK] = block
            file.flush()
            os.fsync(file.id.get_vfd_handle())


def safetensors(folder: Path, data: list[np.ndarray]) -> None:
    """One safetensors file per block."""
    from safetensors.numpy import save_file

    for index, block in enumerate(data):
        path = folder / f"block-{index}.safetensors"
        save_file({"x": block}, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def parquet(folder: Path, data: list[np.ndarray]) -> None:
    """One Parquet file per block, one fixed-size-list column per layer, uncompressed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for index, block in enumerate(data):
        path = folder / f"block-{index}.parquet"
        columns = {
            f"layer_{layer}": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), WIDTH)
            for layer, rows in enumerate(block)
        }
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def zarr(folder: Path, data: list[np.ndarray]) -> None:
    """Zarr, one uncompressed chunk per layer and block."""
    import zarr as library

    array = library.create_array(
        folder / "x.zarr",
        shape=(LAYERS, len(data) * BLOCK, WIDTH),
        chunks=(1, BLOCK, WIDTH),
        dtype="f2",
        compressors=None,
    )
    for index, block in enumerate(data):
        array[:, index * BLOCK : (index + 1) * BLOCK] = block
        os.sync()


WRITERS = (raw, raw_allocated, store, store_without_statistics, chunked, safetensors, parquet, zarr)


def time_writers(data: list[np.ndarray], repeats: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """(wall seconds, processor seconds) of every writer, interleaved, after one warm-up round."""
    times: dict[str, list[tuple[float, float]]] = {writer.__name__: [] for writer in WRITERS}
    rng = random.Random(0)
    for round_number in range(repeats + 1):
        # in random order: a writer inherits the pages that the one before it has freed, warm or cold
        for writer in rng.sample(WRITERS, len(WRITERS)):
            place = Path(tempfile.mkdtemp(dir=folder))
            os.sync()  # what the one before left behind is not paid for by the next
            start, busy = time.perf_counter(), time.process_time()
            try:
                writer(place, data)
            except ImportError:
                times.pop(writer.__name__, None)
                continue
            finally:
                seconds = time.perf_counter() - start, time.process_time() - busy
                shutil.rmtree(place)
            if round_number:
                times[writer.__name__].append(seconds)
    return times


def time_readers(data: list[np.ndarray], repeats: int, folder: Path) -> dict[str, list[float]]:
    """Seconds to sum one layer: opened once, mapped; the file is in the page cache for all."""
    store(folder, data)
    rows = len(data) * BLOCK
    opened = open_store(folder / "store.h5")
    np.concatenate(data, axis=1).tofile(folder / "raw.bin")
    plain = np.memmap(folder / "raw.bin", np.float16, "r", shape=(LAYERS, rows, WIDTH))
    readers = {
        "np.memmap": lambda layer: np.array(plain[layer]),
        "store": lambda layer: np.array(opened.activations("resid_post", layer)),
    }
    times: dict[str, list[float]] = {name: [] for name in readers}
    for round_number in range(repeats + 1):
        for layer in range(LAYERS):
            for name, read in readers.items():
                start = time.perf_counter()
                read(layer)
                if round_number:
                    times[name].append(time.perf_counter() - start)
    return times


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; a temporary folder by default"
    )
    options = parser.parse_args()
    rows = max(BLOCK, options.megabytes * 1_000_000 // (LAYERS * WIDTH * 2) // BLOCK * BLOCK)
    data = blocks(rows)
    size = sum(block.nbytes for block in data)
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        writes = time_writers(data, options.repeats, Path(place))
        reads = time_readers(data, options.repeats, Path(place))
    lines = [
        f"# Store: {LAYERS} layers x {rows:,} rows x {WIDTH} float16 ({size / 1e6:.0f} MB), blocks of "
        f"{BLOCK} rows, "
        f"a sync per block",
        "",
        f"{datetime.date.today()}, 2-core Xeon, CPU, load average {os.getloadavg()[0]:.1f}; median of "
        f"{options.repeats}, in random order. `store` includes checksums, running statistics and the "
        "journal; processor seconds are those of all its threads.",
        "",
        "| writer | GB/s | of raw | processor seconds per GB |",
        "|---|---|---|---|",
    ]
    base = statistics.median(wall for wall, _ in writes["raw"])
    for name, pairs in writes.items():
        middle = statistics.median(wall for wall, _ in pairs)
        busy = statistics.median(cpu for _, cpu in pairs) / size * 1e9
        lines.append(f"| {name} | {size / middle / 1e9:.2f} | {base / middle:.2f} | {busy:.2f} |")
    lines += ["", "| reader of one layer | GB/s | of np.memmap |", "|---|---|---|"]
    base = statistics.median(reads["np.memmap"])
    for name, seconds in reads.items():
        middle = statistics.median(seconds)
        lines.append(f"| {name} | {size / LAYERS / middle / 1e9:.2f} | {base / middle:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / f"store-{datetime.date.today()}-cpu.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
