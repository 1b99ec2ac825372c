"""The arguments of a capture, checked against the model and the prompts before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from ...hooks.chat_template import checked_chat_options
from ...hooks.errors import LayerprobeError
from ...hooks.sites import SiteAt
from ...hooks.tokens import is_token_ids
from ..file.layout import NUMPY_TYPES
from ..prompts.cells import Prompt, ids_cell, messages_cell
from ..prompts.table import PromptTable
from ..prompts.token_rules import TokenRule, parse_rule
from ..store.sameness import model_fields

if TYPE_CHECKING:
    from ...hooks.model import Model

FLOATS = tuple(name for name in NUMPY_TYPES if "float" in name)


@dataclass(frozen=True)
class Options:
    """The arguments of a capture that decide what is stored."""

    sites: tuple[SiteAt, ...]
    rule: TokenRule
    lens_layers: tuple[int, ...]
    lens_tokens: tuple[str, ...]
    lens_first_difference: bool
    chat_template: bool
    dtype: str
    top_k: int
    on_long: Literal["error", "truncate"]
    chat_options: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Fields of the identity."""
        return {
            "sites": [str(at) for at in self.sites],
            "tokens": self.rule.text,
            "lens.layers": list(self.lens_layers),
            "lens.tokens": list(self.lens_tokens),
            "lens.first_difference": self.lens_first_difference,
            "lens.top_k": self.top_k if self.lens_layers else None,
            "chat_template": self.chat_template,
            "dtype": self.dtype,
            "on_long": self.on_long,
            **({"chat_options": dict(self.chat_options)} if self.chat_options else {}),
        }


def make_options(
    model: Model,
    table: PromptTable,
    *,
    sites: Sequence[str] | str,
    tokens: str,
    chat_template: bool | None,
    lens_tokens: tuple[str, ...],
    lens_first_difference: bool,
    dtype: str | None,
    top_k: int,
    on_long: Literal["error", "truncate"],
    chat_options: Mapping[str, Any] | None = None,
) -> Options:
    if not hasattr(model, "parse_sites"):
        raise LayerprobeError(
            f"expected a model from load_model, got {type(model).__name__}: model = load_model(...) first"
        )
    rule = parse_rule(tokens)
    rule.check_columns(table)
    chosen = model.parse_sites(sites)
    if lens_tokens:
        model.parse_sites("lens")
    name = str(dtype or model.dtype).removeprefix("torch.")
    if name not in FLOATS:
        raise LayerprobeError(f"dtype={dtype!r}: expected {', '.join(FLOATS)}")
    if not isinstance(top_k, Integral) or top_k < 0:
        raise LayerprobeError(f"top_k={top_k!r}: expected how many tokens the lens keeps, 0 or more")
    if on_long not in ("error", "truncate"):
        raise LayerprobeError(f"on_long={on_long!r}: expected 'error' or 'truncate'")
    stored, lens_layers = split_sites(chosen, lens_tokens, model.n_layers)
    if any(at.site == "attn_pattern" for at in stored) and (not rule.one_row or rule.pooled):
        raise LayerprobeError(
            f"attn_pattern is stored for one-token rules only, not tokens={tokens!r}: use tokens='last' or "
            f"'pos:3', or model.run for a look at whole patterns"
        )
    return Options(
        sites=stored,
        rule=rule,
        lens_layers=lens_layers,
        lens_tokens=lens_tokens,
        lens_first_difference=lens_first_difference,
        chat_template=table.chat or bool(chat_template),
        dtype=name,
        top_k=min(top_k, model.vocab_size),
        on_long=on_long,
        chat_options=options_of_chat(table, chat_template, chat_options),
    )


