"""Layers in parallel, one linear-algebra thread each: small problems gain nothing from many cores."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Out = TypeVar("Out")


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


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
