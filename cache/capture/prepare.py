"""Prompts made ready for a model: token ids, the tokens that become rows, candidate answers."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ...hooks.chat_template import literals, render_chat, template_of, writes_date
from ...hooks.errors import LayerprobeError
from ..prompts.candidates import CandidateTokens, candidate_array, check_candidates
from ..prompts.cells import Messages, Prompt, is_chat
from ..prompts.chat import locate, role_ranges, span_ranges
from ..prompts.columns import PromptColumns, as_column
from ..prompts.table import PromptTable
from ..prompts.token_rules import Regions, TokenRule, select_tokens
from ..prompts.unknown import UnknownTokens

if TYPE_CHECKING:
    from ...hooks.model import Model
    from ...hooks.tokens import Encoding
    from .request import ResolvedRequest


@dataclass(frozen=True)
class Prepared:
    """Everything that is known before the first forward pass."""

    columns: PromptColumns
    rule: TokenRule
    picked: np.ndarray
    """[sum] int32 positions that the rule picks, all prompts one after the other."""
    picked_starts: np.ndarray
    """[prompts + 1] int64."""
    rows_per_prompt: np.ndarray
    """[prompts] int64."""
    candidates: np.ndarray | None
    """[prompts, columns, variants] int32, or None without lens tokens."""
    unknown: UnknownTokens
    """Text that the tokenizer has no token for."""
    rendered: datetime | None = None
    """The moment that the chat template was told, where it writes the date."""
    n_new: np.ndarray | None = None
    """[prompts] int64 tokens of each prompt that the model wrote, the last ones; None where it wrote none."""

    @property
    def examples(self) -> np.ndarray:
        """[rows] int64 prompt of each row."""
        return np.repeat(np.arange(len(self.rows_per_prompt)), self.rows_per_prompt)

    @property
    def positions(self) -> np.ndarray:
        """[rows] int64 position of each row, -1 where it pools several tokens."""
        if self.rule.pooled:
            return np.full(int(self.rows_per_prompt.sum()), -1, dtype=np.int64)
        return self.picked.astype(np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """[prompts] tokens of each prompt, what the model wrote after it included."""
        assert self.columns.lengths is not None
        return self.columns.lengths

    @property
    def new_lengths(self) -> np.ndarray:
        """[prompts] tokens that the model wrote."""
        return np.zeros(len(self.columns), dtype=np.int64) if self.n_new is None else self.n_new

    @property
    def prompt_lengths(self) -> np.ndarray:
        """[prompts] tokens of each prompt, without what the model wrote after it."""
        return np.asarray(self.lengths - self.new_lengths)

    def tokens_of(self, prompt: int) -> np.ndarray:
        """Token ids of a prompt."""
        starts = self.columns.token_starts
        assert starts is not None and self.columns.token_ids is not None
        return self.columns.token_ids[starts[prompt] : starts[prompt + 1]]

    def picked_of(self, prompt: int) -> np.ndarray:
        """Positions picked from a prompt."""
        return self.picked[self.picked_starts[prompt] : self.picked_starts[prompt + 1]]

    def identical(self) -> np.ndarray:
        """[prompts] the first prompt with the same tokens, picked positions and candidates."""
        digests = np.empty((len(self.columns), 2), dtype=np.uint64)  # small: there may be millions of prompts
        for prompt in range(len(digests)):
            digest = hashlib.blake2b(self.tokens_of(prompt).tobytes(), digest_size=16)
            digest.update(b"|" + self.picked_of(prompt).tobytes())
            if self.candidates is not None:
                digest.update(b"|" + self.candidates[prompt].tobytes())
            digests[prompt] = np.frombuffer(digest.digest(), dtype=np.uint64)
        _, first, which = np.unique(digests, axis=0, return_index=True, return_inverse=True)
        return first[which.reshape(-1)].astype(np.int64)


def prepare(
    model: Model,
    table: PromptTable,
    rule: TokenRule,
    *,
    chat_template: bool | None,
    lens_tokens: Sequence[str],
    first_difference: bool,
    on_long: Literal["error", "truncate"],
    chat_options: Mapping[str, Any] | None = None,
    now: datetime | None = None,
    max_new_tokens: int = 0,
) -> Prepared:
    """Tokenise a prompt table and apply the token rule; what a model has yet to write has no rows yet.

    Args:
        now: the moment that chat templates are told; one for all prompts, so that none changes at midnight.
        max_new_tokens: tokens that the context must have room for after each prompt.

    Raises:
        LayerprobeError: a prompt longer than the context, a rule that picks nothing, answers without a token.
    """
    answers = _answers(table, lens_tokens) if lens_tokens else []
    finder = CandidateTokens(model.tokenizer) if lens_tokens else None
    unknown = UnknownTokens(model.tokenizer)
    texts: list[str] = []
    ids, picked = array("i"), array("i")  # flat: an array object per prompt would cost more than its tokens
    lengths: list[int] = []
    counts: list[int] = []
    found: list[list[list[int]]] = []
    dated = (table.chat or chat_template) and writes_date(model.tokenizer)
    now = (now or datetime.now()) if dated and "date" not in (chat_options or {}) else None
    for index, given in enumerate(table.prompts):
        prompt = as_chat(given, chat_template)
        where = f"prompt {table.ids[index]!r}"
        with _naming(where):
            encoding = model.encode(prompt, chat_options=chat_options, now=now)
        unknown.see(index, encoding)
        regions = _regions(model, table, index, prompt, rule, encoding, chat_options, now)
        if finder is not None:
            encoding, candidates = _with_candidates(encoding, finder, answers[index], first_difference)
            found.append(candidates)
        encoding = _fit(encoding, model.max_length, max_new_tokens, on_long, where)
        texts.append(encoding.text)
        positions = select_tokens(rule, encoding, regions, where)
        ids.extend(encoding.input_ids)
        picked.extend(positions.tolist())
        lengths.append(len(encoding.input_ids))
        counts.append(len(positions))
    if finder is not None:
        found = check_candidates(
            found,
            answers,
            lens_tokens,
            table.ids,
            tokenizer=model.tokenizer,
            first_difference=first_difference,
        )
    if not picked and rule.kind != "generated":
        raise LayerprobeError(f"tokens={rule.text!r} picks no token of any of {len(table)} prompts")
    columns = replace(
        columns_of(table),
        texts=texts,
        token_ids=np.frombuffer(ids, dtype=np.int32),
        token_starts=np.cumsum([0, *lengths], dtype=np.int64),
    )
    return Prepared(
        columns,
        rule,
        np.frombuffer(picked, dtype=np.int32),
        np.cumsum([0, *counts], dtype=np.int64),
        np.ones(len(counts), dtype=np.int64) if rule.one_row else np.array(counts, dtype=np.int64),
        candidate_array(found) if finder is not None else None,
        unknown,
        now,
    )


def prepare_options(
    model: Model, table: PromptTable, options: ResolvedRequest, now: datetime | None = None
) -> Prepared:
    """`prepare` with the arguments of a capture."""
    return prepare(
        model,
        table,
        options.rule,
        chat_template=options.chat_template,
        lens_tokens=options.lens_tokens,
        first_difference=options.asked.lens_first_difference,
        on_long=options.asked.on_long,
        chat_options=options.asked.chat_options,
        now=now,
        max_new_tokens=options.asked.generate.get("max_new_tokens", 0),
    )


def check_same_tokens(path: Path, held: PromptColumns, prepared: Prepared) -> None:
    """Refuse to go on with a file whose prompts are other tokens now, whatever changed them.

    Raises:
        LayerprobeError: with how many differ, and the first.
    """
    ours, ids, starts = prepared.columns, held.token_ids, held.token_starts
    assert ids is not None and starts is not None  # every file has them
    changed = [
        row
        for row in range(len(ours))
        if not np.array_equal(ids[starts[row] : starts[row + 1]], prepared.tokens_of(row))
    ]
    if not changed:
        return
    raise LayerprobeError(
        f"{path} holds other tokens for {len(changed)} of {len(ours)} prompts, first "
        f"{ours.ids[changed[0]]!r}: the tokenizer, or what its chat template writes, has changed since "
        f"(another time zone or library?), or lens_first_difference lengthened them; capture to another path"
    )


def columns_of(table: PromptTable) -> PromptColumns:
    """The columns of a table, without text and tokens."""
    ids = np.empty(len(table), dtype=object)
    ids[:] = table.ids
    spans = {
        name: np.array([(-1, -1) if span is None else span for span in values], dtype=np.int64).reshape(-1, 2)
        for name, values in table.spans.items()
    }
    labels = {name: as_column(values) for name, values in table.labels.items() if values.dtype.kind == "U"}
    labels = {**table.labels, **labels}
    return PromptColumns(
        ids, labels, _stored(table.groups), _stored(table.pairs), _stored(table.splits), spans
    )


def _stored(values: np.ndarray | None) -> np.ndarray | None:
    """A column as stores keep it: a table made by hand may hold NumPy's own strings."""
    return values if values is None or values.dtype.kind != "U" else as_column(values)


