"""The one table of analyses: kind, options, the function behind it, the name on the command line.

A new analysis is one line here and one class of options. Only pydantic is imported, so that
`layerprobe --help` answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import Field, create_model

from .options import AnalysisOptions, InStudy, Made
from .options_geometry import (
    AlignmentQualityOptions,
    DriftOptions,
    SeparationOptions,
    TopicControlOptions,
    UnsupervisedOptions,
)
from .options_models import (
    AblationOptions,
    AttributionOptions,
    BehaviourOptions,
    CausalOptions,
    CompareOptions,
    PatchingOptions,
    ReadoutOptions,
    RefusalDirectionOptions,
    SuppressionOptions,
    TwoByTwoOptions,
)
from .options_probes import (
    ContrastProbeOptions,
    GeneralisationOptions,
    LearningCurveOptions,
    LeaveOneDomainOutOptions,
    NestedCvOptions,
    PreferencesOptions,
    ProbeOptions,
    RewardDecompositionOptions,
    ScoreHeadsOptions,
    SelectivityOptions,
    TokenProbeOptions,
)


@dataclass(frozen=True)
class Kind:
    """One analysis as studies and the command line know it."""

    name: str
    """`kind` in a study."""
    options: type[AnalysisOptions]
    """What it takes."""
    function: str
    """Its public name, or module:name below `layerprobe`; imported when called, for each is heavy."""
    command: str
    """What is typed after `layerprobe`."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("linear_probe", ProbeOptions, "linear_probe", "probe"),
        Kind("separation", SeparationOptions, "separation", "separate"),
        Kind("suppression", SuppressionOptions, "suppression", "suppress"),
        Kind("compare", CompareOptions, "compare", "compare"),
        Kind("contrast_probe", ContrastProbeOptions, "contrast_probe", "contrast-probe"),
        Kind("token_probe", TokenProbeOptions, "token_probe", "token-probe"),
        Kind("nested_cv", NestedCvOptions, "nested_cv", "nested-cv"),
        Kind(
            "learning_curve",
            LearningCurveOptions,
            "learning_curve",
            "learning-curve",
        ),
        Kind("selectivity", SelectivityOptions, "selectivity", "selectivity"),
        Kind("generalisation", GeneralisationOptions, "probe.study.calls:generalisation", "generalisation"),
        Kind(
            "leave_one_domain_out",
            LeaveOneDomainOutOptions,
            "leave_one_domain_out",
            "leave-one-domain-out",
        ),
        Kind("preferences", PreferencesOptions, "preference_dimensions", "preferences"),
        Kind(
            "reward_decomposition",
            RewardDecompositionOptions,
            "probe.study.calls:reward_decomposition",
            "reward-decomposition",
        ),
        Kind("score_heads", ScoreHeadsOptions, "score_heads", "score-heads"),
        Kind("topic_control", TopicControlOptions, "topic_control", "topic-control"),
        Kind("unsupervised", UnsupervisedOptions, "unsupervised", "unsupervised"),
        Kind("alignment_quality", AlignmentQualityOptions, "aqi", "aqi"),
        Kind("drift", DriftOptions, "drift", "drift"),
        Kind("two_by_two", TwoByTwoOptions, "probe.study.calls:two_by_two", "two-by-two"),
        Kind("readout", ReadoutOptions, "probe.study.calls:readout", "readout"),
        Kind("behaviour", BehaviourOptions, "behaviour", "behaviour"),
        Kind("attribution", AttributionOptions, "attribution", "attribution"),
        Kind("ablation", AblationOptions, "ablation", "ablation"),
        Kind("patching", PatchingOptions, "patching", "patching"),
        Kind("causal", CausalOptions, "causal", "causal"),
        Kind(
            "refusal_direction",
            RefusalDirectionOptions,
            "probe.study.calls:refusal_direction",
            "refusal-direction",
        ),
    )
}


def _in_study(kind: Kind) -> type[AnalysisOptions]:
    """The options of a kind as an [[analysis]] table has them."""
    field: dict[str, Any] = {"kind": (Literal[kind.name], kind.name)}
    made: Any = create_model(  # type: ignore[call-overload]
        kind.options.__name__.removesuffix("Options"),
        __base__=(kind.options, InStudy, Made),
        __doc__=kind.options.__doc__,
        **field,
    )
    return made  # type: ignore[no-any-return]


#: kind -> the model of its [[analysis]] table
TABLES: dict[str, type[AnalysisOptions]] = {name: _in_study(kind) for name, kind in KINDS.items()}

if TYPE_CHECKING:

    class Analysis(AnalysisOptions, InStudy):
        """Any of TABLES, told apart by `kind`."""

        kind: str

else:
    Analysis: Any = Annotated[Union[tuple(TABLES.values())], Field(discriminator="kind")]  # noqa: UP007
