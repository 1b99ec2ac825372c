"""Some rows of a store as a store, and its rows as a pandas table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.statistics import SiteStatistics
from ..prompts.columns import PromptColumns
from .activations import ActivationStore
from .lens_table import LENS_ARRAYS, LensTable
from .protocol import RowIndex, Values

if TYPE_CHECKING:
    import pandas as pd


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

    def check_written(self, rows: RowIndex) -> None:
        """Raise where a row was never written."""
        self._base.check_written(self.rows[rows])

    def statistics(self, site: str) -> SiteStatistics | None:
        """Those of the base do not hold for a part of it."""
        return None


def select_rows(store: ActivationStore, rows: np.ndarray) -> ActivationStore:
    """A store over some rows; prompts that have none left are dropped."""
    prompts, examples = np.unique(store.examples[rows], return_inverse=True)
    return ActivationStore(
        store._info,
        select_prompts(store._columns, prompts),
        SelectedValues(store._values, rows),
        examples=examples.astype(np.int64),
        positions=store.positions[rows],
        lens=None if store.lens is None else _select_lens(store.lens, rows),
        path=store.path,
    )


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


def _select_lens(lens: LensTable, rows: np.ndarray) -> LensTable:
    parts = {
        name: getattr(lens, name)[rows] if name == "candidate_ids" else getattr(lens, name)[:, rows]
        for name in LENS_ARRAYS
    }
    return replace(lens, **parts)


def to_frame(store: ActivationStore, site: str | None, layer: int | None) -> pd.DataFrame:
    """See `ActivationStore.to_frame`."""
    import pandas as pd

    columns: dict[str, object] = {
        "id": store.ids,
        "example": store.examples,
        "position": store.positions,
        "group": store.groups,
        "pair": store.pairs,
        "split": store.splits,
        "length": store.lengths,
    }
    frame = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    for name in store.label_names:
        frame[name] = store.labels(name)
    if site is None:
        return frame
    if layer is None and store.layers(site):
        raise LayerprobeError(
            f"to_frame({site!r}) needs one layer: add layer=, one of {list(store.layers(site))}"
        )
    values = store.activations(site, layer)
    wide = pd.DataFrame(values.reshape(len(values), -1), index=frame.index)
    return pd.concat([frame, wide.rename(columns=str)], axis=1)
