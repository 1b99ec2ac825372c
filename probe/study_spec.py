"""The study as data: one frozen model behind study.toml, the command line's flags and Python.

Only pydantic is imported here, so that `layerprobe --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Options take one name or several: `sites = "resid_post"` means `sites = ["resid_post"]`.
Names = tuple[str, ...]


class Options(BaseModel):
    """Frozen, and a mistyped option is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator(
        "sites",
        "labels",
        "spans",
        "lens_tokens",
        "indices",
        "spaces",
        "models",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


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
    limit: int | None = Field(default=None, ge=1)
    """Read only the first rows."""

    @model_validator(mode="after")
    def _text_or_messages(self) -> PromptColumns:
        if self.text is not None and self.messages is not None:
            raise ValueError("text and messages are two ways to name the prompt: give one of them")
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


class AnalysisOptions(Options):
    """What every analysis takes."""

    per_model: ClassVar[bool] = True  # False: one call over all models together

    group: str | None = None
    """Column that groups rows (default: the groups of the store); `none` makes every prompt its own group."""
    where: dict[str, str | bool | int] = Field(default_factory=dict)
    """Only rows whose label columns have these values: where = {condition = "disambiguated"}."""
    seed: int = 0
    """Every random draw follows from it."""
    n_permutations: int | None = Field(default=None, ge=0)
    """Draws of the permutation null."""
    n_bootstrap: int | None = Field(default=None, ge=0)
    """Draws of the bootstrap interval."""

    def option_columns(self) -> tuple[str, ...]:
        """Label columns that this analysis reads."""
        named = [getattr(self, name, None) for name in ("label", "by")]
        return tuple(
            dict.fromkeys(
                [c for c in named if c] + [c for c in [self.group] if c and c != "none"] + [*self.where]
            )
        )

    def call_options(self) -> dict[str, Any]:
        """The options as keyword arguments of the analysis; what was not given is left to its default."""
        skip = {"kind", "models", "group", "where"}
        given = {k: getattr(self, k) for k in type(self).model_fields if k not in skip}
        return {k: v for k, v in given.items() if v is not None and v != ()}


class ProbeOptions(AnalysisOptions):
    """Linear probes, one per site and layer."""

    label: str
    """Label column to predict."""
    method: str = "logistic"
    """logistic, mass_mean, ridge ..."""
    sites: Names = ()
    """Default: every captured site with a vector per row."""


class SeparationOptions(AnalysisOptions):
    """How far the classes of a label lie apart, per site and layer."""

    label: str
    """Label column that names the clusters."""
    indices: Names = ()
    """davies_bouldin, dunn, xie_beni, calinski_harabasz, silhouette (default: all)."""
    spaces: Names = ()
    """raw, zscored, whitened (default: raw and zscored)."""
    sites: Names = ()
    """Default: every captured site with a vector per row."""


class SuppressionOptions(AnalysisOptions):
    """The lens reading of an answer and its foil, layer by layer, and what late layers take away."""

    target: str
    """Label column with the answers, or one literal answer."""
    foil: str
    """Label column with the foils, or one literal answer such as unknown."""
    by: str | None = None
    """Label column: one curve per value."""
    contrast: str | None = None
    """Label column that tells target from contrast prompts of a pair."""


class CompareOptions(AnalysisOptions):
    """Models against each other, on the same prompts."""

    per_model: ClassVar[bool] = False

    label: str | None = None
    """For probe transfer and differences of class means (default: that of the study's first probe)."""
    target: str | None = None
    """As in suppression (default: that of the study's first suppression)."""
    foil: str | None = None
    """As in suppression."""
    by: str | None = None
    """Label column: one curve per value."""
    reference: str | None = None
    """The model that the others are compared with (default: the first)."""


class _InStudy(Options):
    models: Names = ()
    """Only these models (default: all)."""


class LinearProbe(ProbeOptions, _InStudy):
    """[[analysis]] kind = "linear_probe"."""

    kind: Literal["linear_probe"] = "linear_probe"


class Separation(SeparationOptions, _InStudy):
    """[[analysis]] kind = "separation"."""

    kind: Literal["separation"] = "separation"


class Suppression(SuppressionOptions, _InStudy):
    """[[analysis]] kind = "suppression"."""

    kind: Literal["suppression"] = "suppression"


class Compare(CompareOptions, _InStudy):
    """[[analysis]] kind = "compare"."""

    kind: Literal["compare"] = "compare"


Analysis = Annotated[LinearProbe | Separation | Suppression | Compare, Field(discriminator="kind")]


class Study(Options):
    """Which models read which prompts, what is kept, and which questions are asked of it."""

    title: str = "Untitled study"
    """Heading of the report."""
    models: dict[str, ModelSpec] = Field(min_length=1)
    """NAME -> model; the first is the reference of comparisons."""
    prompts: PromptsSpec
    capture: CaptureSpec = CaptureSpec()
    analysis: Annotated[tuple[Analysis, ...], Field(min_length=1)]

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
            unknown = [name for name in item.models if name not in self.models]
            reference = getattr(item, "reference", None)
            unknown += [reference] if reference and reference not in self.models else []
            if unknown:
                raise ValueError(
                    f"{item.kind} names the model {unknown[0]!r}; the study has {', '.join(self.models)}"
                )
        return self