def options_of_chat(
    table: PromptTable, chat_template: bool | None, chat_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The options of the chat template, where there is a chat.

    Raises:
        LayerprobeError: options for prompts that no template sees.
    """
    options = checked_chat_options(chat_options)
    if options and not (table.chat or chat_template):
        raise LayerprobeError(
            "chat_options is for the chat template, which these prompts do not pass through: give messages, "
            "or chat_template=True"
        )
    return options


def split_sites(
    chosen: Sequence[SiteAt], lens_tokens: Sequence[str], n_layers: int
) -> tuple[tuple[SiteAt, ...], tuple[int, ...]]:
    """Sites to store in a fixed order, and the layers to read through the lens."""
    lens = tuple(sorted(at.layer for at in chosen if at.site == "lens" and at.layer is not None))
    if lens_tokens and not lens:
        lens = tuple(range(n_layers))
    stored = (at for at in chosen if at.site != "lens")
    return tuple(sorted(stored, key=lambda at: (at.site, at.layer or 0))), lens


def request_fields(
    table: PromptTable,
    chosen: Sequence[SiteAt],
    rule: TokenRule,
    *,
    n_layers: int,
    chat_template: bool | None,
    lens_tokens: tuple[str, ...],
    lens_first_difference: bool,
    dtype: str,
    top_k: int,
    on_long: Literal["error", "truncate"],
    chat_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of a capture's identity that do not come from the model."""
    stored, lens_layers = split_sites(chosen, lens_tokens, n_layers)
    options = Options(
        sites=stored,
        rule=rule,
        lens_layers=lens_layers,
        lens_tokens=lens_tokens,
        lens_first_difference=lens_first_difference,
        chat_template=table.chat or bool(chat_template),
        dtype=dtype,
        top_k=top_k,
        on_long=on_long,
        chat_options=options_of_chat(table, chat_template, chat_options),
    )
    return {**options.as_dict(), "prompts": table.sha256, "n_prompts": len(table)}


def text_table(texts: Iterable[Prompt]) -> PromptTable:
    """A bare table of texts, or of chats.

    Raises:
        LayerprobeError: it is neither; what looks like a table with columns is not guessed at.
    """
    expected = "expected a PromptTable (read_prompts), or a list of texts, of chats or of token ids"
    if isinstance(texts, str):
        raise LayerprobeError(f"{expected}, got one text: [{texts[:40]!r}]")
    if isinstance(texts, Mapping) or hasattr(texts, "columns") or not isinstance(texts, Iterable):
        way = ": read_prompts(frame, text=COLUMN)" if hasattr(texts, "columns") else ""
        raise LayerprobeError(f"{expected}, got {type(texts).__name__}{way}")
    prompts = tuple(texts)
    if not prompts:
        raise LayerprobeError(f"{expected}, got no prompts")
    kinds = [_kind(prompt) for prompt in prompts]
    for row, kind in enumerate(kinds):
        if kind is None:
            way = ": read_prompts(rows, text=COLUMN)" if isinstance(prompts[row], Mapping) else ""
            raise LayerprobeError(f"{expected}, got {type(prompts[row]).__name__} at {row}{way}")
        if kind != kinds[0]:
            raise LayerprobeError(f"{expected}, got {kinds[0]}s and {kind}s in one list, first at {row}")
    read = {"text": lambda prompt, _: prompt, "chat": messages_cell, "list of token id": ids_cell}[
        kinds[0] or ""
    ]
    checked = tuple(read(prompt, f"prompt {row}") for row, prompt in enumerate(prompts))
    return PromptTable(tuple(str(row) for row in range(len(prompts))), checked, name="texts")


def _kind(prompt: Any) -> str | None:
    if isinstance(prompt, str):
        return "text"
    if is_token_ids(prompt) or (hasattr(prompt, "dtype") and prompt.dtype.kind in "iu"):
        return "list of token id"
    return "chat" if isinstance(prompt, list) else None


def capture_identity(model: Model, table: PromptTable, options: Options) -> dict[str, Any]:
    """Everything that must agree for two captures to be the same.

    Token ids follow from the prompts, the tokenizer and the template, all of which are in here, so that a
    finished file is recognised without tokenising anything.
    """
    return {**model_fields(model), **options.as_dict(), "prompts": table.sha256, "n_prompts": len(table)}