def as_chat(prompt: Prompt, chat_template: bool | None) -> Prompt:
    """A plain text as one user's message where the template is asked for."""
    if not chat_template or is_chat(prompt):
        return prompt
    if not isinstance(prompt, str):
        raise LayerprobeError("chat_template=True wraps texts, and these prompts are token ids: leave it out")
    return [{"role": "user", "content": prompt}]


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Say of which prompt an error is."""
    try:
        yield
    except LayerprobeError as error:
        raise LayerprobeError(f"{where}: {error}") from error


def _regions(
    model: Model,
    table: PromptTable,
    index: int,
    prompt: Prompt,
    rule: TokenRule,
    encoding: Encoding,
    chat_options: Mapping[str, Any] | None,
    now: datetime | None,
) -> Mapping[str, Regions]:
    """`role:NAME` or `span:NAME` -> ranges of the prompt's text, where the rule needs them."""
    if rule.kind not in ("span", "role"):
        return {}
    key, where = f"{rule.kind}:{rule.argument}", f"prompt {table.ids[index]!r}"
    span = table.spans[rule.argument][index] if rule.kind == "span" else None
    if not is_chat(prompt):
        if rule.kind == "role":
            raise LayerprobeError(
                f"tokens={rule.text!r} needs chat messages: read_prompts(..., messages=...) or "
                f"chat_template=True"
            )
        return {key: [] if span is None else [span]}
    if rule.kind == "span" and span is None:
        return {key: []}
    messages = cast("Messages", prompt)
    tools = (chat_options or {}).get("tools")
    with _naming(where):
        found = locate(
            messages,
            lambda chat: render_chat(model.tokenizer, chat, chat_options, now=now),
            literals(template_of(model.tokenizer, tools)),
        )
    if found.text != encoding.text:
        raise LayerprobeError(f"{where}: its chat template writes another text each time")
    if rule.kind == "role":
        return {key: role_ranges(found, messages, rule.argument, reduction=rule.reduction, where=where)}
    return {key: span_ranges(found, messages, span, where=where)}


