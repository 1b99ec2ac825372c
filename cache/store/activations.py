"""`ActivationStore`: activations with everything that is known of their rows, on disk or in memory.

Made by `open_store`, `capture` and `from_arrays`; read by every analysis.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.statistics import RunningStatistics, SiteStatistics, bfloat16_to_float32
from ..prompts.columns import PromptColumns, same_codes
from .lens_table import LensTable
from .protocol import Rows, StoreInfo, Values, as_tensor, layer_ranges, row_index
from .selection import SelectedValues, select_prompts

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from .torch_data import StoreDataset


class ActivationStore:
    """Activations of a set of prompts at some sites and layers, and what is known of each row.

    File-backed stores (`open_store`, `capture`) and in-memory ones (`from_arrays`) behave alike: where the
    numbers lie is behind `protocol.Values`. One row per prompt for rules that pick or pool one token; several
    for `all` and spans, in example, then position order.

    >>> from layerprobe import from_arrays
    >>> store = from_arrays({"resid_post": np.zeros((2, 3, 4), np.float32)}, labels={"label": [0, 1, 1]})
    >>> store.layers("resid_post"), store.activations("resid_post", layer=1).shape, store.labels("label")
    ((0, 1), (3, 4), array([0, 1, 1]))
    """

    def __init__(
        self,
        info: StoreInfo,
        columns: PromptColumns,
        values: Values,
        *,
        examples: np.ndarray,
        positions: np.ndarray,
        path: Path | None = None,
        reopen: Callable[[Path], ActivationStore] | None = None,
    ) -> None:
        self._info = info
        self._columns = columns
        self._values = values
        self._examples = examples
        self._positions = positions
        self._lens: LensTable | None = None
        self._path = path
        self._reopen = reopen
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
        return np.asarray(self._columns.ids[self._examples])

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
        return np.asarray(self._columns.labels[name][self._examples])

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
        """Logit-lens readouts of every row, where captured.

        Raises:
            LayerprobeError: some of the rows were never written, or are damaged.
        """
        if self._lens is None and self.lens_layers:
            self._lens = self._values.lens(slice(0, self.n_rows))
        return self._lens

    @property
    def lens_layers(self) -> tuple[int, ...]:
        """Blocks that were read through the lens, ascending; () where there is no lens."""
        return self._values.lens_layers()

    @property
    def columns(self) -> PromptColumns:
        """Everything per prompt: ids, labels, groups, spans, texts, tokens."""
        return self._columns

    # values
    @overload
    def activations(
        self, site: str, layer: int | None = ..., *, rows: Rows = ..., as_torch: Literal[False] = ...
    ) -> np.ndarray: ...
    @overload
    def activations(
        self, site: str, layer: int | None = ..., *, rows: Rows = ..., as_torch: Literal[True]
    ) -> torch.Tensor: ...
    def activations(
        self, site: str, layer: int | None = None, *, rows: Rows = None, as_torch: bool = False
    ) -> np.ndarray | torch.Tensor:
        """Activations of a site.

        Args:
            site: such as `resid_post`.
            layer: one layer, counted from 0; None for all of them.
            rows: a slice, indices or a boolean mask; None for all.
            as_torch: a tensor; bfloat16 is then mapped as it is instead of copied to float32.

        Returns:
            [rows, *shape] for one layer (or a site without layers), [layers, rows, *shape] for all. A
            read-only map of the file for float32 and float16 slices of a file-backed store.

        Raises:
            LayerprobeError: for a site or layer not held, and for rows that were never written.
        """
        selection = row_index(rows, self.n_rows)
        one = layer is not None or not self.layers(site)
        index = self._layer_index(site, layer) if one else None
        if as_torch:
            return as_tensor(self._values.read(site, index, selection, private=True), self.dtype)
        array = self._values.read(site, index, selection)
        return bfloat16_to_float32(array) if self.dtype == "bfloat16" else array

    def iter_rows(self, site: str, layer: int | None = None, batch: int = 1024) -> Iterator[np.ndarray]:
        """The rows of a site in order, `batch` at a time: memory stays bounded whatever the file's size."""
        for start in range(0, self.n_rows, batch):
            yield self.activations(site, layer, rows=slice(start, min(start + batch, self.n_rows)))

    def statistics(self, site: str) -> SiteStatistics:
        """Count, mean, variance, extremes, non-finite rows and dominant dimensions per layer of a site.

        Kept at capture; computed in one bounded pass where they were not (arrays in memory, a selection).
        """
        kept = self.kept_statistics(site)
        if kept is not None:
            return kept
        running = RunningStatistics(max(1, len(self.layers(site))), self.shape(site))
        for index, layer in enumerate(self.layers(site) or (None,)):
            for rows in self.iter_rows(site, layer, batch=4096):
                running.update(index, rows)
        return running.result()

    def kept_statistics(self, site: str) -> SiteStatistics | None:
        """The same where they were kept at capture, at no cost; else `None`."""
        return self._values.statistics(self._known(site)) if self.complete else None

    def select(self, rows: Rows) -> ActivationStore:
        """The same store with some of its rows: nothing is copied but the labels and the lens readouts.

        Prompts that have no row left are left out.
        """
        index = np.arange(self.n_rows)[row_index(rows, self.n_rows)]
        prompts, examples = np.unique(self.examples[index], return_inverse=True)
        return ActivationStore(
            self._info,
            select_prompts(self._columns, prompts),
            SelectedValues(self._values, index),
            examples=examples.astype(np.int64),
            positions=self.positions[index],
            path=self.path,
            reopen=self._reopen,
        )

    def to_frame(self, site: str | None = None, layer: int | None = None) -> pd.DataFrame:
        """A pandas table: one line per row with its id, prompt, position and labels, and the activations if
        asked.

        Args:
            site: add columns `0, 1, ...` with this site's values.
            layer: its layer, for sites that have layers.

        Raises:
            LayerprobeError: a site with layers was named without one.
        """
        import pandas as pd

        columns: dict[str, object] = {
            "id": self.ids,
            "example": self.examples,
            "position": self.positions,
            "group": self.groups,
            "pair": self.pairs,
            "split": self.splits,
            "length": self.lengths,
        }
        frame = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
        for name in self.label_names:
            frame[name] = self.labels(name)
        if site is None:
            return frame
        if layer is None and self.layers(site):
            raise LayerprobeError(
                f"to_frame({site!r}) needs one layer: add layer=, one of {list(self.layers(site))}"
            )
        values = self.activations(site, layer)
        wide = pd.DataFrame(values.reshape(len(values), -1), index=frame.index)
        return pd.concat([frame, wide.rename(columns=str)], axis=1)

    def dataset(self, site: str, layer: int | None = None, *, label: str | None = None) -> StoreDataset:
        """A map-style torch `Dataset` of (row, label), safe in any number of `DataLoader` workers."""
        from .torch_data import StoreDataset

        return StoreDataset(self, site, layer, label=label)

    @property
    def file_rows(self) -> np.ndarray | None:
        """[rows] rows of the file that a selection holds, None where it is the whole file."""
        return getattr(self._values, "rows", None)

    def opened_by(self, reopen: Callable[[Path], ActivationStore]) -> None:
        """Say what opens this file again, in another process."""
        self._reopen = reopen

    @property
    def values(self) -> Values:
        """Where the numbers lie."""
        return self._values

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

    def _layer_index(self, site: str, layer: int | None) -> int:
        held = self.layers(site)
        if not held:
            return 0
        if layer not in held:
            raise LayerprobeError(
                f"layer {layer} of {site} is not in this store, which has layers {layer_ranges(held)}"
            )
        return held.index(layer)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """A file-backed store travels to another process as its path: nothing is copied."""
        if self._path is None or self._reopen is None:
            return super().__reduce__()
        return _reopened, (self._reopen, self._path.absolute(), self.file_rows)

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        parts = []
        for site in self.sites:
            held = len(self.layers(site))
            shape = " x ".join(str(size) for size in self.shape(site))
            parts.append(f"{site}: {f'{held} layers x ' if held else ''}{self.n_rows:,} rows x {shape}")
        if self.lens_layers:
            parts.append(f"lens: {len(self.lens_layers)} layers x {self.n_rows:,} rows")
        state = "complete" if self.complete else "INCOMPLETE"
        where = "in memory" if self.path is None else str(self.path)
        return f"ActivationStore({'; '.join(parts)}, {self.dtype}, {state}, tokens={self.tokens!r}, {where})"


def _reopened(
    reopen: Callable[[Path], ActivationStore], path: Path, rows: np.ndarray | None
) -> ActivationStore:
    whole = reopen(path)
    return whole if rows is None else whole.select(rows)
