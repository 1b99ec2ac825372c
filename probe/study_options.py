"""The options of every analysis: the flags of a command, and the lines of a study's [[analysis]] table.

Only pydantic is imported here, so that `layerprobe --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

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


class AnalysisOptions(Options):
    """What every analysis takes."""

    per_model: ClassVar[bool] = True  # False: one call over all models together
    runs_models: ClassVar[bool] = False  # True: needs the model itself, not only its activations

    group: str | None = None
    """Column that groups rows (default: the groups of the store); `none` makes every prompt its own group."""
    where: dict[str, str | bool | int] = Field(default_factory=dict)
    """Only rows whose label columns have these values: --where COL=VALUE ..., in a study
    where = {COL = "VALUE"}."""
    seed: int = 0
    """Every random draw follows from it."""
    n_permutations: int | None = Field(default=None, ge=0)
    """Draws of the permutation null."""
    n_bootstrap: int | None = Field(default=None, ge=0)
    """Draws of the bootstrap interval."""

    def option_columns(self) -> tuple[str, ...]:
        """Label columns that this analysis reads."""
        named: list[str] = []
        for field in ("label", "axis", "role", "by"):
            value = getattr(self, field, None) or ()
            named += [value] if isinstance(value, str) else value
        groups = [self.group] if self.group and self.group != "none" else []
        return tuple(dict.fromkeys([*named, *groups, *self.where]))

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
    permute: Literal["auto", "groups", "within"] | None = None
    """What the null relabels: whole groups, or rows within each (default: groups where their label is
    constant)."""
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
    """A value of `by` that the others are compared with (default: each with all the rest)."""


class CompareOptions(AnalysisOptions):
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
    """`contrast` (the other prompt of the pair) or the name of a model of this study."""
    target: str = "answer"
    """Label column with the answers."""
    foil: str = "foil"
    """Label column with the foils."""
    role: str = "role"
    """Label column with target and contrast."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many prompts, drawn by whole groups."""


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


class AlignmentQualityOptions(AnalysisOptions):
    """Alignment Quality Index: clusters of a label in layers pooled by learned weights."""

    per_model: ClassVar[bool] = False

    label: str
    """Label column with two values (safe, unsafe)."""
    axis: str | None = None
    """Label column: one index per value, and an overall one."""
    variant: str = "default"
    """default (does not grow with the number of prompts), paper or released."""
    reference: str | None = None
    """The model that the others are compared with (default: the first)."""


class DriftOptions(AnalysisOptions):
    """Where a third kind of prompts lies between two reference clusters, per layer."""

    label: str
    """Label column that holds all three values."""
    start: str
    """Value at position 0."""
    end: str
    """Value at position 1."""
    third: str
    """Value whose rows are placed."""


class TopicControlOptions(AnalysisOptions):
    """How much of a separation survives among prompts matched by their words."""

    label: str
    """Label column with two values."""


class UnsupervisedOptions(AnalysisOptions):
    """Structure without labels: clusterings, intrinsic dimension, effective rank, anisotropy."""

    label: str
    """Label column that clusterings are compared with."""


class _InStudy(Options):
    models: Names = ()
    """Only these models (default: all)."""


class LinearProbe(ProbeOptions, _InStudy):
    kind: Literal["linear_probe"] = "linear_probe"


class Separation(SeparationOptions, _InStudy):
    kind: Literal["separation"] = "separation"


class Suppression(SuppressionOptions, _InStudy):
    kind: Literal["suppression"] = "suppression"


class Compare(CompareOptions, _InStudy):
    kind: Literal["compare"] = "compare"


class Behaviour(BehaviourOptions, _InStudy):
    kind: Literal["behaviour"] = "behaviour"


class Attribution(AttributionOptions, _InStudy):
    kind: Literal["attribution"] = "attribution"


class Ablation(AblationOptions, _InStudy):
    kind: Literal["ablation"] = "ablation"


class Patching(PatchingOptions, _InStudy):
    kind: Literal["patching"] = "patching"


class Causal(CausalOptions, _InStudy):
    kind: Literal["causal"] = "causal"


class AlignmentQuality(AlignmentQualityOptions, _InStudy):
    kind: Literal["alignment_quality"] = "alignment_quality"


class Drift(DriftOptions, _InStudy):
    kind: Literal["drift"] = "drift"


class TopicControl(TopicControlOptions, _InStudy):
    kind: Literal["topic_control"] = "topic_control"


class Unsupervised(UnsupervisedOptions, _InStudy):
    kind: Literal["unsupervised"] = "unsupervised"


# The [[analysis]] tables of a study, told apart by `kind`.
KINDS = (
    *(LinearProbe, Separation, Suppression, Compare, Behaviour, Attribution, Patching, Causal),
    *(Ablation, AlignmentQuality, Drift, TopicControl, Unsupervised),
)
Analysis = Annotated[
    LinearProbe
    | Separation
    | Suppression
    | Compare
    | Behaviour
    | Attribution
    | Ablation
    | Patching
    | Causal
    | AlignmentQuality
    | Drift
    | TopicControl
    | Unsupervised,
    Field(discriminator="kind"),
]
