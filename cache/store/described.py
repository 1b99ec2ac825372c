"""What a store says of itself and its rows (sites, layers, labels, groups, texts), apart from the values."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ..prompts.columns import PromptColumns, same_codes
from .lens_table import LensTable
from .protocol import StoreInfo, Values


class Described:
    """The descriptive half of `ActivationStore`."""

    def __init__(
        self,
        info: StoreInfo,
        columns: PromptColumns,
        values: Values,
        *,
        examples: np.ndarray,
        positions: np.ndarray,
        lens: LensTable | None = None,
        path: Path | None = None,
    ) -> None:
        self._info = info
        self._columns = columns
        self._values = values
        self._examples = examples
        self._positions = positions
        self._lens = lens
        self._path = path
        self._texts: list[str] | None = None

    # what it is
    @property
    def path(self) -> Path | None:
        """The file, or None in memory."""
        return self._path

    @property
    def complete(self) -> bool:
        """Whether every row was written."""
        return self._info.complete

    @property
    def n_rows(self) -> int:
        """Rows of every activation array."""
        return len(self._examples)

    @property
    def n_prompts(self) -> int:
        """Prompts behind the rows."""
        return len(self._columns)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites held, without layers."""
        return self._info.sites

    @property
    def tokens(self) -> str:
        """The token rule that made the rows."""
        return self._info.tokens

    @property
    def model_name(self) -> str:
        """A short name of the model, for tables."""
        return self._info.model_name

    @property
    def dataset_name(self) -> str:
        """A short name of the prompts, for tables."""
        return self._info.dataset_name

    @property
    def dtype(self) -> str:
        """The type stored."""
        return self._info.dtype

    @property
    def provenance(self) -> dict[str, Any]:
        """How the numbers came to be: versions, options, times."""
        return dict(self._info.provenance)

    @property
    def identity(self) -> dict[str, Any]:
        """What must agree for two captures to be the same."""
        return dict(self._info.identity)

    def layers(self, site: str) -> tuple[int, ...]:
        """Layers held of a site, ascending; () for a site that has none."""
        return tuple(self._info.layers[self._known(site)])

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row at a site, such as (d_model,) or (heads, d_head)."""
        return self._values.shape(self._known(site))

    # rows
    @property
    def examples(self) -> np.ndarray:
        """[rows] int64 prompt of each row."""
        return self._examples

    @property
    def positions(self) -> np.ndarray:
        """[rows] int64 token position in the prompt, -1 where a row pools several tokens."""
        return self._positions

    @property
    def lengths(self) -> np.ndarray | None:
        """[rows] tokens of each row's prompt, or None where nobody gave them."""
        return self._per_row(self._columns.lengths)

    @property
    def ids(self) -> np.ndarray:
        """[rows] prompt ids."""
        return self._columns.ids[self._examples]

    @property
    def groups(self) -> np.ndarray | None:
        """[rows] keys of rows that must never straddle a split, or None."""
        return self._per_row(self._columns.groups)

    @property
    def pairs(self) -> np.ndarray | None:
        """[rows] keys of contrastive pairs, or None."""
        return self._per_row(self._columns.pairs)

    @property
    def splits(self) -> np.ndarray | None:
        """[rows] names of given splits, or None."""
        return self._per_row(self._columns.splits)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label columns held."""
        return tuple(self._columns.labels)

    def labels(self, name: str) -> np.ndarray:
        """[rows] one label column.

        Raises:
            LayerprobeError: when there is no such column; the message lists those there are.
        """
        if name not in self._columns.labels:
            raise LayerprobeError(
                f"no label column {name!r} in this store, which has {list(self.label_names) or 'none'}: "
                f"name one of those, or capture again with labels=[{name!r}, ...]"
            )
        return self._columns.labels[name][self._examples]

    @property
    def texts(self) -> list[str] | None:
        """[prompts] text of each *prompt* as the model saw it, or None where nobody gave any."""
        if self._texts is None and self._columns.texts is not None:
            self._texts = list(self._columns.texts)
        return self._texts

    def token_ids(self) -> list[np.ndarray] | None:
        """[prompts] int32 token ids of each *prompt*, or None where nobody gave any."""
        if self._columns.token_ids is None or self._columns.token_starts is None:
            return None
        return np.split(self._columns.token_ids, self._columns.token_starts[1:-1])

    @property
    def same_text(self) -> np.ndarray:
        """[rows] int64 codes, equal for rows whose prompts are the same tokens to the model.

        Where no tokens are known, equal for rows that agree to the last bit at every site and layer. Codes
        count from 0 in order of first appearance. Such rows are copies of each other: a split that parts them
        tests on what it trained on.
        """
        tokens = self.token_ids()
        if tokens is not None:
            codes = same_codes(part.tobytes() for part in tokens)
            return same_codes(codes[self._examples].tolist())
        digests = [hashlib.blake2b(digest_size=16) for _ in range(self.n_rows)]
        for site in self.sites:
            for layer in range(max(1, len(self.layers(site)))):
                for digest, row in zip(
                    digests, self._values.read(site, layer, slice(0, self.n_rows)), strict=True
                ):
                    digest.update(np.ascontiguousarray(row).tobytes())
        return same_codes(digest.digest() for digest in digests)

    def spans(self, name: str) -> np.ndarray:
        """[prompts, 2] character offsets of a span column, -1 where a prompt has none."""
        if name not in self._columns.spans:
            raise LayerprobeError(
                f"no span column {name!r} in this store: it has {list(self._columns.spans) or 'none'}"
            )
        return self._columns.spans[name]

    @property
    def lens(self) -> LensTable | None:
        """Logit-lens readouts, where captured."""
        return self._lens

    @property
    def columns(self) -> PromptColumns:
        """Everything per prompt: ids, labels, groups, spans, texts, tokens."""
        return self._columns

    # helpers
    def _known(self, site: str) -> str:
        if site not in self._info.sites:
            raise LayerprobeError(
                f"site {site!r} is not in this store, which has {', '.join(self.sites) or 'none'}: "
                f"capture with sites=[{site!r}, ...]"
            )
        return site

    def _per_row(self, values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[self._examples]
