"""Options of the analyses that fit probes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .options import AnalysisOptions, Names, PermutedOptions, SolvedOptions

Method = Literal["logistic", "logistic_unscaled", "ridge", "mass_mean", "mass_mean_covariance", "shrunk_lda"]


class _FittedOptions(PermutedOptions, SolvedOptions):
    held_out: float | str | None = None
    """Share of the groups that is scored and never fitted on, or the name of a split (default: 0.3)."""
    n_folds: int | None = Field(default=None, ge=2)
    """Folds among the training groups, which choose strength and layer (default: 5)."""
    metrics: Names = ()
    """auroc, balanced_accuracy, log_loss, r2 ...; the first is tested (default: those of the task)."""
    class_weight: Literal["balanced"] | None = None
    """balanced: classes count equally in the fit, however many rows they have."""


class ProbeOptions(_FittedOptions):
    """Linear probes, one per site and layer."""

    label: str | Names
    """Label column to predict; several are probed one by one and corrected together."""
    method: Method = "logistic"
    """How the probe is fitted."""
    positive: str | None = None
    """The positive one of two classes (default: the second in sorted order)."""


class ContrastProbeOptions(_FittedOptions):
    """CCS and CRC: a direction from pairs of opposite statements, fitted without their labels."""

    label: str
    """Label column that says whether the row's statement is true; for scores, and one bit of fitting."""
    side: str
    """Label column that says which of the two answers the row carries."""
    pair: str | None = None
    """Label column that joins the two rows of a pair (default: the pairs of the store)."""
    method: Literal["ccs", "crc"] = "ccs"
    """ccs: contrast-consistent search; crc: first principal component of the differences."""


class TokenProbeOptions(_FittedOptions):
    """Probes that pool over all tokens of a prompt; needs a capture with tokens = "all" or a span."""

    label: str
    """Label column of prompts to predict, two classes."""
    method: Literal["attention", "multimax", "rolling", "exponential", "mean", "last"] = "attention"
    """How the scores of tokens become one score."""
    setting: float | None = None
    """Tokens in the window of `rolling` (5), rate of `exponential` (0.3)."""


class NestedCvOptions(SolvedOptions):
    """Cross-validated score of a probe with an interval that holds when groups are few; nothing is chosen."""

    label: str
    """Label column to predict."""
    method: Method = "logistic"
    """How the probe is fitted."""
    metric: str | None = None
    """auroc, balanced_accuracy, accuracy, log_loss, brier or mse (default: by the label)."""
    n_folds: int | None = Field(default=None, ge=4)
    """Folds (default: 5)."""
    repeats: int | None = Field(default=None, ge=1)
    """Random divisions into folds that are averaged (default: 10)."""
    positive: str | None = None
    """The positive one of two classes (default: the second in sorted order)."""


class LearningCurveOptions(SolvedOptions):
    """How much data a probe needs, and the bits that its predictions save (online codelength)."""

    label: str
    """Label column to predict."""
    method: Method = "logistic"
    """How the probe is fitted."""
    n_draws: int | None = Field(default=None, ge=1)
    """Random subsets of groups per size (default: 3)."""


class SelectivityOptions(SolvedOptions):
    """Does a probe read a property, or memorise word types? Against random labels, one per word type."""

    label: str
    """Label column of the token that is read."""
    n_controls: int | None = Field(default=None, ge=1)
    """Random labellings (default: 5)."""
    held_out: float | str | None = None
    """Share of the groups that is scored and never fitted on, or the name of a split (default: 0.3)."""


class GeneralisationOptions(SolvedOptions):
    """Fit on the prompts of one domain, score on those of every other: a matrix per layer."""

    label: str
    """Label column to predict, of the same classes in every domain, or graded."""
    across: str
    """Label column that names the domain (topic, data set) of a prompt."""
    method: Method = "logistic"
    """How the probe is fitted."""


class LeaveOneDomainOutOptions(SolvedOptions):
    """Fit on all domains but one, score on that one, for each."""

    label: str
    """Label column to predict."""
    domain: str
    """Label column that names the domain (topic, data set) of a prompt."""
    method: Method = "logistic"
    """How the probe is fitted."""


class PreferencesOptions(_FittedOptions):
    """Which preference dimensions a model tells apart, at every site and layer (MRMBench)."""

    dimensions: Names = Field(min_length=1)
    """Label columns, one per dimension: two or more classes, or grades."""
    recipe: Literal["converged", "published"] = "converged"
    """published: one epoch at learning rate 5e-5, which is far from converged."""


class ScoreHeadsOptions(_FittedOptions):
    """Ridge heads for several graded scores at once."""

    scores: Names = Field(min_length=1)
    """Label columns with numbers, one per score."""
    tolerance: float = Field(default=0.5, gt=0)
    """A prediction within it counts as right."""


class RewardDecompositionOptions(AnalysisOptions):
    """Which preference dimensions a reward model's score rests on, and what they leave unexplained."""

    runs_models: ClassVar[bool] = True

    dimensions: Names = Field(min_length=1)
    """Label columns, one per dimension: two or more classes, or grades."""
    site: str = "final_norm"
    """What the reward head reads."""
    layer: int | None = None
    """Its layer, where the site has layers."""
