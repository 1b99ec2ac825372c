"""A capture that several tests interrupt, damage and compare."""

import multiprocessing
import os
import random
import resource
import signal
from contextlib import contextmanager

import h5py
import torch

from layerprobe import LayerprobeError, capture, load_model
from layerprobe.cache.capture import assembly
from layerprobe.cache.file import writer

#: bytes of a block, so small that a capture of these texts has many
SMALL_BLOCK = 20_000

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "baker",
    "pilot",
    "was",
    "were",
    "at",
    "in",
    "on",
    "park",
    "house",
    "late",
    "early",
    "happy",
    "sad",
]


def texts(count=60):
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(2, 20))) for _ in range(count)]


def run(model, path, **options):
    settings = {"sites": ["resid_post", "lens"], "tokens": "all", "progress": False, **options}
    return capture(model, texts(), path=path, **settings)


def datasets(path):
    found = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def in_child(function, *arguments):
    """The exit code of a function run in a process of its own; minus the signal that killed it.

    The child is forked by a server that runs nothing: forked from here, beside torch's threads, it could wait
    for a lock that nobody holds any more.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cache_support", "transformers.models.llama.modeling_llama"])
    child = context.Process(target=function, args=arguments)
    child.start()
    child.join(120)
    if child.exitcode is None:
        child.kill()
        raise TimeoutError(f"{function.__name__}{arguments} still ran after two minutes")
    return child.exitcode


def _load(source):
    torch.set_num_threads(1)
    assembly.BLOCK_BYTES = SMALL_BLOCK
    return load_model(source, check=False)


def die_while_writing(source, path, at, options=None):
    """A capture that ends, as by kill -9, before its `at`-th system call that changes a file."""
    count = 0

    def counted(call):
        def wrapper(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return wrapper

    model = _load(source)
    _ = model.identity  # its hashes are remembered in a file of their own, which is not counted
    for name in ("pwrite", "fdatasync", "fsync", "link", "open"):
        setattr(os, name, counted(getattr(os, name)))
    writer._sync = counted(writer._sync)
    run(model, path, **(options or {}))


def fill_the_disk(source, path, room):
    """A capture to a disk that has room for so many bytes; ends with 0 if it says so."""
    model = _load(source)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    code = 1
    try:
        run(model, path)
    except LayerprobeError as error:
        code = 0 if "no space for" in str(error) else 2
    finally:
        os._exit(code)  # not by way of HDF5's own end, which tries to flush again


def flip(path, offset, bit):
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ (1 << bit)]))


@contextmanager
def stopped(after):
    """Captures end, as by Ctrl-C, when they would write block `after`."""
    original = writer.StoreWriter.write

    def write(self, block, buffers):
        if block == after:
            raise KeyboardInterrupt
        original(self, block, buffers)

    writer.StoreWriter.write = write
    try:
        yield
    finally:
        writer.StoreWriter.write = original
