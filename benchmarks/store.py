"""Bytes to disk and back: the store against raw writes, np.memmap, and the ways in which people store
activations.

    python benchmarks/store.py [--megabytes 1200] [--repeats 5]

Every writer gets the same rows, once with a sync per block of 1,024 rows and once without any (what a single
process sees before the disk does): the policy is the same on both sides of every ratio. `store` is everything
that a capture does to its rows, on the threads it does it on: batches of 16 go through a block buffer while
the block before gets its checksums, running statistics and journal entry.
The h5py peers have h5py's own chunks (`chunks=True`), written as people do:
`h5py_batches` one resizable dataset per layer, `dataset.resize(...); dataset[-16:] = rows` per batch, and
`h5py_blocks` the kindest case, `dataset[:, i:j] = block` into one dataset of known size.
Zarr is not a dependency: `pip install --target DIR zarr`, then PYTHONPATH=DIR adds it. Prints tables and
writes them to benchmarks/results/.
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
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from _results import publish

from layerprobe.cache.capture.sinks import BlockBuffer
from layerprobe.cache.file import writer as writing
from layerprobe.cache.file.batch_plan import make_plan
from layerprobe.cache.file.creation import Contents
from layerprobe.cache.file.layout import ArraySpec
from layerprobe.cache.file.writer import StoreWriter
from layerprobe.cache.prompts.columns import PromptColumns, as_column
from layerprobe.cache.store.open import open_store

LAYERS, WIDTH, BLOCK, BATCH = 24, 1024, 1024, 16


class Policy:
    """Whether a block ends with a sync, for all writers alike."""

    sync = True


POLICY = Policy()


def blocks(rows: int) -> list[np.ndarray]:
    """Blocks [layers, rows of the block, width] in float16."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((LAYERS, BLOCK, WIDTH), dtype=np.float32).astype(np.float16)
    return [np.roll(block, shift, axis=0) for shift in range(rows // BLOCK)]


def sync(file: IO[bytes]) -> None:
    """What ends a block, where the policy is to sync."""
    if POLICY.sync:
        os.fdatasync(file.fileno())


def raw(folder: Path, data: list[np.ndarray]) -> None:
    """One file, sequential writes."""
    with (folder / "raw.bin").open("wb", buffering=0) as file:
        for block in data:
            for layer in block:
                file.write(memoryview(layer).cast("B"))
            sync(file)


def raw_allocated(folder: Path, data: list[np.ndarray]) -> None:
    """The same with the file's blocks allocated first, so that a sync changes no metadata."""
    with (folder / "raw.bin").open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, sum(block.nbytes for block in data))
        for block in data:
            for layer in block:
                file.write(memoryview(layer).cast("B"))
            sync(file)


def contents_of(data: list[np.ndarray]) -> Contents:
    """A store of one-token prompts, rows in the order they come."""
    rows = len(data) * BLOCK
    ones = np.ones(rows, dtype=np.int64)
    plan = make_plan(ones, ones, np.arange(rows), batch_tokens=BATCH, block_rows=BLOCK, row_bytes=WIDTH * 2)
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
    return Contents(header, {}, columns, np.arange(rows), np.zeros(rows, dtype=np.int64), plan, (spec,))


def store(folder: Path, data: list[np.ndarray]) -> None:
    """The store as a capture drives it: one buffer fills by batches while the other is written."""
    contents = contents_of(data)
    buffers = [BlockBuffer(contents.plan, contents.arrays) for _ in range(2)]
    pending: list[Future[None] | None] = [None, None]
    (spec,) = contents.arrays
    with StoreWriter.create(folder / "store.h5", contents) as writer, ThreadPoolExecutor(1) as aside:
        for index, block in enumerate(data):
            buffer, previous = buffers[index % 2], pending[index % 2]
            if previous is not None:
                previous.result()
            buffer.begin(index)
            for start, prompts in zip(range(0, BLOCK, BATCH), contents.plan.batches_of(index), strict=True):
                rows = {layer: block[layer, start : start + BATCH] for layer in range(LAYERS)}
                buffer.put(prompts, {spec.key: rows})
            pending[index % 2] = aside.submit(writer.write, index, buffer.views)
        for last in pending:
            if last is not None:
                last.result()


def store_blocks(folder: Path, data: list[np.ndarray]) -> None:
    """The store given whole blocks, as raw is."""
    contents = contents_of(data)
    with StoreWriter.create(folder / "store.h5", contents) as writer:
        for index, block in enumerate(data):
            writer.write(index, {contents.arrays[0].key: block})


def h5py_batches(folder: Path, data: list[np.ndarray]) -> None:
    """A resizable chunked dataset per layer that grows by every batch."""
    with h5py.File(folder / "chunked.h5", "w") as file:
        shape, most = (0, WIDTH), (None, WIDTH)
        sets = [
            file.create_dataset(str(layer), shape, maxshape=most, dtype="f2", chunks=True)
            for layer in range(LAYERS)
        ]
        for block in data:
            for start in range(0, BLOCK, BATCH):
                for dataset, rows in zip(sets, block[:, start : start + BATCH], strict=True):
                    dataset.resize(len(dataset) + BATCH, axis=0)
                    dataset[-BATCH:] = rows
            _flush(file)


def h5py_blocks(folder: Path, data: list[np.ndarray]) -> None:
    """One chunked dataset of known size, whole blocks."""
    with h5py.File(folder / "chunked.h5", "w") as file:
        shape = (LAYERS, len(data) * BLOCK, WIDTH)
        dataset = file.create_dataset("x", shape, dtype="f2", chunks=True)
        for index, block in enumerate(data):
            dataset[:, index * BLOCK : (index + 1) * BLOCK] = block
            _flush(file)


def _flush(file: h5py.File) -> None:
    if POLICY.sync:
        file.flush()
        os.fdatasync(file.id.get_vfd_handle())


def safetensors(folder: Path, data: list[np.ndarray]) -> None:
    """One safetensors file per block, a tensor per layer."""
    from safetensors.numpy import save_file

    for index, block in enumerate(data):
        path = folder / f"block-{index}.safetensors"
        save_file({str(layer): rows for layer, rows in enumerate(block)}, path)
        with path.open("rb") as file:
            sync(file)


def parquet(folder: Path, data: list[np.ndarray]) -> None:
    """One Parquet file per block, one fixed-size-list column per layer, uncompressed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for index, block in enumerate(data):
        path = folder / f"block-{index}.parquet"
        columns = {
            str(layer): pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), WIDTH)
            for layer, rows in enumerate(block)
        }
        pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
        with path.open("rb") as file:
            sync(file)


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
        if POLICY.sync:
            for layer in range(LAYERS):
                with (folder / "x.zarr" / "c" / str(layer) / str(index) / "0").open("rb") as file:
                    sync(file)


WRITERS = (raw, raw_allocated, store, store_blocks, h5py_batches, h5py_blocks, safetensors, parquet, zarr)


def time_writers(data: list[np.ndarray], repeats: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """(wall seconds, processor seconds) of every writer, interleaved, after one warm-up round."""
    times: dict[str, list[tuple[float, float]]] = {writer.__name__: [] for writer in WRITERS}
    synced = writing._sync
    writing._sync = synced if POLICY.sync else lambda descriptor: None
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
    writing._sync = synced
    return times


def readers_of(data: list[np.ndarray], folder: Path) -> dict[str, Callable[[int], np.ndarray]]:
    """Files of every kind, and how each gives one layer."""
    rows = len(data) * BLOCK
    np.concatenate(data, axis=1).tofile(folder / "raw.bin")
    plain = np.memmap(folder / "raw.bin", np.float16, "r", shape=(LAYERS, rows, WIDTH))
    store(folder, data)
    opened = open_store(folder / "store.h5")
    h5py_batches(folder, data)
    chunked = h5py.File(folder / "chunked.h5")
    out: dict[str, Callable[[int], np.ndarray]] = {
        "np.memmap": lambda layer: np.array(plain[layer]),
        "store": lambda layer: np.array(opened.activations("resid_post", layer)),
        "h5py, chunks": lambda layer: chunked[str(layer)][:],
    }
    safetensors(folder, data)

    def from_safetensors(layer: int) -> np.ndarray:
        from safetensors import safe_open

        parts = []
        for index in range(len(data)):
            with safe_open(folder / f"block-{index}.safetensors", framework="np") as file:
                parts.append(file.get_tensor(str(layer)))
        return np.concatenate(parts)

    out["safetensors"] = from_safetensors
    parquet(folder, data)

    def from_parquet(layer: int) -> np.ndarray:
        import pyarrow.parquet as pq

        paths = [folder / f"block-{index}.parquet" for index in range(len(data))]
        tables = [pq.read_table(path, columns=[str(layer)])[str(layer)] for path in paths]
        chunks = [chunk for table in tables for chunk in table.chunks]
        return np.concatenate([chunk.flatten().to_numpy().reshape(-1, WIDTH) for chunk in chunks])

    out["parquet"] = from_parquet
    try:
        zarr(folder, data)
        import zarr as library

        array = library.open_array(folder / "x.zarr", mode="r")
        out["zarr"] = lambda layer: array[layer]
    except ImportError:
        pass
    return out


def time_readers(data: list[np.ndarray], repeats: int, folder: Path) -> dict[str, list[float]]:
    """Seconds to have one layer in memory of one's own; opened once, the files are in the page cache."""
    readers = readers_of(data, folder)
    whole = np.concatenate(data, axis=1)
    for name, read in readers.items():
        if not np.array_equal(read(3), whole[3]):
            raise SystemExit(f"{name} reads something else than was written")
    del whole
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repeats):
        for layer in range(0, LAYERS, 3):
            for name, read in readers.items():
                start = time.perf_counter()
                read(layer)
                times[name].append(time.perf_counter() - start)
    return times


