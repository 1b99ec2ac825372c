"""Mean activation norm by label: a whole analysis in one file, which a package may register as its own."""

import numpy as np

from layerprobe.analyses.reading.places import list_places
from layerprobe.analyses.result.analysis import AnalysisResult, tidy
from layerprobe.analyses.result.charts import layer_curves
from layerprobe.analyses.result.findings import Claim, Finding, decide_interval
from layerprobe.analyses.result.options import STORED, Count, Label, Layers
from layerprobe.analyses.result.registry import analysis
from layerprobe.analyses.statistics import resampling
from layerprobe.cache.store.activations import ActivationStore

DIFFERS = Claim("differs", found="the norms differ", not_found="no evidence that the norms differ")


def found(result: AnalysisResult) -> list[Finding]:
    """Per model: the difference between two classes at the last layer."""
    rows = result.table.query("minus.notna()").groupby("model", sort=False).tail(1).to_dict("records")
    return [Finding.of(r, DIFFERS, decide_interval(r["lo"], r["hi"]), lead=True) for r in rows]


def draw(result: AnalysisResult) -> object:
    """The norm of each class over layers, a panel per model."""
    norms = result.table.query("minus.isna()")
    return layer_curves(norms, y_title="mean norm", colour="subset", dash="site", facet="model", zero=True)


@analysis(title="How long are activations, by “{label}”?", group="shape", findings=found, picture=draw)
def activation_norm(
    store: ActivationStore,
    *,
    label: Label,
    layers: Layers = None,
    groups: object = STORED,
    n_bootstrap: Count = 1000,
    seed: int = 0,
) -> AnalysisResult:
    """Mean length of the activations of each class, at every site and layer.

    Args:
        label: column whose values are compared.
        layers: default: all.
        n_bootstrap: draws of the interval.
        seed: of the draws.
    """
    values = np.asarray(store.labels(label)).astype(str)
    keys = resampling.resolve_groups(store, groups)
    weights = np.vstack([np.ones(len(keys)), resampling.cluster_bootstrap_weights(keys, n_bootstrap, seed)])
    classes, rows = sorted(set(values)), []
    for place in list_places(store, None, layers):
        norms = np.linalg.norm(np.asarray(store.activations(place.site, place.layer), float), axis=-1)
        means = {v: weights @ (norms * (values == v)) / (weights @ (values == v)) for v in classes}
        for subset, minus in [(v, None) for v in classes] + [(v, classes[0]) for v in classes[1:]]:
            draws = means[subset] - (means[minus] if minus else 0)
            lo, hi = resampling.bootstrap_interval(draws[1:])
            about = {"model": store.model_name, "subset": subset, "minus": minus, "target": label}
            numbers = {"metric": "activation_norm", "estimate": draws[0], "lo": lo, "hi": hi}
            rows.append({**about, **vars(place), **numbers})
    return AnalysisResult("activation_norm", tidy(rows))
