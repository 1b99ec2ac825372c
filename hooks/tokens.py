"""From a prompt, a text or chat messages, to token ids with their place in the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Integral
from typing import Any, TypeGuard

from .chat_template import render_chat
from .errors import LayerprobeError


@dataclass(frozen=True)
class Encoding:
    """One prompt as the model sees it.

    Attributes:
        input_ids: token ids, BOS once at most.
        offsets: (start, end) of each token in `text`, in characters; (0, 0) for tokens that stand for no
            text.
        special: whether each token is a special one (BOS, role markers, ...).
        text: the prompt; for chat messages, as the template rendered it.
    """

    input_ids: list[int]
    offsets: list[tuple[int, int]]
    special: list[bool]
    text: str

    def __len__(self) -> int:
        return len(self.input_ids)


def encode(
    tokenizer: Any,
    prompt: str | Sequence[Mapping[str, Any]] | Sequence[int],
    chat_options: Mapping[str, Any] | None = None,
    *,
    now: datetime | None = None,
) -> Encoding:
    """Tokenise one prompt: a text with the tokenizer's own special tokens, messages through the chat
    template; token ids stay as they are.

    A chat template writes its special tokens itself, so none are added to what it rendered (as transformers
    does); a text that already begins with BOS does not get a second one.

    Args:
        tokenizer: a fast transformers tokenizer.
        prompt: a text, messages [{"role": ..., "content": ...}, ...], rendered with
            add_generation_prompt=True unless told otherwise, or token ids.
        chat_options: for the chat template, see `chat_template.checked_chat_options`.
        now: the moment that a template which writes the date is told; None is the clock's.

    Raises:
        LayerprobeError: no fast tokenizer, no chat template, messages the template refuses, an empty prompt,
            one that is neither text nor messages, or text that no UTF-8 can hold.
    """
    check_tokenizer(tokenizer)
    if is_token_ids(prompt):
        return _encode_ids(tokenizer, prompt)
    chat = not isinstance(prompt, str)
    text = (
        prompt
        if isinstance(prompt, str)
        else render_chat(tokenizer, _checked_messages(prompt), chat_options, now=now)
    )
    try:
        out = tokenizer(
            text, add_special_tokens=not chat, return_offsets_mapping=True, return_attention_mask=False
        )
    except TypeError as error:
        raise _not_unicode(text) or error from error
    ids, offsets = list(out["input_ids"]), [(int(a), int(b)) for a, b in out["offset_mapping"]]
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is not None and ids[:2] == [bos, bos] and offsets[0] == (0, 0):
        ids, offsets = ids[1:], offsets[1:]
    if not ids:
        raise LayerprobeError(f"the prompt {text!r} has no tokens: give it some text")
    special_ids = _special_ids(tokenizer)
    return Encoding(ids, offsets, [i in special_ids for i in ids], text)


def is_token_ids(prompt: Any) -> TypeGuard[Sequence[int]]:
    """Whether a prompt is a sequence of token ids: whole numbers, at least one."""
    if isinstance(prompt, (str, bytes, bytearray)) or not isinstance(prompt, Sequence) or not len(prompt):
        return False
    return isinstance(prompt[0], Integral) and not isinstance(prompt[0], bool)


def _encode_ids(tokenizer: Any, prompt: Sequence[int]) -> Encoding:
    """Token ids as they are, with the text they stand for.

    Their place in the text is known where the tokenizer gives the same ids for it; elsewhere every offset is
    (0, 0).
    """
    ids = [int(token) for token in prompt]
    known = len(tokenizer)
    bad = next((token for token in ids if not 0 <= token < known), None)
    if bad is not None:
        raise LayerprobeError(f"token id {bad} is outside the vocabulary 0..{known - 1}: wrong tokenizer?")
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    again = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False
    )
    same = list(again["input_ids"]) == ids
    offsets = [(int(a), int(b)) for a, b in again["offset_mapping"]] if same else [(0, 0)] * len(ids)
    special_ids = _special_ids(tokenizer)
    return Encoding(ids, offsets, [i in special_ids for i in ids], text)


def _checked_messages(prompt: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(prompt, (list, tuple)) or not all(isinstance(part, Mapping) for part in prompt):
        raise LayerprobeError(
            'a prompt is a text or a list of chat messages [{"role": ..., "content": ...}, ...], got '
            f"{prompt!r:.80}"
        )
    return prompt


def _not_unicode(text: str) -> LayerprobeError | None:
    """The error for half of a surrogate pair, which tokenizers refuse without naming it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        around = text[max(0, error.start - 20) : error.start]
        return LayerprobeError(
            f"a prompt is not valid Unicode text: {text[error.start]!r} at character {error.start}, after "
            f"{around!r}: read its file as the encoding it is in, or text.encode('utf-16', "
            "'surrogatepass').decode('utf-16', 'replace')"
        )
    return None


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what cannot say where its tokens lie.

    Raises:
        LayerprobeError: there is no tokenizer, or it is not a fast one.
    """
    if tokenizer is None:
        raise LayerprobeError(
            "this model was loaded without a tokenizer: pass load_model(model, tokenizer=...)"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise LayerprobeError(
            f"{type(tokenizer).__name__} is not a fast tokenizer and cannot say where its tokens lie in the "
            f"text: "
            "save one with AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(folder)"
        )


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
