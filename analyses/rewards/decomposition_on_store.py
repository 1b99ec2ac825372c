"""`reward_decomposition` as studies and commands call it: probes and reward head from store and model."""

from typing import Any

from ...cache.store.activations import ActivationStore
from ...hooks.model import Model
from ..result.analysis import AnalysisResult
from ..result.options import STORED, Classes, Draws


def reward_decomposition_on_store(
    store: ActivationStore,
    *,
    model: Model,
    dimensions: Classes,
    site: str = "final_norm",
    layer: int | None = None,
    groups: Any = STORED,
    n_permutations: Draws = 1000,
    n_bootstrap: Draws = 500,
    seed: int = 0,
) -> AnalysisResult:
    """`reward_decomposition` over preference dimensions, fitted first, of the model's own reward head.

    Args:
        store: the states that the head reads.
        model: with the reward head.
        dimensions: label columns, one per dimension: two or more classes, or grades.
        site: what the reward head reads.
        layer: its layer, where the site has layers.
        n_permutations: relabellings for the p-values of the dimensions' probes.

    Raises:
        LayerprobeError: as `preference_dimensions`, `reward_head` and `reward_decomposition`.
    """
    from .decomposition import reward_decomposition
    from .preferences import preference_dimensions
    from .scalar_head import reward_head

    reward, _ = reward_head(model)
    draws: dict[str, Any] = {"groups": groups, "seed": seed, "n_bootstrap": n_bootstrap}
    where: dict[str, Any] = {"sites": site, "layers": None if layer is None else [layer]}
    where["n_permutations"] = n_permutations
    # one at a time, so that classes and grades may be mixed
    probes = [preference_dimensions(store, dimensions=[name], **where, **draws) for name in dimensions]
    return reward_decomposition(store, probes, reward=reward, site=site, layer=layer, **draws)
