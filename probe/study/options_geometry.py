"""Options of the analyses of geometry: how far classes lie apart, and what structure there is besides."""

from __future__ import annotations

from typing import ClassVar

from .options import AnalysisOptions, Names, PermutedOptions, PlacesOptions, SolvedOptions


class SeparationOptions(PermutedOptions, SolvedOptions):
    """How far the classes of a label lie apart, per site and layer."""

    label: str
    """Label column that names the clusters."""
    indices: Names = ()
    """davies_bouldin, dunn, xie_beni, calinski_harabasz, silhouette (default: all)."""
    spaces: Names = ()
    """raw, zscored, whitened (default: raw and zscored)."""


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


class DriftOptions(PlacesOptions):
    """Where a third kind of prompts lies between two reference clusters, per layer."""

    label: str
    """Label column that holds all three values."""
    start: str
    """Value at position 0."""
    end: str
    """Value at position 1."""
    third: str
    """Value whose rows are placed."""


class TopicControlOptions(PlacesOptions):
    """How much of a separation survives among prompts matched by their words."""

    label: str
    """Label column with two values."""


class UnsupervisedOptions(PermutedOptions, PlacesOptions):
    """Structure without labels: clusterings, intrinsic dimension, effective rank, anisotropy."""

    label: str
    """Label column that clusterings are compared with."""
