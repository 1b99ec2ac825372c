"""Chat messages as the text that a tokenizer's template makes of them; `tokens` calls it for every chat."""

from __future__ import annotations

import ctypes
import difflib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from .errors import LayerprobeError

Messages = Sequence[Mapping[str, Any]]

#: options that transformers itself reads; every other one is a variable of the template
COMMON = ("add_generation_prompt", "continue_final_message", "date", "documents", "tools")
#: arguments of `apply_chat_template` that are not the template's business, or not JSON
_NOT_OPTIONS = (
    *("chat_template", "conversation", "messages", "strftime_now"),
    *("tokenize", "truncation", "padding", "max_length", "return_dict", "return_tensors"),
    *("return_assistant_tokens_mask", "sanitize_control_tokens", "processor_kwargs", "tokenizer_kwargs"),
)
#: seconds that a template may take for one conversation
SECONDS = 10.0
#: characters that it may write, beyond a hundred times what it was given
CHARACTERS = 10_000_000
_WRITING = threading.RLock()


def checked_chat_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options for the chat template as plain JSON values, so that a file can record them.

    Args:
        options: `add_generation_prompt` (default true), `continue_final_message` (the last message is left
            open: a prefill), `tools` (JSON schemas, or functions with type hints and a docstring),
            `documents`, `date` (what templates that write today's date write), and any variable that the
            template reads, such as `enable_thinking`.

    Raises:
        LayerprobeError: an option that is no template's business, a value that is no JSON, both
            `continue_final_message` and `add_generation_prompt`.

    >>> checked_chat_options({"enable_thinking": False, "date": date(2024, 7, 26)})
    {'date': '2024-07-26', 'enable_thinking': False}
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise LayerprobeError(f"chat_options={options!r:.80}: expected a dict, {{'enable_thinking': False}}")
    given = dict(options)
    for name in (name for name in _NOT_OPTIONS if name in given):
        way = "; give date='2024-07-26'" if name == "strftime_now" else ""
        raise LayerprobeError(f"chat_options has {name!r}, which is no argument of a template{way}")
    if isinstance(given.get("tools"), Sequence) and not isinstance(given["tools"], str):
        given["tools"] = [_schema(tool) for tool in given["tools"]]
    if "date" in given:
        given["date"] = _moment(given["date"]).isoformat().removesuffix("T00:00:00")
    if given.get("continue_final_message") and given.get("add_generation_prompt"):
        raise LayerprobeError(
            "chat_options has both continue_final_message, which leaves the last message open, and "
            "add_generation_prompt, which begins a new one: give one of them"
        )
    try:
        plain = json.loads(json.dumps(given, sort_keys=True, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise LayerprobeError(f"chat_options must be JSON values: {error}") from None
    # what is so anyway is left out: it is the same request
    if plain.get("add_generation_prompt") is (not plain.get("continue_final_message")):
        del plain["add_generation_prompt"]
    idle = {"continue_final_message": (False, None), "tools": ([], None), "documents": ([], None)}
    return {name: value for name, value in plain.items() if value not in idle.get(name, ())}


def _schema(tool: Any) -> Any:
    if not callable(tool):
        return tool
    from transformers.utils.chat_template_utils import get_json_schema

    try:
        return get_json_schema(tool)
    except Exception as error:  # of several kinds, by what the docstring lacks
        raise LayerprobeError(f"chat_options, tools: {error}") from None


def _moment(value: Any) -> datetime:
    try:
        text = value.isoformat() if isinstance(value, date) else value
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise LayerprobeError(f"chat_options, date={value!r}: expected a date such as '2024-07-26'") from None


def render_chat(
    tokenizer: Any,
    messages: Messages,
    options: Mapping[str, Any] | None = None,
    *,
    now: datetime | None = None,
) -> str:
    """The text of chat messages under the tokenizer's template, ready for the assistant's turn.

    Args:
        tokenizer: a transformers tokenizer.
        messages: every key reaches the template; keys without a value (None) do not.
        options: see `checked_chat_options`.
        now: the moment that templates which write the date are told, where `options` has no `date`; None is
            the clock's.

    Raises:
        LayerprobeError: there is no template, it refuses the messages, it has no such option, or it writes
            without end.
    """
    given = checked_chat_options(options)
    source = template_of(tokenizer, given.get("tools"))
    checked_messages(messages, source)
    _check_known(source, given)
    fixed = given.pop("date", None)
    given.setdefault("add_generation_prompt", not given.get("continue_final_message"))
    chat = [{name: value for name, value in part.items() if value is not None} for part in messages]
    try:
        with _frozen_clock(source, _moment(fixed) if fixed else now), _time_limit(SECONDS):
            text = str(tokenizer.apply_chat_template(chat, tokenize=False, **given))
    except _TooLong:
        raise LayerprobeError(
            f"the chat template was still writing after {SECONDS:g} seconds: is it meant for this tokenizer?"
        ) from None
    except Exception as error:  # templates raise whatever they like
        raise LayerprobeError(
            f"the chat template refuses these messages ({error or type(error).__name__}): check their roles "
            f"and order"
        ) from error
    most = CHARACTERS + 100 * sum(len(str(part)) for part in chat)
    if len(text) > most:
        raise LayerprobeError(
            f"the chat template wrote {len(text):,} characters for a conversation of {len(chat)} messages: "
            f"is it meant for this tokenizer?"
        )
    return text


def template_of(tokenizer: Any, tools: Any = None) -> str:
    """The template's source.

    Raises:
        LayerprobeError: there is none.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise LayerprobeError(
            "the prompt is a list of messages but the tokenizer has no chat template: give plain text, or "
            "another model"
        )
    try:
        return str(tokenizer.get_chat_template(None, tools))
    except ValueError as error:
        raise LayerprobeError(f"the tokenizer's chat templates: {error}") from None


def checked_messages(messages: Messages, source: str) -> None:
    """Refuse what this template would drop or write as Python: images, lists of parts, tool calls.

    Raises:
        LayerprobeError: naming the message.
    """
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                if kind != "text":
                    raise LayerprobeError(
                        f"message {index} holds a part of type {kind!r}: layerprobe reads text; leave it out"
                    )
            if "text" not in literals(source):
                raise LayerprobeError(
                    f"message {index} is a list of parts, which this chat template does not read: join their "
                    f"texts into one content"
                )
        if message.get("tool_calls") and "tool_calls" not in source:
            raise LayerprobeError(
                f"message {index} has tool_calls, which this chat template does not read: the model would "
                f"never see them; write them into the content, or take a model with tools"
            )


def _check_known(source: str, options: Mapping[str, Any]) -> None:
    read = variables(source)
    for name in options:
        # a template that writes no generation prompt of its own takes either value; transformers adds nothing
        unread = name in ("tools", "documents") and options[name] and name not in read
        if unread or (name not in COMMON and name not in read):
            near = difflib.get_close_matches(name, [*COMMON, *read], n=1)
            hint = f"did you mean {near[0]!r}? " if near and near[0] != name else ""
            others = ", ".join(sorted(read - {"messages", *COMMON}))
            raise LayerprobeError(
                f"chat_options has {name!r}, which this chat template does not read: {hint}it reads "
                f"{others or 'no options of its own'}"
            )
    if options.get("date") and "strftime_now" not in source:
        raise LayerprobeError("chat_options has a date, but this chat template asks for none: leave it out")


def writes_date(tokenizer: Any) -> bool:
    """Whether the tokenizer's template asks for the current date, so that its text changes day by day."""
    template = getattr(tokenizer, "chat_template", None)
    return "strftime_now" in str(template or "")


@lru_cache(maxsize=64)
def variables(source: str) -> frozenset[str]:
    """Names that a template takes from outside."""
    from jinja2 import meta

    return frozenset(meta.find_undeclared_variables(_compiled(source).environment.parse(source)))


@lru_cache(maxsize=64)
def literals(source: str) -> frozenset[str]:
    """Strings that a template names in its code: what its logic may look for in a message."""
    from jinja2 import nodes

    tree = _compiled(source).environment.parse(source)
    return frozenset(str(node.value) for node in tree.find_all(nodes.Const) if isinstance(node.value, str))


def _compiled(source: str) -> Any:
    """The template as transformers compiles and keeps it."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        return _compile_jinja_template(source)
    except Exception as error:  # of several kinds
        raise LayerprobeError(f"the chat template is no template ({error})") from error


@contextmanager
def _frozen_clock(source: str, now: datetime | None) -> Iterator[None]:
    """Tell the template one moment: it has no other way to be told than its own globals."""
    if now is None or "strftime_now" not in source:
        yield
        return
    known = _compiled(source).globals
    with _WRITING:
        before = known["strftime_now"]
        known["strftime_now"] = now.strftime
        try:
            yield
        finally:
            known["strftime_now"] = before


class _TooLong(BaseException):
    """Raised in the thread whose template runs for too long; no template catches it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Break off what runs for too long in this thread, at the next Python instruction."""
    thread, lock, state = ctypes.c_ulong(threading.get_ident()), threading.Lock(), {"done": False}

    def stop() -> None:
        with lock:
            if not state["done"]:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(_TooLong))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            state["done"] = True
        timer.cancel()