def _answers(table: PromptTable, lens_tokens: Sequence[str]) -> list[list[str]]:
    missing = [name for name in lens_tokens if name not in table.labels]
    if missing:
        raise LayerprobeError(
            f"lens_tokens names {missing[0]!r}, which is not a label column of {table.name} "
            f"({', '.join(table.labels) or 'it has none'}): read_prompts(..., labels=[{missing[0]!r}, ...])"
        )
    return [[str(table.labels[name][row]) for name in lens_tokens] for row in range(len(table))]


def _with_candidates(
    encoding: Encoding, finder: CandidateTokens, answers: Sequence[str], first_difference: bool
) -> tuple[Encoding, list[list[int]]]:
    """Candidate tokens of every answer; where told to, after the tokens that all answers share.

    The lens reads the token before the answer. To score the first token that differs, the tokens before it
    are appended to the prompt, so that what is read is still the prediction of the next token.
    """
    text = encoding.text
    shared = finder.shared_prefix(text, answers) if first_difference else ()
    if not shared:
        return encoding, [finder.first_tokens(text, answer) for answer in answers]
    count = len(shared)
    end = len(text)
    longer = replace(
        encoding,
        input_ids=[*encoding.input_ids, *shared],
        offsets=[*encoding.offsets, *[(end, end)] * count],
        special=[*encoding.special, *[False] * count],
    )
    return longer, [list(finder.continuation(text, f" {answer}")[count : count + 1]) for answer in answers]


def _fit(encoding: Encoding, context: int, new: int, on_long: str, where: str) -> Encoding:
    length, limit = len(encoding.input_ids), context - new
    if limit < 1:
        raise LayerprobeError(f"max_new_tokens={new} leaves no room for a prompt in a context of {context}")
    if length <= limit:
        return encoding
    if on_long == "error":
        more = f", with max_new_tokens={new} after them" if new else ""
        raise LayerprobeError(
            f"{where} has {length} tokens{more}, more than the model's context of {context}: shorten it, "
            f"leave it out, "
            f'or pass on_long="truncate" to keep its first {limit}'
        )
    return replace(
        encoding,
        input_ids=encoding.input_ids[:limit],
        offsets=encoding.offsets[:limit],
        special=encoding.special[:limit],
    )
