"""Options of the analyses that read answers or models: lens, comparisons, attribution, patching, edits."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from .options import AnalysisOptions, Names, PermutedOptions


class SuppressionOptions(AnalysisOptions):
    """The lens reading of an answer and its foil, layer by layer, and what late layers take away."""

    target: str
    """Label column with the answers, or one literal answer."""
    foil: str
    """Label column with the foils, or one literal answer such as unknown."""
    by: str | None = None
    """Label column: one curve per value."""
    contrast: str | None = None
    """A value of `by` that the others are compared with (default: each with all the rest)."""


class CompareOptions(PermutedOptions):
    """Models against each other, on the same prompts."""

    per_model: ClassVar[bool] = False

    label: str | None = None
    """For probe transfer and differences of class means (in a study, default: that of its first probe)."""
    target: str | None = None
    """As in suppression (in a study, default: that of its first suppression)."""
    foil: str | None = None
    """As in suppression."""
    by: str | None = None
    """Label column: one curve per value."""
    reference: str | None = None
    """The model that the others are compared with (default: the first)."""


class TwoByTwoOptions(AnalysisOptions):
    """Tuning and template apart: two weights x two templates, their effects and interaction."""

    per_model: ClassVar[bool] = False

    label: str | None = None
    """Label column with two values, for differences of class means."""
    target: str | None = None
    """As in suppression."""
    foil: str | None = None
    """As in suppression."""
    by: str | None = None
    """Label column: one curve per value."""
    site: str = "resid_post"
    """The site compared."""


class ReadoutOptions(AnalysisOptions):
    """The tokens that the mean difference between two models' activations points to (runs the model)."""

    per_model: ClassVar[bool] = False
    runs_models: ClassVar[bool] = True

    reference: str | None = None
    """The model that is subtracted (default: the first)."""
    site: str = "resid_post"
    """A site as wide as the residual stream."""
    top_k: int = Field(default=10, ge=1)
    """Tokens shown per layer."""


class BehaviourOptions(AnalysisOptions):
    """What the models answer on contrastive pairs: accuracies, misfired-alignment rates, McNemar's test."""

    per_model: ClassVar[bool] = False

    target: str = "answer"
    """Label column with the evidence-supported answers."""
    foil: str = "foil"
    """Label column with the foils."""
    role: str = "role"
    """Label column with the values target and contrast; pairs are those of the prompts."""
    by: Names = ()
    """Label columns: one set of rates per combination of their values."""

    @field_validator("by", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


class AttributionOptions(AnalysisOptions):
    """Direct logit attribution: what every head and MLP writes towards the answer (runs the model)."""

    runs_models: ClassVar[bool] = True

    target: str = "answer"
    """Label column with the answers."""
    foil: str = "foil"
    """Label column with the foils."""
    by: str | None = None
    """Label column: one map per value."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many prompts, drawn by whole groups."""


class AblationOptions(AnalysisOptions):
    """What the answer loses without each head and MLP (runs the model)."""

    runs_models: ClassVar[bool] = True

    how: Literal["zero", "mean", "resample"] = "mean"
    """What takes a part's place: zeros, its mean over all tokens, or its value on another prompt."""
    target: str = "answer"
    """Label column with the answers."""
    foil: str = "foil"
    """Label column with the foils."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many prompts, drawn by whole groups."""


class _RestoringOptions(AnalysisOptions):
    runs_models: ClassVar[bool] = True

    source: str = "contrast"
    """Where values come from: `contrast` (the other prompt of the pair), or a model without the override (in
    a study its name, on the command line its folder or hub id)."""
    target: str = "answer"
    """Label column with the answers."""
    foil: str = "foil"
    """Label column with the foils."""
    role: str = "role"
    """Label column with target and contrast."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many prompts, drawn by whole groups."""

    def option_columns(self) -> tuple[str, ...]:
        """Label columns that this analysis reads; pairs are of no use where another model is the source."""
        columns = super().option_columns()
        return columns if self.source == "contrast" else tuple(c for c in columns if c != self.role)


class PatchingOptions(_RestoringOptions):
    """Activation patching by head, MLP and position: what brings the answer back (runs the model)."""

    paths: int | None = Field(default=None, ge=1)
    """Path patching among so many of the strongest heads and MLPs."""


class CausalOptions(_RestoringOptions):
    """The parts whose restoration brings the answer back, against other parts (runs the model)."""

    most: int | None = Field(default=None, ge=1)
    """At most so many parts."""
    parts: Literal["heads", "layers"] | None = None
    """Choose among heads and MLPs, or whole attention layers and MLPs (default: heads)."""


class RefusalDirectionOptions(AnalysisOptions):
    """The direction whose removal stops a model from refusing, chosen on some prompts and tested on others
    (runs the model).
    """

    runs_models: ClassVar[bool] = True

    label: str
    """Label column that tells the two kinds of prompts apart."""
    harmful: str
    """Its value on prompts that the model refuses."""
    harmless: str
    """Its value on prompts that it answers."""
    refusal_tokens: Names = Field(min_length=1)
    """Strings that a refusal begins with: I, Sorry ..."""
    max_kl: float | None = Field(default=None, gt=0)
    """Largest change on harmless prompts that a candidate may make, in nats (default: 0.1)."""
    layer_bound: float | None = Field(default=None, gt=0, le=1)
    """Only layers below this share of all (default: 0.8)."""
