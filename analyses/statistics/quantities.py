"""Every metric of every table: what it is called, where it can lie, which way is better, its unit.

One table, so that an interval's range, a picture's axis and a sentence's name cannot disagree.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

INF = math.inf
Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Quantity:
    """One metric, by its name in tables.

    >>> QUANTITIES["auroc"].title, QUANTITIES["auroc"].difference().range
    ('AUROC', (-1.0, 1.0))
    """

    name: str
    """What the column `metric` says."""
    title: str
    """As sentences and axes call it."""
    range: tuple[float, float]
    """(lo, hi): no estimate and no bound lies outside."""
    direction: Direction | None = None
    """Which way is better, or more of what is asked about; `None` where neither is."""
    unit: str | None = None
    """`share` (written in per cent), `nats`, `bits`, `logits`, `layers`, …; `None` for plain numbers."""
    relates: bool = False
    """Whether it is of two models together (a similarity, a distance), not a number that each of them has."""

    def clip(self, value: float) -> float:
        """A bound cut to the range, since nothing beyond it can be true. NaN stays NaN."""
        return value if math.isnan(value) else min(max(value, self.range[0]), self.range[1])

    def difference(self) -> "Quantity":
        """The same of one value minus another: its range is symmetric about zero."""
        width = float(self.range[1] - self.range[0])
        return Quantity(self.name, self.title, (-width, width), self.direction, self.unit)


UNIT, SIGNED, POSITIVE, ANY = (0.0, 1.0), (-1.0, 1.0), (0.0, INF), (-INF, INF)

SET_DISTANCES = ("single", "complete", "average", "centroid", "average_to_centroids", "hausdorff")
DIAMETERS = ("maximum", "average", "centroid")

_PREDICTION = (
    Quantity("auroc", "AUROC", UNIT, "higher"),
    Quantity("auroc_within_length", "AUROC among prompts of one length", UNIT, "higher"),
    Quantity("average_precision", "average precision", UNIT, "higher"),
    Quantity("tpr_at_fpr_0.01", "true positive rate at 1 % false positives", UNIT, "higher"),
    Quantity("accuracy", "accuracy", UNIT, "higher", "share"),
    Quantity("balanced_accuracy", "balanced accuracy", UNIT, "higher"),
    Quantity("log_loss", "log loss", POSITIVE, "lower", "nats"),
    Quantity("brier", "Brier score", (0.0, 2.0), "lower"),
    Quantity("ece", "expected calibration error", UNIT, "lower"),
    Quantity("r2", "R²", (-INF, 1.0), "higher"),
    Quantity("pearson", "Pearson correlation", SIGNED, "higher"),
    Quantity("spearman", "Spearman correlation", SIGNED, "higher"),
    Quantity("kendall", "Kendall's τ-b", SIGNED, "higher"),
    Quantity("mse", "mean squared error", POSITIVE, "lower"),
    Quantity("codelength", "online codelength", POSITIVE, "lower", "bits"),
    Quantity("selectivity", "selectivity", SIGNED, "higher"),
    Quantity("unique_r2", "R² of this dimension alone", (-INF, 1.0), "higher"),
    Quantity("unexplained_norm", "relative length of the reward direction's unexplained part", UNIT, "lower"),
    Quantity("unexplained_share", "unexplained share of the reward direction", UNIT, "lower", "share"),
)
_SEPARATION = (
    Quantity("silhouette", "silhouette", SIGNED, "higher"),
    Quantity("davies_bouldin", "Davies-Bouldin", POSITIVE, "lower"),
    Quantity("calinski_harabasz", "Calinski-Harabasz", POSITIVE, "higher"),
    Quantity("dunn", "Dunn", POSITIVE, "higher"),
    Quantity("xie_beni", "Xie-Beni", POSITIVE, "lower"),
    Quantity("dunn_torchmetrics", "Dunn as in torchmetrics", POSITIVE, "higher"),
    *(
        Quantity(f"dunn_{distance}_{diameter}", f"Dunn ({distance} / {diameter})", POSITIVE, "higher")
        for distance in SET_DISTANCES
        for diameter in DIAMETERS
    ),
    Quantity("aqi", "Alignment Quality Index", POSITIVE, "higher"),
    Quantity("aqi_debiased", "Alignment Quality Index above chance", ANY, "higher"),
    Quantity("surviving_share", "share of the separation left among matched topics", ANY, "higher", "share"),
    Quantity("adjusted_rand", "adjusted Rand index", (-0.5, 1.0), "higher"),
    Quantity("adjusted_mutual_info", "adjusted mutual information", (-INF, 1.0), "higher"),
    Quantity("two_nn", "intrinsic dimension (TwoNN)", POSITIVE, None, "dimensions"),
    Quantity("effective_rank", "effective rank", POSITIVE, None, "dimensions"),
    Quantity("participation_ratio", "participation ratio", POSITIVE, None, "dimensions"),
    Quantity("anisotropy", "anisotropy", SIGNED),
    Quantity("drift_position", "position between the two clusters", ANY),
    Quantity("drift_share_end", "share nearer to the second cluster", UNIT, None, "share"),
    Quantity("drift_off_axis", "distance from the axis of the two clusters", POSITIVE),
)
_LENS = (
    Quantity("logit_difference", "logit difference", ANY, None, "logits"),
    Quantity("answer_log_probability", "log-probability of the answer", (-INF, 0.0), None, "nats"),
    Quantity("foil_log_probability", "log-probability of the foil", (-INF, 0.0), None, "nats"),
    Quantity("answer_rank", "rank of the answer", POSITIVE, "lower", "ranks"),
    Quantity("kl_to_final", "KL from lens to output", POSITIVE, "lower", "nats"),
    Quantity("suppression_index", "suppression index", ANY, None, "logits"),
    Quantity("peak_logit_difference", "logit difference at the peak", ANY, None, "logits"),
    Quantity("final_logit_difference", "logit difference at the output", ANY, None, "logits"),
    Quantity("lost_share", "share of the lead that is lost", ANY, None, "share"),
    Quantity("handoff_rate", "handoff rate", UNIT, None, "share"),
    Quantity("crossing_layer", "crossing layer", POSITIVE, None, "layers"),
    Quantity("onset_layer", "onset layer", POSITIVE, None, "layers"),
    Quantity("divergence_layer", "divergence layer", POSITIVE, None, "layers"),
)
_COMPARISON = (
    Quantity("cka_debiased", "debiased CKA", SIGNED, "higher"),
    Quantity("rsa_spearman", "RSA", SIGNED, "higher"),
    Quantity("procrustes_r2", "held-out Procrustes R²", (-INF, 1.0), "higher"),
    Quantity("effective_rank_difference", "difference of effective rank", ANY, None, "dimensions"),
    Quantity("mean_shift", "shift of the mean", ANY),
    Quantity("class_difference_change", "change of the class difference", ANY),
    Quantity("direction_cosine", "direction cosine", SIGNED, "higher"),
    Quantity("direction_cosine_ceiling", "ceiling of the direction cosine", UNIT, "higher"),
    Quantity("direction_cosine_ratio", "direction cosine over its ceiling", ANY, "higher"),
    Quantity("transfer_auroc", "AUROC of the reference's direction", UNIT, "higher"),
    Quantity("reference_auroc", "AUROC of the reference's direction at home", UNIT, "higher"),
    Quantity("own_auroc", "AUROC of the model's own direction", UNIT, "higher"),
    Quantity("transfer_accuracy", "balanced accuracy at the reference's threshold", UNIT, "higher"),
    Quantity(
        "transfer_accuracy_recentred",
        "balanced accuracy at the reference's threshold, re-centred",
        UNIT,
        "higher",
    ),
    Quantity("split_half_cosine", "cosine between halves", SIGNED, "higher"),
    Quantity("lens_kl", "KL between the models' lenses", POSITIVE, None, "nats"),
)
_RELATIONS = tuple(replace(one, relates=True) for one in _COMPARISON)
_CAUSES = (
    Quantity("direct_logit_attribution", "direct logit attribution", ANY, None, "logits"),
    Quantity("effect", "effect", ANY, None, "logits"),
    Quantity("recovery", "recovery", ANY, None, "share"),
    Quantity("recovery_of_set", "recovery by the chosen parts", ANY, None, "share"),
    Quantity("recovery_of_random_sets", "recovery by random parts", ANY, None, "share"),
    Quantity("recovery_of_random_directions", "recovery by random directions", ANY, None, "share"),
    Quantity("corrupt_logit_difference", "logit difference of the run as it is", ANY, None, "logits"),
    Quantity("clean_logit_difference", "logit difference of the other run", ANY, None, "logits"),
    Quantity("change_by_ablation", "change by ablation", ANY, None, "logits"),
    Quantity("change_on_control", "change on control prompts", ANY, None, "logits"),
    Quantity("refusal_harmful", "log-odds of refusing harmful prompts", ANY, None, "nats"),
    Quantity("refusal_harmless", "log-odds of refusing harmless prompts", ANY, None, "nats"),
    Quantity("refusal_ablated", "log-odds of refusing without the direction", ANY, None, "nats"),
    Quantity("refusal_added", "log-odds of refusing with the direction added", ANY, None, "nats"),
    Quantity("kl_ablated", "KL from the unedited model", POSITIVE, None, "nats"),
    Quantity("random_refusal_ablated", "log-odds without a random direction", ANY, None, "nats"),
    Quantity("random_refusal_added", "log-odds with a random direction added", ANY, None, "nats"),
    Quantity("random_kl_ablated", "KL without a random direction", POSITIVE, None, "nats"),
)
_BEHAVIOUR = (
    Quantity("a", "pairs with both right", POSITIVE, None, "count"),
    Quantity("b", "pairs with only the target right", POSITIVE, None, "count"),
    Quantity("c", "pairs with only the contrast right", POSITIVE, None, "count"),
    Quantity("d", "pairs with neither right", POSITIVE, None, "count"),
    Quantity("accuracy_target", "accuracy on targets", UNIT, "higher", "share"),
    Quantity("accuracy_contrast", "accuracy on contrasts", UNIT, "higher", "share"),
    Quantity("mar_conditional", "misfired-alignment rate", UNIT, "lower", "share"),
    Quantity("mar_all_pairs", "misfired-alignment rate over all pairs", UNIT, "lower", "share"),
    Quantity("br_conditional", "bias rate", UNIT, "lower", "share"),
    Quantity("br_all_pairs", "bias rate over all pairs", UNIT, "lower", "share"),
    Quantity("mcnemar", "contrast-only minus target-only pairs", ANY, None, "count"),
)

QUANTITIES: dict[str, Quantity] = {
    one.name: one
    for part in (_PREDICTION, _SEPARATION, _LENS, _RELATIONS, _CAUSES, _BEHAVIOUR)
    for one in part
}
"""Metric name → what it is. Families with a parameter in their name are read by `quantity`."""

WITHIN = "accuracy_within_"


def quantity(metric: str) -> Quantity:
    """Any metric by name, also `accuracy_within_<tolerance>`; unknown ones get no range and no direction.

    >>> quantity("accuracy_within_0.5").title, quantity("something_new").range
    ('accuracy within ± 0.5', (-inf, inf))
    """
    if metric in QUANTITIES:
        return QUANTITIES[metric]
    if metric.startswith(WITHIN):
        return Quantity(metric, f"accuracy within ± {metric.removeprefix(WITHIN)}", UNIT, "higher", "share")
    return Quantity(metric, metric.replace("_", " "), ANY)
