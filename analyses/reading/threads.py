"""Layers in parallel, one linear-algebra thread each: small problems gain nothing from many cores."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Out = TypeVar("Out")

CGROUP = Path("/sys/fs/cgroup")
PLANNED = 0.8
"""Share of free memory that is planned with."""


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def free_memory() -> int | None:
    """Bytes that may still be taken, by the machine or the container; `None` where neither says."""
    limit, machine = _number(CGROUP / "memory.max", -1), _number(Path("/proc/meminfo"), "MemAvailable:")
    if limit is not None:
        limit -= _number(CGROUP / "memory.current", -1) or 0
        # pages of files can be given back
        limit += _number(CGROUP / "memory.stat", "inactive_file") or 0
    known = [value for value in (limit, None if machine is None else machine * 1024) if value is not None]
    return min(known) if known else None


def _number(file: Path, key: str | int) -> int | None:
    """The number after a key in a file of lines, or the last one; `None` where there is none."""
    try:
        words = file.read_text().split()
    except OSError:
        return None
    try:
        return int(words[key if isinstance(key, int) else words.index(key) + 1])
    except (ValueError, IndexError):
        return None


def threads_within_memory(bytes_each: int) -> int:
    """One thread per usable core, or as many as free memory has room for: at least one.

    Args:
        bytes_each: what one layer takes while it is worked on.
    """
    free = free_memory()
    return usable_cores() if free is None else max(1, min(usable_cores(), int(PLANNED * free / bytes_each)))


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Within this context numpy's and torch's linear algebra use one thread; afterwards as before."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def over_layers(
    work: Callable[[Item], Out],
    items: Sequence[Item],
    *,
    threads: int | None = None,
    progress: bool = False,
    description: str = "",
) -> list[Out]:
    """Apply `work` to every item, in order of the items; the first error stops the rest.

    Args:
        work: what to do with one layer.
        items: layers, or whatever stands for them.
        threads: how many at a time; default: one per usable core.
        progress: show a bar.
        description: named in the bar.
    """
    workers = max(1, min(threads or usable_cores(), len(items)))
    with one_blas_thread():
        if workers == 1:
            return list(_shown(map(work, items), len(items), progress, description))
        with ThreadPoolExecutor(workers, initializer=_one_thread) as pool:
            try:
                return list(_shown(pool.map(work, items), len(items), progress, description))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # OpenMP keeps this per thread


def _shown(results: Iterable[Out], total: int, progress: bool, description: str) -> Iterable[Out]:
    if not progress:
        return results
    from tqdm.auto import tqdm

    shown: Iterable[Out] = tqdm(results, total=total, desc=description, leave=False)
    return shown
