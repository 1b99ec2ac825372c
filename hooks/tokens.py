"""From a prompt, a text or chat messages, to token ids with their place in the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def encode(tokenizer: Any, prompt: str | Sequence[Mapping[str, Any]]) -> Encoding:
    """Tokenise one prompt: a text with the tokenizer's own special tokens, messages through the chat
    template.

    A chat template writes its special tokens itself, so none are added to what it rendered (as transformers
    does); a text that already begins with BOS does not get a second one.

    Args:
        tokenizer: a fast transformers tokenizer.
        prompt: a text, or messages [{"role": ..., "content": ...}, ...], rendered with
            add_generation_prompt=True.

    Raises:
        LayerprobeError: no fast tokenizer, no chat template, messages the template refuses, an empty prompt,
            one that is neither text nor messages, or text that no UTF-8 can hold.
    """
    check_tokenizer(tokenizer)
    chat = not isinstance(prompt, str)
    text = prompt if isinstance(prompt, str) else render_chat(tokenizer, _checked_messages(prompt))
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
            f"a prompt is no valid Unicode text: {text[error.start]!r} at character {error.start}, after "
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


def render_chat(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of chat messages under the tokenizer's template, ready for the assistant's turn.

    Raises:
        LayerprobeError: there is no template, or it refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise LayerprobeError(
            "the prompt is a list of messages but the tokenizer has no chat template: give plain text, or "
            "another model"
        )
    try:
        return str(
            tokenizer.apply_chat_template(
                [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
            )
        )
    except Exception as error:  # templates raise whatever they like
        raise LayerprobeError(
            f"the chat template refuses these messages ({error}): check their roles and order"
        ) from error


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
