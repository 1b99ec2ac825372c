"""What the site `lens` keeps of every row and layer: a few numbers instead of a whole vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ...hooks.errors import LayerprobeError

#: the array fields, in the order in which a store keeps them
LENS_ARRAYS = (
    "candidate_ids",
    "candidate_logits",
    "candidate_ranks",
    "logsumexp",
    "top_ids",
    "top_logits",
    "kl_to_final",
)


@dataclass(frozen=True)
class LensTable:
    """Logit-lens readouts of every row at every layer.

    `layers` counts blocks from 0; entry l is read from `resid_post[l]` through the final norm and the
    unembedding, so the last layer is the model's own output. `C` columns are the lens tokens, `V` the surface
    variants of a string.
    """

    layers: tuple[int, ...]
    """Block numbers, L of them, ascending."""
    columns: tuple[str, ...]
    """The label columns whose strings are candidate answers, C of them."""
    candidate_ids: np.ndarray
    """[rows, C, V] token ids, -1 where a string has fewer variants."""
    candidate_logits: np.ndarray
    """[L, rows, C, V] float32 logits, NaN where `candidate_ids` is -1."""
    candidate_ranks: np.ndarray
    """[L, rows, C, V] int32 rank among the vocabulary, 0 is the top token, -1 where padded."""
    logsumexp: np.ndarray
    """[L, rows] float32 log of the sum of exponentials over the whole vocabulary."""
    top_ids: np.ndarray
    """[L, rows, k] int32 most likely tokens, best first."""
    top_logits: np.ndarray
    """[L, rows, k] float32."""
    kl_to_final: np.ndarray
    """[L, rows] float32 KL divergence, in nats, of the final distribution from the lens distribution."""

    def __post_init__(self) -> None:
        expected = self._expected_shapes()
        for field in fields(self):
            if field.name not in expected:
                continue
            found = np.shape(getattr(self, field.name))
            if any(
                want not in (None, have) for want, have in zip(expected[field.name], found, strict=False)
            ) or (len(found) != len(expected[field.name])):
                raise LayerprobeError(
                    f"LensTable.{field.name} has shape {found}, expected {expected[field.name]} "
                    f"for {len(self.layers)} layers and columns {list(self.columns)}"
                )

    def _expected_shapes(self) -> dict[str, tuple[int | None, ...]]:
        n_layers, n_columns = len(self.layers), len(self.columns)
        rows = len(self.logsumexp[0]) if n_layers else 0
        variants = np.shape(self.candidate_ids)[-1]
        top = np.shape(self.top_ids)[-1]
        candidate = (n_layers, rows, n_columns, variants)
        return {
            "candidate_ids": candidate[1:],
            "candidate_logits": candidate,
            "candidate_ranks": candidate,
            "logsumexp": (n_layers, rows),
            "top_ids": (n_layers, rows, top),
            "top_logits": (n_layers, rows, top),
            "kl_to_final": (n_layers, rows),
        }

    @property
    def n_rows(self) -> int:
        """Rows, as in the store that carries this table."""
        return int(np.shape(self.logsumexp)[1])

    def column(self, name: str) -> int:
        """The index of a lens-token column.

        Raises:
            LayerprobeError: when the store was captured without it.
        """
        if name not in self.columns:
            raise LayerprobeError(
                f"no lens tokens {name!r} in this store, which has {list(self.columns)}: "
                f"capture with lens_tokens=[..., {name!r}]"
            )
        return self.columns.index(name)
