"""What is asked of a capture: checked once, carried whole, and written to the file as its identity.

Made by the verbs `capture`, `plan` and `capture_shards` and by a study; read by everything that runs one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from ...hooks.chat_template import checked_chat_options
from ...hooks.errors import LayerprobeError
from ...hooks.generation import checked_generate_options
from ...hooks.selections import parse_sites
from ...hooks.sites import SiteAt
from ..file.layout import NUMPY_TYPES
from ..prompts.columns import GENERATED_COLUMNS
from ..prompts.table import PromptTable
from ..prompts.token_rules import TokenRule, parse_rule

if TYPE_CHECKING:
    from ...hooks.model import Model

FLOATS = tuple(name for name in NUMPY_TYPES if "float" in name)

#: more layers than any model has: a site's name is checked before a model is there
_ANY_DEPTH = 1 << 16


@dataclass(frozen=True)
class CaptureRequest:
    """What is asked of a capture, whatever the model and the prompts. `capture` says what each field means.

    Raises:
        LayerprobeError: a field that no model and no prompts could satisfy.

    >>> CaptureRequest(sites="resid_post", tokens="span:answer:mean")
    CaptureRequest(sites=('resid_post',), tokens='span:answer:mean', chat_template=None, lens_tokens=(),
                   lens_first_difference=False, dtype=None, top_k=5, on_long='error', batch_tokens='auto',
                   chat_options={}, generate={})
    """

    sites: tuple[str, ...]
    """Selections such as `resid_post[-4:]`."""
    tokens: str = "last"
    """The token rule."""
    chat_template: bool | None = None
    """None: the template for chat messages only; True: each text is one user message."""
    lens_tokens: tuple[str, ...] = ()
    """Label columns whose strings are candidate answers."""
    lens_first_difference: bool = False
    """Whether answers that begin alike are scored at the first token that differs."""
    dtype: str | None = None
    """The stored type; None for the model's."""
    top_k: int = 5
    """Tokens that the lens keeps per row and layer."""
    on_long: Literal["error", "truncate"] = "error"
    """What to do with a prompt longer than the context."""
    batch_tokens: int | Literal["auto"] = "auto"
    """Tokens of a batch, padding included. The only field that is not part of a file's identity."""
    chat_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """For the chat template, as plain JSON values; what it does anyway is left out."""
    generate: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """How the model continues the prompts, as plain JSON values; {} where it does not."""

    def __post_init__(self) -> None:
        for name in ("sites", "lens_tokens"):  # one name may stand for a tuple of one
            given = getattr(self, name)
            one = isinstance(given, (str, SiteAt))
            object.__setattr__(self, name, tuple(map(str, [given] if one else given)))
        object.__setattr__(self, "chat_options", checked_chat_options(self.chat_options))
        if self.dtype is not None:
            object.__setattr__(self, "dtype", stored_type(self.dtype))
        parse_sites(self.sites, _ANY_DEPTH)
        self._check_generation(parse_rule(self.tokens))
        if not _is_count(self.top_k, 0):
            raise LayerprobeError(f"top_k={self.top_k!r}: expected how many tokens the lens keeps, 0 or more")
        if self.on_long not in ("error", "truncate"):
            raise LayerprobeError(f"on_long={self.on_long!r}: expected 'error' or 'truncate'")
        if self.batch_tokens != "auto" and not _is_count(self.batch_tokens, 1):
            raise LayerprobeError(
                f"batch_tokens={self.batch_tokens!r}: expected a number of tokens, or 'auto'"
            )

    def _check_generation(self, rule: TokenRule) -> None:
        generates = rule.kind == "generated"
        if generates != bool(self.generate):
            raise LayerprobeError(
                f"tokens={self.tokens!r} needs generate={{'max_new_tokens': 64}}, and maybe more"
                if generates
                else f"generate= is for tokens='generated', 'generated:mean' or 'generated:last', not "
                f"{self.tokens!r}"
            )
        if not generates:
            return
        object.__setattr__(self, "generate", checked_generate_options(self.generate))
        if self.lens_first_difference:
            raise LayerprobeError(
                "lens_first_difference lengthens the prompts, which generate= would then continue: leave one "
                "of them out"
            )

    @classmethod
    def of(cls, options: CaptureRequest | Mapping[str, Any]) -> CaptureRequest:
        """Keyword arguments of `capture` as a request.

        Raises:
            LayerprobeError: no sites, or a name that is no option of a capture.
        """
        if isinstance(options, CaptureRequest):
            return options
        known = [field.name for field in fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown or "sites" not in options:
            what = f"{unknown[0]!r} is no option of a capture" if unknown else "no sites given"
            raise LayerprobeError(f"{what}: it takes {', '.join(known)}, and sites it needs")
        return cls(**options)

    @classmethod
    def from_fields(cls, record: object, **changed: Any) -> CaptureRequest:
        """The request that a record with fields of the same names makes: a study's [capture], a command.

        Args:
            record: an object whose `store_dtype` stands for `dtype`; what it lacks has its default.
            **changed: fields that are something else.
        """
        names = {field.name: field.name for field in fields(cls)} | {"dtype": "store_dtype"}
        given = {name: getattr(record, theirs) for name, theirs in names.items() if hasattr(record, theirs)}
        return cls(**{**given, **changed})

    @property
    def rule(self) -> TokenRule:
        """The token rule, parsed."""
        return parse_rule(self.tokens)

    def resolve(self, model: Model, table: PromptTable) -> ResolvedRequest:
        """The same for one model and one prompt table.

        Raises:
            LayerprobeError: the model lacks a site, the table a column; patterns of many tokens.
        """
        if not hasattr(model, "parse_sites"):
            raise LayerprobeError(
                f"expected a model from load_model, got {type(model).__name__}: model = load_model(...) first"
            )
        self.rule.check_columns(table)
        chosen = model.parse_sites(self.sites)
        if self.lens_tokens:
            model.parse_sites("lens")
        if any(at.site == "attn_pattern" for at in chosen) and (not self.rule.one_row or self.rule.pooled):
            raise LayerprobeError(
                f"attn_pattern is stored for one-token rules only, not tokens={self.tokens!r}: use "
                f"tokens='last' or 'pos:3', or model.run for a look at whole patterns"
            )
        if self.generate and model.engine.head is None:
            raise LayerprobeError(f"{model.name} has no language-model head: it cannot generate")
        limited = replace(self, top_k=min(self.top_k, model.vocab_size))
        return limited.resolve_sites(
            chosen, table, n_layers=model.n_layers, dtype=stored_type(self.dtype or model.dtype)
        )

    def resolve_sites(
        self, chosen: Sequence[SiteAt], table: PromptTable, *, n_layers: int, dtype: str
    ) -> ResolvedRequest:
        """The same where only a model's depth is known.

        Args:
            chosen: `sites` of a model of this depth.
            table: the prompts.
            n_layers: blocks of the model.
            dtype: the stored type, where the request leaves it open.

        Raises:
            LayerprobeError: options for a chat template that these prompts do not pass through, a label
                column with the name of one that generation makes.
        """
        if self.chat_options and not (table.chat or self.chat_template):
            raise LayerprobeError(
                "chat_options is for the chat template, which these prompts do not pass through: give "
                "messages, or chat_template=True"
            )
        taken = [name for name in GENERATED_COLUMNS if self.generate and name in table.labels]
        if taken:
            raise LayerprobeError(
                f"generate= makes a column {taken[0]!r}, and the prompts have a label of that name: rename it"
            )
        lens = tuple(sorted(at.layer for at in chosen if at.site == "lens" and at.layer is not None))
        if self.lens_tokens and not lens:
            lens = tuple(range(n_layers))
        stored = (at for at in chosen if at.site != "lens")
        return ResolvedRequest(
            asked=self,
            sites=tuple(sorted(stored, key=lambda at: (at.site, at.layer or 0))),
            lens_layers=lens,
            chat_template=table.chat or bool(self.chat_template),
            dtype=self.dtype or dtype,
        )


@dataclass(frozen=True)
class ResolvedRequest:
    """A request of one model and one prompt table, with nothing left open."""

    asked: CaptureRequest
    sites: tuple[SiteAt, ...]
    """Activations to store, in the order of the file."""
    lens_layers: tuple[int, ...]
    """Blocks to read through the lens; () for none."""
    chat_template: bool
    dtype: str

    @property
    def rule(self) -> TokenRule:
        """The token rule."""
        return self.asked.rule

    @property
    def lens_tokens(self) -> tuple[str, ...]:
        """Label columns whose strings are candidate answers."""
        return self.asked.lens_tokens

    def fields(self) -> dict[str, Any]:
        """What of it is part of a file's identity."""
        return {
            "sites": [str(at) for at in self.sites],
            "tokens": self.rule.text,
            "lens.layers": list(self.lens_layers),
            "lens.tokens": list(self.lens_tokens),
            "lens.first_difference": self.asked.lens_first_difference,
            "lens.top_k": self.asked.top_k if self.lens_layers else None,
            "chat_template": self.chat_template,
            "dtype": self.dtype,
            "on_long": self.asked.on_long,
            # absent where there are none, as in files of before there were any
            **({"chat_options": dict(self.asked.chat_options)} if self.asked.chat_options else {}),
            **({"generate": dict(self.asked.generate)} if self.asked.generate else {}),
        }

    def narrowed(
        self, sites: tuple[SiteAt, ...], lens_layers: tuple[int, ...], lens_tokens: tuple[str, ...]
    ) -> ResolvedRequest:
        """The same for other sites and lens layers; answers are tokenised only where a lens reads them, or
        where they lengthen the prompts.
        """
        needed = lens_layers or self.asked.lens_first_difference
        asked = replace(self.asked, lens_tokens=lens_tokens if needed else ())
        return replace(self, asked=asked, sites=sites, lens_layers=lens_layers)


def identity_of_request(request: ResolvedRequest, table: PromptTable) -> dict[str, Any]:
    """The fields of a capture's identity that do not come from the model.

    Token ids follow from the prompts, the tokenizer and the template, all of which are in the identity, so
    that a finished file is recognised without tokenising anything.
    """
    return {**request.fields(), "prompts": table.sha256, "n_prompts": len(table)}


def stored_type(dtype: object) -> str:
    """The name of a type that rows may be stored in.

    Raises:
        LayerprobeError: it is not one of them.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in FLOATS:
        raise LayerprobeError(f"dtype={dtype!r}: expected {', '.join(FLOATS)}")
    return name


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
