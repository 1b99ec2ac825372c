"""`capture_shards`: shards of the prompt table, each an ordinary store, joined by an index."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ...hooks.errors import LayerprobeError
from ..capture.precheck import differing
from ..capture.request import CaptureRequest
from ..file.provenance import rendered_moment
from ..prompts.table import PromptTable
from ..store.activations import ActivationStore
from ..store.merge import merge, shard_entry
from ..store.open import open_store
from .jobs import Job, Pool, capture_shard, shard_of, shard_path
from .shards import plan_shards

__all__ = ["capture_shard", "capture_shards", "shard_of", "shard_path"]

log = logging.getLogger(__name__)


def capture_shards(
    source: str | Path,
    prompts: PromptTable,
    *,
    out: str | Path,
    workers: int,
    on: Literal["process", "ray"] = "process",
    shards: int | None = None,
    load: Mapping[str, Any] | None = None,
    progress: bool = True,
    **options: Any,
) -> ActivationStore:
    """Capture with several workers, each with a model of its own, and open the result as one store.

    Args:
        source: the model, as for `load_model`.
        prompts: the prompt table.
        out: the index; shards lie in a folder beside it (`a.h5` -> `a-shards/`).
        workers: processes, or Ray actors.
        on: `process` on this machine, `ray` on whatever cluster Ray is connected to.
        shards: how many; four per worker by default, so that a slow or lost one costs little, or as many as
            an earlier, interrupted run of it had.
        load: keyword arguments of `load_model`.
        progress: show a progress bar, and before it what the whole is, what of it is there, and a worker's
            share.
        **options: keyword arguments of `capture`.

    Raises:
        LayerprobeError: bad arguments, another capture under the same path, a shard that failed or whose
            workers died three times.

    >>> import tempfile
    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> prompts = lp.PromptTable(("a", "b"), ("who was late ?", "the pilot"), name="t")
    >>> out = Path(tempfile.mkdtemp()) / "all.h5"
    >>> options = {"sites": "embed", "progress": False, "load": {"check": False}}
    >>> lp.capture_shards(  # doctest: +SKIP
    ...     demo.models()["base"], prompts, out=out, workers=2, **options
    ... ).n_rows
    2
    """
    out = Path(out).expanduser()
    if workers < 1 or on not in ("process", "ray"):
        raise LayerprobeError(
            f"workers={workers}, on={on!r}: expected at least one worker, on 'process' or 'ray'"
        )
    request = CaptureRequest.of(options)  # what is wrong with it is said here, not by the workers
    request.rule.check_columns(prompts)
    folder = out.absolute().with_name(f"{out.stem}-shards")  # a worker may have another working directory
    where = Path(source).absolute() if Path(source).is_dir() else source
    of = shards or _as_begun(folder) or 4 * workers
    job = Job(
        str(where), dict(load or {}), request, folder, min(of, len(prompts)), prompts.sha256, _moment(folder)
    )
    if _answers(out, job, prompts):
        return open_store(out)
    parts = {index: shard_path(folder, index) for index in range(job.of)}
    todo = [
        index for index, path in parts.items() if not _answers(path, job, shard_of(prompts, index, job.of))
    ]
    if todo:
        if progress:
            _say_plan(job, prompts, todo, min(workers, len(todo)))
        _run(make_pool(on, job, min(workers, len(todo))), prompts, todo, job.of, progress)
    return merge(list(parts.values()), out)


def make_pool(on: str, job: Job, workers: int) -> Pool:
    """Workers of the kind asked for.

    Raises:
        LayerprobeError: Ray is not installed.
    """
    if on == "process":
        from .processes import ProcessPool

        return ProcessPool(job, workers)
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray  # noqa: F401
    except ImportError:
        raise LayerprobeError(
            "Ray is not installed: pip install 'layerprobe[ray]', or use on='process'"
        ) from None
    from .ray_actors import RayPool

    return RayPool(job, workers)


def _say_plan(job: Job, prompts: PromptTable, todo: list[int], workers: int) -> None:
    """The plan of the whole, on stderr, as a capture in one piece begins.

    Raises:
        LayerprobeError: what the workers would refuse.
    """
    from tqdm.auto import tqdm

    from ...hooks.weights.outline import outline_model

    known = ("revision", "dtype", "device", "trust_remote_code", "name")
    try:
        model = outline_model(job.source, **{k: v for k, v in job.load.items() if k in known})
    except LayerprobeError as error:  # this machine may lack what the workers have
        log.info("no plan of the whole: %s", error)
        return
    model.tokenizer = job.load.get("tokenizer") or model.tokenizer
    whole = plan_shards(model, prompts, of=job.of, folder=job.folder, options=job.request)
    lines = [f"the whole: {whole}"]
    if len(todo) < job.of:
        lines.append(f"still to do: {whole.share(todo)}")
    # the first of every `workers`: shards are handed out as they come, so another's share differs by little
    share = whole.share(todo[::workers])
    lines.append(f"{workers} worker{'' if workers == 1 else 's'}, each about {share}")
    for line in lines:
        tqdm.write(f"capture: {line}", file=sys.stderr)


def _run(pool: Pool, prompts: PromptTable, todo: list[int], of: int, progress: bool) -> None:
    from tqdm.auto import tqdm

    with tqdm(total=of, initial=of - len(todo), unit="shard", desc="capture", disable=not progress) as bar:
        for index in pool.run(prompts, todo):
            log.info("shard %d of %d is done", index, of)
            bar.update()


def _as_begun(folder: Path) -> int | None:
    """How many shards a folder was begun with: it is finished so, by however many workers."""
    for path in sorted(folder.glob("shard-*.h5")):
        with suppress(LayerprobeError):
            entry = shard_entry(open_store(path), path)
            if entry is not None:
                return entry[1]
    return None


def _moment(folder: Path) -> datetime:
    """What chat templates are told which write the date: what the first shard told its own, or now."""
    for path in sorted(folder.glob("shard-*.h5")):
        with suppress(LayerprobeError):
            return rendered_moment(open_store(path).provenance) or datetime.now()
    return datetime.now()


def _answers(path: Path, job: Job, part: PromptTable) -> bool:
    """Whether a file is there, finished, and what is asked for.

    Raises:
        LayerprobeError: it holds another capture.
    """
    if not path.exists():
        return False
    try:
        store = open_store(path)
    except LayerprobeError:
        return False  # what is wrong with it is said by the worker that would write it
    if not store.complete:
        return False
    revision, kind = job.load.get("revision"), job.load.get("dtype")
    found = differing(store, part, job.request, source=job.source, revision=revision, model_dtype=kind)
    if found:
        raise LayerprobeError(
            f"{path} holds another capture; different are: {'; '.join(found)}. A store never changes: choose "
            f"another --out, or delete it"
        )
    return True
