"""`capture`: run prompts through a model once and keep what passes the sites asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..file.disk_space import bytes_of, check_room
from ..file.opening import read_columns, read_layout
from ..file.provenance import rendered_moment
from ..file.writer import StoreWriter
from ..prompts.columns import PromptColumns
from ..prompts.difference import prompt_difference
from ..prompts.table import PromptTable
from ..store.activations import ActivationStore
from ..store.reader import open_file
from ..store.sameness import check_same
from .assembly import array_specs, batch_plan, file_contents, in_memory, make_request
from .extend import extend as extend_store
from .options import Options, capture_identity, make_options, text_table
from .pipeline import run_plan
from .prepare import check_same_tokens, prepare_options
from .sinks import MemorySink

if TYPE_CHECKING:
    from ...hooks.model import Model


def capture(
    model: Model,
    prompts: PromptTable | Sequence[str],
    *,
    sites: Sequence[str] | str,
    tokens: str = "last",
    path: str | Path | None = None,
    chat_template: bool | None = None,
    chat_options: Mapping[str, Any] | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    batch_tokens: int | Literal["auto"] = "auto",
    dtype: str | None = None,
    top_k: int = 5,
    on_long: Literal["error", "truncate"] = "error",
    progress: bool = True,
    extend: bool = False,
    shard: Mapping[str, Any] | None = None,
) -> ActivationStore:
    """Run prompts through a model and keep activations, in a file or in memory.

    The same command goes on where an interrupted one stopped, and returns at once where it has finished.

    Args:
        model: from `load_model`; interventions in force (`model.edit`) apply and are recorded; values and
            positions given per text follow the order of the prompts.
        prompts: from `read_prompts`, or a list of texts, of chats or of token ids.
        sites: selections such as `resid_post`, `head_out[-4:]`, `lens`.
        tokens: the token rule: `last`, `first`, `mean`, `pos:3`, `all`, `content`, `special`, `span:COLUMN`,
            `chars:COLUMN`, `regex:PATTERN`, `role:ROLE`; a set takes `:last`, `:first`, `:mean` or `:all`.
        path: the file; None keeps everything in memory.
        chat_template: None uses the template for chat messages only; True wraps plain texts as one user
            message.
        chat_options: for the chat template: `add_generation_prompt`, `continue_final_message` (a prefill),
            `tools`, `documents`, `date` (for templates that write today's), and any variable it reads, such
            as `enable_thinking`. Recorded; another value is another capture.
        lens_tokens: label columns whose strings are candidate answers, read through the lens at every layer.
        lens_first_difference: where the answers of a prompt begin with the same tokens, append those tokens
            to the prompt and score the first that differs; otherwise such prompts are an error.
        batch_tokens: tokens of a batch, padding included; `auto` chooses by device.
        dtype: stored type; None is the model's. `float32`, `float16` or `bfloat16`.
        top_k: tokens that the lens keeps per row and layer.
        on_long: what to do with a prompt longer than the context.
        progress: show a progress bar.
        extend: where `path` is finished and holds fewer sites, layers or prompts, capture only what is
            missing into a sibling and open both through an index (`a.h5` -> `a-index.h5`).
        shard: which part of a larger table this is; set by `capture_shards`.

    Returns:
        The store, opened.

    Raises:
        LayerprobeError: before anything runs, for what does not fit (sites, rule, columns, long prompts,
            another capture in the same file, another process writing it, a full disk).
    """
    table = prompts if isinstance(prompts, PromptTable) else text_table(prompts)
    options = make_options(
        model,
        table,
        sites=sites,
        tokens=tokens,
        chat_template=chat_template,
        chat_options=chat_options,
        lens_tokens=tuple(lens_tokens),
        lens_first_difference=lens_first_difference,
        dtype=dtype,
        top_k=top_k,
        on_long=on_long,
    )
    target = None if path is None else Path(path).expanduser()
    if extend and target is not None and target.exists():
        return extend_store(model, table, options, target, batch_tokens=batch_tokens, progress=progress)
    return capture_to(
        model, table, options, target, batch_tokens=batch_tokens, progress=progress, shard=shard
    )


def capture_to(
    model: Model,
    table: PromptTable,
    options: Options,
    target: Path | None,
    *,
    batch_tokens: int | Literal["auto"],
    progress: bool,
    shard: Mapping[str, Any] | None = None,
    now: datetime | None = None,
    like: tuple[Path, PromptColumns] | None = None,
) -> ActivationStore:
    """`capture` with its arguments parsed: a finished file is opened, a broken-off one gone on with.

    Args:
        now: the moment that a chat template is told which writes the date; None is the clock's. A file that
            is gone on with tells it its own.
        like: a file whose prompts these are, and its columns: their tokens must be the same.

    Raises:
        LayerprobeError: as `capture`.
    """
    identity = capture_identity(model, table, options)
    exists = target is not None and target.exists()
    if target is not None and exists:
        check_same(
            target,
            identity,
            read_layout(target).header["identity"],
            lambda: prompt_difference(read_columns(target), table),
        )
        store = open_file(target)
        if store.complete:
            return store
    moment = rendered_at(target) if target is not None and exists else now
    prepared = prepare_options(model, table, options, moment)
    if target is not None and exists:
        check_same_tokens(target, read_columns(target), prepared)
    if like is not None:
        check_same_tokens(*like, prepared)
    model.check_texts(prepared.lengths, "prompts")
    if shard is None:  # of shards it is said once, for all of them, by plan_shards
        prepared.unknown.warn(model.name, table)
    if target is not None and exists:
        with StoreWriter.resume(target) as writer:
            check_room(target, writer.bytes_left())
            request = make_request(model, options, writer.layout.arrays, prepared)
            run_plan(model, request, prepared, writer.layout.plan, writer, progress=progress)
        return open_file(target)
    arrays = array_specs(model, options, prepared)
    plan = batch_plan(model, prepared, arrays, batch_tokens)
    request = make_request(model, options, arrays, prepared)
    if target is None:
        sink = MemorySink(plan, arrays, len(prepared.examples))
        run_plan(model, request, prepared, plan, sink, progress=progress)
        return in_memory(model, table, options, identity, prepared, arrays, sink)
    check_room(target, bytes_of(arrays, len(prepared.examples)))
    contents = file_contents(model, table, options, identity, prepared, arrays, plan, shard)
    with StoreWriter.create(target, contents) as writer:
        del contents
        run_plan(model, request, prepared, plan, writer, progress=progress)
    del prepared, plan, writer  # what was prepared makes room for what is opened
    return open_file(target)


def rendered_at(path: Path) -> datetime | None:
    """The moment that a file's chat template was told: what it writes of it stands in the file's tokens."""
    return rendered_moment(read_layout(path).volatile)
