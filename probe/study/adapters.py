"""Analyses that take more than one store or less than one, as calls on the store of a study."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...analyses.probes.methods import MethodName
from ...analyses.result.options import (
    STORED,
    Classes,
    Column,
    Device,
    Label,
    Layers,
    Sites,
)
from ...hooks.errors import LayerprobeError
from .row_filter import rows_where

if TYPE_CHECKING:
    from ...analyses.result.analysis import AnalysisResult
    from ...cache.store.activations import ActivationStore
    from ...hooks.model import Model


def generalisation(
    store: ActivationStore,
    *,
    label: Label,
    across: Column,
    method: MethodName = "logistic",
    sites: Sites = None,
    layers: Layers = None,
    groups: Any = STORED,
    n_bootstrap: int = 1000,
    seed: int = 0,
    device: Device = None,
) -> AnalysisResult:
    """`generalisation_matrix` between the domains that a column of the prompts names.

    Args:
        across: label column that names the domain (topic, data set) of a prompt.
    """
    from ...analyses.validation.transfer import generalisation_matrix

    domains = list(dict.fromkeys(str(v) for v in store.labels(across)))
    if len(domains) < 2:
        raise LayerprobeError(f"{across!r} has the one value {domains[0]!r}; name a column with two or more")
    return generalisation_matrix(
        {name: rows_where(store, {across: name}) for name in domains},
        label=label,
        method=method,
        sites=sites,
        layers=layers,
        groups=groups,
        n_bootstrap=n_bootstrap,
        seed=seed,
        device=device,
    )


def reward_decomposition(
    store: ActivationStore,
    *,
    model: Model,
    dimensions: Classes,
    site: str = "final_norm",
    layer: int | None = None,
    groups: Any = STORED,
    n_permutations: int = 1000,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> AnalysisResult:
    """`reward_decomposition` over the preference dimensions, fitted first, of the model's own reward head.

    Args:
        dimensions: label columns, one per dimension: two or more classes, or grades.
        n_permutations: relabellings for the p-values of the dimensions' probes.
    """
    from ...analyses.rewards.decomposition import reward_decomposition as analysis
    from ...analyses.rewards.preferences import preference_dimensions
    from ...analyses.rewards.scalar_head import reward_head

    reward, _ = reward_head(model)
    draws: dict[str, Any] = {"groups": groups, "seed": seed, "n_bootstrap": n_bootstrap}
    where: dict[str, Any] = {"sites": site, "layers": None if layer is None else [layer]}
    where["n_permutations"] = n_permutations
    # one at a time, so that classes and grades may be mixed
    probes = [preference_dimensions(store, dimensions=[name], **where, **draws) for name in dimensions]
    return analysis(store, probes, reward=reward, site=site, layer=layer, **draws)


# kind → what studies call in place of its function
ADAPTED: dict[str, Callable[..., AnalysisResult]] = {
    "generalisation_matrix": generalisation,
    "reward_decomposition": reward_decomposition,
}
