"""Capture over many workers: shards of the prompt table, each an ordinary store, joined by an index.

`capture_shard` is the whole of a worker's job and knows nothing of what started it: Ray, a plain process,
`torchrun` or a Slurm array (docs/scale_out.md).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ...hooks.errors import LayerprobeError
from ...hooks.sites import parse_sites
from ..capture.requests import differing
from ..prompts.table import PromptTable
from ..prompts.token_rules import parse_rule
from ..store.activations import ActivationStore, open_store
from ..store.merge import merge

if TYPE_CHECKING:
    from ...hooks.model import Model

log = logging.getLogger(__name__)

#: how often a shard is tried when its worker dies
ATTEMPTS = 3
#: options of `capture` that decide what is stored
_REQUEST = (
    "sites",
    "tokens",
    "chat_template",
    "chat_options",
    "lens_tokens",
    "lens_first_difference",
    "dtype",
    "top_k",
    "on_long",
)


@dataclass(frozen=True)
class Job:
    """What every worker needs to know."""

    source: str
    load: Mapping[str, Any]
    """Keyword arguments of `load_model`."""
    options: Mapping[str, Any]
    """Keyword arguments of `capture`."""
    folder: Path
    of: int
    prompts: str
    """Hash of the whole table."""


def shard_of(table: PromptTable, index: int, of: int) -> PromptTable:
    """Shard `index` of `of`: consecutive prompts, as equal in number as can be."""
    rows = np.array_split(np.arange(len(table)), of)[index]
    return table[int(rows[0]) : int(rows[-1]) + 1] if len(rows) else table[:0]


def shard_path(folder: Path, index: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{index:04d}.h5"


def capture_shard(
    model: Model,
    part: PromptTable,
    *,
    index: int,
    of: int,
    prompts: str,
    folder: str | Path,
    options: Mapping[str, Any],
) -> Path:
    """Capture one shard; a shard that is there already returns at once, a broken-off one goes on.

    Args:
        model: the model, loaded once per worker.
        part: `shard_of(table, index, of)`.
        index: its number, from 0.
        of: how many there are.
        prompts: `table.sha256` of the whole table.
        folder: where the shards lie.
        options: keyword arguments of `capture`.
    """
    from ..capture.run import capture

    path = shard_path(Path(folder), index)
    shard = {"index": index, "of": of, "prompts": prompts}
    capture(model, part, path=path, shard=shard, progress=False, **options)
    return path


class Pool(Protocol):
    """Workers that take shards and may die."""

    def run(self, table: PromptTable, todo: list[int]) -> Iterator[int]:
        """Yield the numbers of shards as they are done."""
        ...


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
            an earlier, broken-off run of it had.
        load: keyword arguments of `load_model`.
        progress: show a progress bar, and before it what the whole is, what of it is there, and a worker's
            share.
        **options: keyword arguments of `capture`.

    Raises:
        LayerprobeError: bad arguments, another capture under the same path, a shard that failed or whose
            workers died three times.
    """
    out = Path(out).expanduser()
    if workers < 1 or on not in ("process", "ray"):
        raise LayerprobeError(
            f"workers={workers}, on={on!r}: expected at least one worker, on 'process' or 'ray'"
        )
    parse_rule(options.get("tokens", "last")).check_columns(prompts)
    parse_sites(options["sites"], 1 << 16)  # a wrong name is said here, not by the workers
    folder = out.absolute().with_name(f"{out.stem}-shards")  # a worker may have another working directory
    where = Path(source).absolute() if Path(source).is_dir() else source
    of = shards or _as_begun(folder) or 4 * workers
    job = Job(str(where), dict(load or {}), options, folder, min(of, len(prompts)), prompts.sha256)
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
    from .shards import plan_shards

    known = ("revision", "dtype", "device", "trust_remote_code", "name")
    try:
        model = outline_model(job.source, **{k: v for k, v in job.load.items() if k in known})
    except LayerprobeError as error:  # this machine may lack what the workers have
        log.info("no plan of the whole: %s", error)
        return
    model.tokenizer = job.load.get("tokenizer") or model.tokenizer
    whole = plan_shards(model, prompts, of=job.of, folder=job.folder, options=job.options)
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
            return int(open_store(path).provenance["shard"]["of"])
    return None


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
    request = {name: value for name, value in job.options.items() if name in _REQUEST}
    revision, kind = job.load.get("revision"), job.load.get("dtype")
    found = differing(store, part, source=job.source, revision=revision, model_dtype=kind, **request)
    if found:
        raise LayerprobeError(
            f"{path} holds another capture; different are: {'; '.join(found)}. A store never changes: choose "
            f"another --out, or delete it"
        )
    return True


def died(index: int, tries: int) -> None:
    """Note a worker's death; give up on a shard that kills them all.

    Raises:
        LayerprobeError: when it has been tried often enough.
    """
    if tries >= ATTEMPTS:
        raise LayerprobeError(
            f"shard {index} ended its worker {tries} times (out of memory?): "
            f"try fewer workers or smaller batch_tokens"
        )
    log.warning("the worker of shard %d died: another takes it over", index)
