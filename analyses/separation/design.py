"""Labels, groups, permutations and bootstrap draws that a whole call shares, so that layers are paired."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..statistics.resampling import cluster_bootstrap_weights, group_permutations
from ..statistics.resampling import label_structure as structure_of
from .codes import encode_labels
from .draws import Draws


@dataclass(frozen=True)
class Design:
    """Labels, groups and draws that all layers, sites and spaces of one call share.

    Attributes:
        codes: [rows] cluster of each row.
        classes: names of the clusters.
        groups: [rows].
        permutations: the observed labels first, then the permuted ones.
        bootstrap: the weights.
    """

    codes: NDArray[np.int64]
    classes: list[Any]
    groups: NDArray[np.int64]
    permutations: Draws | None
    bootstrap: Draws | None

    @property
    def n_groups(self) -> int:
        """Groups of rows."""
        return int(self.groups.max()) + 1


def design(
    labels: Any,
    groups: NDArray[np.int64],
    *,
    n_permutations: int,
    n_bootstrap: int,
    seed: int,
    device: str | torch.device,
    permute: str = "auto",
    names: Sequence[Any] | None = None,
) -> Design:
    """Permutations and bootstrap weights, drawn once.

    Args:
        labels: [rows].
        groups: [rows] codes.
        n_permutations: 0: no null.
        n_bootstrap: 0: no intervals.
        seed: of both.
        device: where draws live.
        permute: `auto`, `between` or `within`, as `group_permutations` has it.
        names: what the labels stand for, where they are codes 0 … K − 1.
    """
    codes, classes = encode_labels(labels)
    classes = classes if names is None else list(names)
    group_codes = torch.from_numpy(groups).to(device)
    permutations = bootstrap = None
    if n_permutations:
        drawn = group_permutations(codes, groups, n_permutations, seed, how=permute)
        permutations = Draws(
            torch.from_numpy(np.concatenate([codes[None], drawn])).to(device),
            len(classes),
            groups=group_codes,
            apart=structure_of(codes, groups) == "between" and permute != "within",
        )
    if n_bootstrap:
        weights = torch.from_numpy(cluster_bootstrap_weights(groups, n_bootstrap, seed)).to(device)
        bootstrap = Draws(torch.from_numpy(codes[None]).to(device), len(classes), weights, group_codes)
    return Design(codes, classes, groups, permutations, bootstrap)
