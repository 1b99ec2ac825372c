"""Running a job: a finished file is opened, an interrupted one resumed, a new one made and filled."""

from __future__ import annotations

from pathlib import Path

from ...hooks.errors import LayerprobeError
from ..file.disk_space import bytes_of, check_disk_space
from ..file.opening import read_columns, read_layout
from ..file.provenance import rendered_moment
from ..file.writer import StoreWriter
from ..prompts.difference import prompt_difference
from ..store.activations import ActivationStore
from ..store.open import open_store
from ..store.sameness import check_same
from .assembly import array_specs, batch_plan, batch_reads, file_contents, in_memory
from .continuations import with_continuations
from .job import CaptureJob
from .nonfinite import warn_of_nonfinite
from .pipeline import run_plan
from .prepare import Prepared, check_same_tokens, prepare_options
from .sinks import MemorySink


def run_job(job: CaptureJob) -> ActivationStore:
    """The store that a job asks for, whatever of it is there already.

    Raises:
        LayerprobeError: as `capture`.
    """
    exists = job.path is not None and job.path.exists()
    if job.path is not None and exists:
        held = _held(job, job.path)
        if held.complete:
            return held
    prepared = _prepared(job, job.path if exists else None)
    if job.path is None:
        return _into_memory(job, prepared)
    if exists:
        _resume(job, job.path, prepared)
    else:
        _create(job, job.path, prepared)
    del prepared  # what was prepared makes room for what is opened
    store = open_store(job.path)
    if not store.complete or store.identity != job.identity:
        raise LayerprobeError(
            f"{job.path} was replaced by another process while it was captured: capture again, to another "
            f"path"
        )
    warn_of_nonfinite(store)
    return store


def _held(job: CaptureJob, path: Path) -> ActivationStore:
    """The store under the job's path, which holds the same capture."""
    check_same(
        path,
        job.identity,
        read_layout(path).header["identity"],
        lambda: prompt_difference(read_columns(path), job.table),
    )
    return open_store(path)


def _prepared(job: CaptureJob, there: Path | None) -> Prepared:
    """What runs: with the tokens, and the continuations, of the files that hold these prompts already.

    Args:
        there: the job's path, where there is a file.
    """
    moment = job.now if there is None else rendered_moment(read_layout(there).volatile)
    prepared = prepare_options(job.model, job.table, job.request, moment)
    job.model.check_texts(prepared.lengths, "prompts")
    if job.shard is None:  # of shards it is said once, for all of them, by plan_shards
        prepared.unknown.warn(job.model.name, job.table)
    held = {path: read_columns(path) for path in (there, job.like) if path is not None}
    prepared = with_continuations(job, prepared, next(iter(held.values()), None))
    for path, columns in held.items():
        check_same_tokens(path, columns, prepared)
    return prepared


def _into_memory(job: CaptureJob, prepared: Prepared) -> ActivationStore:
    arrays = array_specs(job, prepared)
    plan = batch_plan(job, prepared, arrays)
    sink = MemorySink(plan, arrays, len(prepared.examples))
    run_plan(job.model, batch_reads(job, arrays, prepared), prepared, plan, sink, progress=job.progress)
    store = in_memory(job, prepared, arrays, sink)
    if store.dtype == "float16":  # no statistics are kept in memory: a pass over all rows
        warn_of_nonfinite(store)
    return store


def _create(job: CaptureJob, path: Path, prepared: Prepared) -> None:
    arrays = array_specs(job, prepared)
    plan = batch_plan(job, prepared, arrays)
    check_disk_space(path, bytes_of(arrays, len(prepared.examples)))
    contents = file_contents(job, prepared, arrays, plan)
    with StoreWriter.create(path, contents) as writer:
        del contents
        reads = batch_reads(job, arrays, prepared)
        run_plan(job.model, reads, prepared, plan, writer, progress=job.progress)


def _resume(job: CaptureJob, path: Path, prepared: Prepared) -> None:
    with StoreWriter.resume(path) as writer:
        check_disk_space(path, writer.bytes_left())
        reads = batch_reads(job, writer.layout.arrays, prepared)
        run_plan(job.model, reads, prepared, writer.layout.plan, writer, progress=job.progress)
