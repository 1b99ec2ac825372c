"""`capture`: run prompts through a model once and keep what passes the sites asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..prompts.table import PromptTable
from ..store.activations import ActivationStore
from .execute import run_job
from .extend import extend_store
from .job import CaptureJob
from .request import CaptureRequest

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
    generate: Mapping[str, Any] | None = None,
    progress: bool = True,
    extend: bool = False,
    shard: Mapping[str, Any] | None = None,
) -> ActivationStore:
    """Run prompts through a model and keep activations, in a file or in memory.

    The same command resumes where an interrupted one stopped, and returns at once where it has finished.

    Args:
        model: from `load_model`; interventions in force (`model.edit`) apply and are recorded; values and
            positions given per text follow the order of the prompts.
        prompts: from `read_prompts`, or a list of texts, of chats or of token ids.
        sites: selections such as `resid_post`, `head_out[-4:]`, `lens`.
        tokens: the token rule: `last`, `first`, `mean`, `pos:3`, `all`, `content`, `special`, `span:COLUMN`,
            `chars:COLUMN`, `regex:PATTERN`, `role:ROLE`, or with `generate` `generated`; a set takes `:last`,
            `:first`, `:mean` or `:all`.
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
        generate: how the model continues the prompts: `{"max_new_tokens": 64}`, greedy, or with `do_sample`
            and `seed`, see `hooks.generation.checked_generate_options`. The continuations are made first, and
            kept: their token ids after those of their prompts, without the token that ends them, and the
            columns `generated_text` and `n_generated`. A prompt after which nothing is written has no rows.
        progress: show a progress bar.
        extend: where `path` is finished and holds fewer sites, layers or prompts, capture only what is
            missing into a sibling and open both through an index (`a.h5` -> `a-index.h5`).
        shard: which part of a larger table this is; set by `capture_shards`.

    Returns:
        The store, opened.

    Raises:
        LayerprobeError: before anything runs, for what does not fit (sites, rule, columns, long prompts,
            another capture in the same file, another process writing it, a full disk).

    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model = lp.load_model(demo.models()["base"], check=False)
    >>> lp.capture(model, ["who was late ?", "the pilot"], sites="resid_post[2:4]", progress=False)
    ActivationStore(resid_post: 2 layers x 2 rows x 96, float32, complete, tokens='last', in memory)
    >>> asked = {"sites": "resid_post[4]", "tokens": "generated:mean", "progress": False}
    >>> written = lp.capture(model, ["the pilot"], generate={"max_new_tokens": 2}, **asked)
    >>> written.labels("n_generated").tolist()
    [2]
    """
    request = CaptureRequest(
        sites=sites,  # type: ignore[arg-type]  # one name, or any sequence of them, becomes a tuple
        tokens=tokens,
        chat_template=chat_template,
        chat_options=chat_options or {},
        lens_tokens=tuple(lens_tokens),
        lens_first_difference=lens_first_difference,
        dtype=dtype,
        top_k=top_k,
        on_long=on_long,
        batch_tokens=batch_tokens,
        generate=generate or {},
    )
    job = CaptureJob.of(model, prompts, request, path=path, extend=extend, progress=progress, shard=shard)
    if job.extend and job.path is not None and job.path.exists():
        return extend_store(job, job.path)
    return run_job(job)
