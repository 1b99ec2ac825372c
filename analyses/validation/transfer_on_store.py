"""`generalisation_matrix` as studies and the command line call it: one store, divided by a column."""

from typing import Any

import numpy as np

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..probes.methods import MethodName
from ..result.analysis import AnalysisResult
from ..result.options import STORED, Column, Count, Device, Draws, Label, Layers, Share, Sites


def generalisation_across(
    store: ActivationStore,
    *,
    label: Label,
    across: Column,
    method: MethodName = "logistic",
    sites: Sites = None,
    layers: Layers = None,
    groups: Any = STORED,
    held_out: Share = 0.3,
    n_folds: Count = 5,
    n_bootstrap: Draws = 1000,
    baselines: bool = True,
    seed: int = 0,
    device: Device = None,
) -> AnalysisResult:
    """`generalisation_matrix` between the domains that a column of the prompts names.

    Args:
        store: with the prompts of all domains.
        across: label column that names the domain (topic, data set) of a prompt.

    Raises:
        LayerprobeError: the column has one value; and as `generalisation_matrix`.
    """
    from .transfer import generalisation_matrix

    values = np.array([str(value) for value in store.labels(across)])
    domains = list(dict.fromkeys(values.tolist()))
    if len(domains) < 2:
        raise LayerprobeError(f"{across!r} has the one value {domains[0]!r}; name a column with two or more")
    return generalisation_matrix(
        {name: store.select(values == name) for name in domains},
        label=label,
        method=method,
        sites=sites,
        layers=layers,
        groups=groups,
        held_out=held_out,
        n_folds=n_folds,
        n_bootstrap=n_bootstrap,
        baselines=baselines,
        seed=seed,
        device=device,
    )