def time_first_touch(data: list[np.ndarray], repeats: int, folder: Path) -> dict[str, list[float]]:
    """Seconds from a path to one layer in memory of one's own, with and without comparing its checksums."""
    store(folder, data)
    times: dict[str, list[float]] = {"off": [], "first-touch": []}
    for round_number in range(repeats + 1):
        for layer in range(0, LAYERS, 3):
            for verify, seconds in times.items():
                start = time.perf_counter()
                np.array(open_store(folder / "store.h5", verify=verify).activations("resid_post", layer))
                if round_number:
                    seconds.append(time.perf_counter() - start)
    return times


def table(times: dict[str, list[tuple[float, float]]], size: int) -> list[str]:
    """Speeds of all writers; ratios are medians of the ratios within a round, so that drift cancels."""
    lines = [
        "| writer | GB/s | of raw | of h5py_batches | of h5py_blocks | processor s/GB |",
        "|---|---|---|---|---|---|",
    ]
    for name, pairs in times.items():
        middle = statistics.median(wall for wall, _ in pairs)
        busy = statistics.median(cpu for _, cpu in pairs) / size * 1e9
        ratios = [
            statistics.median(other / mine for (other, _), (mine, _) in zip(times[peer], pairs, strict=True))
            for peer in ("raw", "h5py_batches", "h5py_blocks")
        ]
        shown = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {name} | {size / middle / 1e9:.2f} | {shown} | {busy:.2f} |")
    return lines


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to write; a temporary folder by default"
    )
    options = parser.parse_args()
    rows = max(BLOCK, options.megabytes * 1_000_000 // (LAYERS * WIDTH * 2) // BLOCK * BLOCK)
    data = blocks(rows)
    size = sum(block.nbytes for block in data)
    lines = [
        f"# Store: {LAYERS} layers x {rows:,} rows x {WIDTH} float16 ({size / 1e6:.0f} MB), "
        f"blocks of {BLOCK} rows",
        "",
        f"{datetime.date.today()}, 2-core Xeon, CPU, load average {os.getloadavg()[0]:.1f} at the start; "
        f"medians of {options.repeats} rounds in random order, ratios within a round (higher is faster).",
    ]
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        for policy, title in ((True, "A sync per block"), (False, "No sync")):
            POLICY.sync = policy
            lines += ["", f"{title}:", "", *table(time_writers(data, options.repeats, Path(place)), size)]
        POLICY.sync = False
        reads = time_readers(data, options.repeats, Path(place))
        first = time_first_touch(data, options.repeats, Path(tempfile.mkdtemp(dir=place)))
    extra = [mine / other - 1 for mine, other in zip(first["first-touch"], first["off"], strict=True)]
    lines += [
        "",
        "A file opened and one layer read for the first time, in the page cache: comparing checksums takes "
        f"{statistics.median(extra):.0%} more ({statistics.median(first['off']):.4f} s without).",
    ]
    lines += ["", "| reader of one layer | GB/s | of np.memmap |", "|---|---|---|"]
    base = reads["np.memmap"]
    for name, seconds in reads.items():
        middle = statistics.median(seconds)
        ratio = statistics.median(other / mine for other, mine in zip(base, seconds, strict=True))
        lines.append(f"| {name} | {size / LAYERS / middle / 1e9:.2f} | {ratio:.2f} |")
    publish("store", lines)


if __name__ == "__main__":
    sys.exit(main())
