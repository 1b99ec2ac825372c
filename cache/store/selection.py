"""Some rows of a store: their values where asked for, the columns of their prompts, their lens readouts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..file.statistics import SiteStatistics
from ..prompts.columns import PromptColumns
from .lens_table import LENS_ARRAYS, LensTable
from .protocol import RowIndex, Values


class SelectedValues:
    """Values of some rows of another store, read when asked for."""

    def __init__(self, base: Values, rows: np.ndarray) -> None:
        # a selection of a selection reads the file, not the selection
        whole: Values = base
        if isinstance(base, SelectedValues):
            whole, rows = base._base, base.rows[rows]
        self._base: Values = whole
        self.rows: np.ndarray = rows

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row."""
        return self._base.shape(site)

    def read(self, site: str, layer: int | None, rows: RowIndex, *, private: bool = False) -> np.ndarray:
        """Rows of the selection, copied from the base."""
        return self._base.read(site, layer, self.rows[rows], private=private)

    def lens_layers(self) -> tuple[int, ...]:
        """Those of the base."""
        return self._base.lens_layers()

    def lens(self, rows: RowIndex) -> LensTable | None:
        """The readouts of the selection, copied from the base."""
        return self._base.lens(self.rows[rows])

    def statistics(self, site: str) -> SiteStatistics | None:
        """Those of the base do not hold for a part of it."""
        return None


def select_prompts(columns: PromptColumns, prompts: np.ndarray) -> PromptColumns:
    """The columns of some prompts."""

    def pick(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[prompts]

    starts, tokens = columns.token_starts, columns.token_ids
    if starts is not None and tokens is not None:
        parts = [tokens[starts[prompt] : starts[prompt + 1]] for prompt in prompts]
        tokens = np.concatenate(parts) if parts else tokens[:0]
        starts = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return PromptColumns(
        ids=columns.ids[prompts],
        labels={name: values[prompts] for name, values in columns.labels.items()},
        groups=pick(columns.groups),
        pairs=pick(columns.pairs),
        splits=pick(columns.splits),
        spans={name: values[prompts] for name, values in columns.spans.items()},
        texts=None if columns.texts is None else [columns.texts[prompt] for prompt in prompts],
        token_ids=tokens,
        token_starts=starts,
        given_lengths=pick(columns.given_lengths),
    )


def select_lens(lens: LensTable, rows: RowIndex) -> LensTable:
    """The lens readouts of some rows."""
    parts = {
        name: getattr(lens, name)[rows] if name == "candidate_ids" else getattr(lens, name)[:, rows]
        for name in LENS_ARRAYS
    }
    return replace(lens, **parts)
