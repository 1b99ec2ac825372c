"""The study as data: one frozen model behind study.toml, the command line's flags and Python.

Only pydantic is imported here, so that `layerprobe --help` answers at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from ...analyses.result import catalogue
from .nearest import suggest
from .option_models import InStudy, Options, table_of
from .signature import Names


class ModelOptions(Options):
    """How a model is loaded."""

    engine: Literal["huggingface", "transformer_lens", "nnsight"] = "huggingface"
    """What runs the model."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    dtype: str | None = None
    """float32, bfloat16 or float16; default: the checkpoint's own (float32 on a CPU)."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository ships."""
    chat_template: bool | None = None
    """True: each text becomes one user message; default: the template only where prompts are messages."""
    chat_options: dict[str, Any] = Field(default_factory=dict)
    """For the chat template: enable_thinking, tools, date, continue_final_message, add_generation_prompt."""

    @field_validator("chat_options", mode="before")
    @classmethod
    def _dates_as_text(cls, options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        return {k: v.isoformat() if isinstance(v, date) else v for k, v in options.items()}


class ModelSpec(ModelOptions):
    """One [models.NAME] table."""

    source: str
    """Local folder, hub id, or one of the shipped models: demo:base, demo:instruct, demo:instruct_null."""


class PromptColumns(Options):
    """Which columns of the prompt table mean what."""

    text: str | None = None
    """Column with the text of the prompt (default: prompt)."""
    messages: str | None = None
    """Column with chat messages, instead of a text."""
    token_ids: str | None = None
    """Column with token ids, instead of a text."""
    labels: Names = ()
    """Label columns to keep beside the activations."""
    group: str | None = None
    """Column whose equal values never straddle a train/test split (paraphrases, contrastive pairs)."""
    pair: str | None = None
    """Column that joins the members of a contrastive pair."""
    split: str | None = None
    """Column that names the rows held out (train/test)."""
    spans: Names = ()
    """Columns with character spans, for token rules such as span:NAME."""
    id: str | None = None
    """Column with the id of the row (default: the row number)."""
    sep: str | None = None
    """What separates the columns of a CSV file (default: what its first line shows)."""
    encoding: str = "utf-8"
    """Encoding of a text file: utf-8, latin-1, cp1252 ..."""
    limit: int | None = Field(default=None, ge=1)
    """Read only the first rows, unshuffled: where a file is sorted by label, shuffle it yourself."""

    @model_validator(mode="after")
    def _text_or_messages(self) -> PromptColumns:
        given = [name for name in ("text", "messages", "token_ids") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two ways to name the prompt: give one of them")
        return self


class PromptsSpec(PromptColumns):
    """The [prompts] table."""

    file: str
    """JSONL, CSV, Parquet or a saved datasets folder; demo:prompts for the shipped prompts."""


class CaptureSpec(Options):
    """The [capture] table: what is kept of every forward pass."""

    sites: Annotated[Names, Field(min_length=1)] = ("resid_post",)
    """Where to read: resid_post, resid_post[8:24:2], head_out[-4:], lens ..."""
    tokens: str = "last"
    """Token rule: last, first, pos:3, all, mean, span:NAME:mean ..."""
    lens_tokens: Names = ()
    """Label columns whose strings are candidate answers (site lens)."""
    lens_first_difference: bool = False
    """Where answer and foil begin with the same token, score the first token that differs."""
    top_k: int = Field(default=5, ge=1)
    """How many top tokens the lens keeps."""
    batch_tokens: int | Literal["auto"] = "auto"
    """Tokens per batch, padding included."""
    store_dtype: str | None = None
    """dtype in the file (default: the model's)."""
    on_long: Literal["error", "truncate"] = "error"
    """What to do with a prompt longer than the model's context."""
    generate: dict[str, Any] = Field(default_factory=dict)
    """How the model continues the prompts, for tokens = generated: max_new_tokens, do_sample, seed ..."""


def _table(value: Any) -> Any:
    """An [[analysis]] table as the options of its kind; the module of that analysis is imported."""
    if not isinstance(value, Mapping):
        return value
    if "kind" not in value:
        raise ValueError(f"needs 'kind', the analysis to run; choose from {', '.join(catalogue.listed())}")
    kind = catalogue.name_of(str(value["kind"]))
    if kind is None:
        raise ValueError(unknown_kind(str(value["kind"])))
    return table_of(kind).model_validate({**value, "kind": kind})


def unknown_kind(name: str) -> str:
    """What to say of a kind that there is not; former names and commands are known too, but not listed."""
    listed = catalogue.listed()
    known = {other: kind for kind, one in listed.items() for other in (*one.aliases, one.command, kind)}
    return f"unknown kind {name!r}; {suggest(name, known, shown=listed)}"


AnyAnalysis = Annotated[SerializeAsAny[InStudy], BeforeValidator(_table)]


class Study(Options):
    """Which models read which prompts, what is kept, and which questions are asked of it."""

    title: str = "Untitled study"
    """Heading of the report."""
    models: dict[str, ModelSpec] = Field(min_length=1)
    """NAME -> model; the first is the reference of comparisons."""
    prompts: PromptsSpec
    capture: CaptureSpec = CaptureSpec()
    analysis: Annotated[tuple[AnyAnalysis, ...], Field(min_length=1)]

    @field_validator("models")
    @classmethod
    def _file_names(cls, models: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
        for name in models:
            if not name or any(c in name for c in "/\\\0") or name.startswith("."):
                raise ValueError(
                    f"the model name {name!r} becomes a file name: use letters, digits, spaces, '-', '_'"
                )
        return models

    @model_validator(mode="after")
    def _known_models(self) -> Study:
        for item in self.analysis:
            named = item.named("model", "loaded")
            asked = [
                *item.models,
                *(n for o, names in named.items() if not item.is_default(o) for n in names),
            ]
            if unknown := [name for name in asked if name not in self.models]:
                raise ValueError(
                    f"{item.kind} names the model {unknown[0]!r}; the study has {', '.join(self.models)}"
                )
        return self
