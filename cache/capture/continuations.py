"""What a model writes after its prompts: made once, before the capture, and part of the file from then on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...hooks import generation
from ...hooks.edit_texts import check_while_writing
from ...hooks.errors import LayerprobeError
from ..prompts.columns import GENERATED_TEXT, N_GENERATED, PromptColumns
from .prepare import Prepared

if TYPE_CHECKING:
    from ...hooks.model import Model
    from .job import CaptureJob

log = logging.getLogger(__name__)


def with_continuations(job: CaptureJob, prepared: Prepared, held: PromptColumns | None) -> Prepared:
    """The prompts with what was written after them, rows included; the same where nothing is written.

    Args:
        job: what is asked, and the model, which writes under the edits in force.
        prepared: the prompts alone.
        held: the columns of a file that holds these prompts: its continuations are used again.

    Raises:
        LayerprobeError: nothing was written after any prompt, or the file does not say what was.
    """
    if not job.request.asked.generate:
        return prepared
    if held is None:
        check_while_writing(job.model.edits)
        new = _written(job, prepared)
    else:
        new = _read(held)
    joined = _joined(prepared, new)
    empty = [prompt for prompt, one in enumerate(new) if not len(one)]
    if len(empty) == len(new):
        raise LayerprobeError(
            "the model wrote nothing after any prompt but the end of the text: there are no rows; "
            "generate={'min_new_tokens': 1, ...} makes it write"
        )
    if empty and held is None:
        log.warning(
            "%s: %d of %d continuations are empty, and these prompts have no rows; first in prompt %r",
            job.table.name,
            len(empty),
            len(new),
            job.table.ids[empty[0]],
        )
    return _described(job.model.tokenizer, prepared, joined, new)


def at_most(job: CaptureJob, prepared: Prepared) -> Prepared:
    """The same with continuations as long as they may be, for a plan: their tokens stand for any."""
    if not job.request.asked.generate:
        return prepared
    longest = np.zeros(job.request.asked.generate["max_new_tokens"], dtype=np.int32)
    return _joined(prepared, [longest] * len(prepared.columns))


def _joined(prepared: Prepared, new: Sequence[np.ndarray]) -> Prepared:
    """Prompts and continuations one after the other, and the rows that the rule picks of the latter."""
    counts = np.array([len(one) for one in new], dtype=np.int64)
    lengths = prepared.lengths + counts
    pieces = [piece for prompt, one in enumerate(new) for piece in (prepared.tokens_of(prompt), one)]
    last = prepared.rule.reduction == "last"
    first = prepared.rule.reduction == "first"
    per_prompt = np.minimum(counts, 1) if last or first else counts
    picked = [
        np.arange(stop - count, stop, dtype=np.int32)[-1:] if last else np.arange(stop - count, stop)[:wanted]
        for stop, count, wanted in zip(lengths, counts, per_prompt, strict=True)
    ]
    return replace(
        prepared,
        columns=replace(
            prepared.columns,
            token_ids=np.concatenate(pieces).astype(np.int32),
            token_starts=np.cumsum([0, *lengths], dtype=np.int64),
        ),
        picked=np.concatenate(picked).astype(np.int32),
        picked_starts=np.cumsum([0, *per_prompt], dtype=np.int64),
        rows_per_prompt=np.minimum(counts, 1) if prepared.rule.one_row else counts,
        n_new=counts,
    )


def _described(tokenizer: Any, prepared: Prepared, joined: Prepared, new: Sequence[np.ndarray]) -> Prepared:
    """The same with text and length of the continuations as columns, and the texts as the model saw them."""
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    written = np.empty(len(new), dtype=object)
    written[:] = [tokenizer.decode(one.tolist(), skip_special_tokens=True) for one in new]
    texts = []
    for prompt, text in enumerate(prepared.columns.texts or ()):
        # some tokenizers write the space before a word only where the word does not come first
        before, whole = (decode(one.tokens_of(prompt).tolist()) for one in (prepared, joined))
        texts.append(text + (whole[len(before) :] if whole.startswith(before) else written[prompt]))
    labels = {**joined.columns.labels, GENERATED_TEXT: written, N_GENERATED: joined.new_lengths}
    return replace(joined, columns=replace(joined.columns, labels=labels, texts=texts))


def _read(held: PromptColumns) -> list[np.ndarray]:
    """The continuations that a file holds.

    Raises:
        LayerprobeError: it does not say how long they are.
    """
    ids, starts, counts = held.token_ids, held.token_starts, held.labels.get(N_GENERATED)
    assert ids is not None and starts is not None  # every file has them
    if counts is None or counts.dtype.kind not in "iu" or ((counts < 0) | (counts > np.diff(starts))).any():
        raise LayerprobeError(
            f"the file does not say what was generated ({N_GENERATED}): capture to another path"
        )
    return [ids[stop - count : stop] for stop, count in zip(starts[1:], counts, strict=True)]


def _written(job: CaptureJob, prepared: Prepared) -> list[np.ndarray]:
    """Token ids that the model writes after each prompt."""
    from tqdm.auto import tqdm

    new: list[np.ndarray] = [np.empty(0, dtype=np.int32)] * len(prepared.columns)
    with tqdm(total=len(new), unit="prompt", desc="generate", disable=not job.progress) as bar:
        for prompts in _batches(job, prepared.lengths):
            for prompt, one in zip(prompts, _continued(job, prepared, prompts), strict=True):
                new[prompt] = np.array(one, dtype=np.int32)
            bar.update(len(prompts))
    return new


def _batches(job: CaptureJob, lengths: np.ndarray) -> Iterator[list[int]]:
    """Prompts in batches, longest first; of one length where padding would be read as text."""
    model, options = job.model, job.request.asked.generate
    padded = "generate" not in model.unavailable and not generation.counts_padding(model.hf, options)
    batch: list[int] = []
    for prompt in np.argsort(-lengths, kind="stable").tolist():
        widest = int(lengths[batch[0]]) if batch else 0
        full = (len(batch) + 1) * (widest + options["max_new_tokens"]) > job.batch_tokens
        if batch and (full or not (padded or lengths[prompt] == widest)):
            yield batch
            batch = []
        batch.append(prompt)
    yield batch


def _continued(job: CaptureJob, prepared: Prepared, prompts: list[int]) -> list[list[int]]:
    """The continuations of a batch; one that does not fit the device's memory is halved."""
    model: Model = job.model
    rows = [prepared.tokens_of(prompt).tolist() for prompt in prompts]
    keys = [job.table.ids[prompt] for prompt in prompts]
    options = generation.as_arguments(model.hf, job.request.asked.generate, keys, max(map(len, rows)))
    try:
        return model.continue_ids(rows, texts=prompts, **options)
    except torch.OutOfMemoryError:
        if len(prompts) == 1:
            raise
    if model.device.type == "cuda":
        torch.cuda.empty_cache()
    middle = len(prompts) // 2
    return [
        *_continued(job, prepared, prompts[:middle]),
        *_continued(job, prepared, prompts[middle:]),
    ]
