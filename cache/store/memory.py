"""`from_arrays`: activations that somebody else extracted, behind the interface of a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.statistics import SiteStatistics
from ..prompts.columns import PromptColumns, as_column
from .activations import ActivationStore
from .lens_table import LensTable
from .protocol import RowIndex, StoreInfo
from .selection import select_lens

#: sites whose arrays carry no layer axis
LAYERLESS = frozenset({"embed", "final_norm"})


class ArrayValues:
    """Plain arrays, [layers, rows, *shape] each; bfloat16 as uint16 bits."""

    def __init__(self, arrays: Mapping[str, np.ndarray], lens: LensTable | None = None) -> None:
        self._arrays = dict(arrays)
        self._lens = lens

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self._arrays[site].shape[2:])

    def read(self, site: str, layer: int | None, rows: RowIndex, *, private: bool = False) -> np.ndarray:
        """Rows of one layer or of all; a view where `rows` is a slice."""
        array = self._arrays[site]
        part = array[:, rows] if layer is None else array[layer][rows]
        return part.copy() if private else part

    def lens_layers(self) -> tuple[int, ...]:
        """Blocks that were read through the lens."""
        return () if self._lens is None else tuple(self._lens.layers)

    def lens(self, rows: RowIndex) -> LensTable | None:
        """The readouts of some rows."""
        everything = isinstance(rows, slice) and self._lens and rows == slice(0, self._lens.n_rows, None)
        return self._lens if self._lens is None or everything else select_lens(self._lens, rows)

    def statistics(self, site: str) -> SiteStatistics | None:
        """None are kept."""
        return None


def from_arrays(
    arrays: Mapping[str, Any],
    *,
    labels: Mapping[str, Any] | None = None,
    groups: Any = None,
    pairs: Any = None,
    splits: Any = None,
    ids: Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    lengths: Any = None,
    lens: LensTable | None = None,
    layers: Mapping[str, Sequence[int]] | None = None,
    examples: Any = None,
    positions: Any = None,
    tokens: str | None = None,
    model_name: str = "arrays",
    dataset_name: str = "arrays",
    provenance: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> ActivationStore:
    """A store over arrays in memory.

    Args:
        arrays: site -> [layers, rows, width] (or [layers, rows, heads, d_head]); `embed` and `final_norm`
            have no layer axis. numpy or torch; bfloat16 tensors become float32, exactly.
        labels: name -> one value per prompt.
        groups: keys of rows that must never straddle a split.
        pairs: keys of contrastive pairs.
        splits: names of given splits.
        ids: one per prompt; numbers from 0 by default.
        texts: one per prompt.
        lengths: tokens per prompt.
        lens: logit-lens readouts of the same rows.
        layers: site -> block numbers of its layer axis; 0, 1, 2, ... by default.
        examples: prompt of each row, for several rows per prompt; one row per prompt by default.
        positions: token position of each row; 0 within one-row prompts by default.
        tokens: the rule that made the rows; `last`, or `all` when `examples` is given.
        model_name: for tables.
        dataset_name: for tables.
        provenance: how the arrays came to be.
        identity: what must agree for two sets of arrays to be the same.

    Raises:
        LayerprobeError: when lengths or axes do not agree, naming the field.

    >>> x = np.zeros((2, 3, 4), dtype=np.float32)
    >>> store = from_arrays({"resid_post": x}, labels={"label": [0, 1, 1]})
    >>> store
    ActivationStore(resid_post: 2 layers x 3 rows x 4, float32, complete, tokens='last', in memory)
    >>> store.activations("resid_post", layer=1).shape
    (3, 4)
    """
    stored = {site: _with_layer_axis(site, array) for site, array in arrays.items()}
    n_rows = _same_rows(stored, lens)
    rows_of = np.arange(n_rows) if examples is None else np.asarray(examples, dtype=np.int64)
    if len(rows_of) != n_rows:
        raise LayerprobeError(f"examples has {len(rows_of)} entries for {n_rows} rows")
    n_prompts = int(rows_of.max()) + 1 if n_rows else 0

    def column(name: str, values: Any) -> np.ndarray | None:
        if values is None:
            return None
        array = as_column(values)
        if array.shape != (n_prompts,):
            raise LayerprobeError(
                f"{name} has shape {array.shape}, expected one value for each of {n_prompts} prompts"
            )
        return array

    named = {name: column(f"labels[{name!r}]", values) for name, values in (labels or {}).items()}
    columns = PromptColumns(
        ids=_checked(column("ids", ids if ids is not None else [str(i) for i in range(n_prompts)])),
        labels={name: _checked(values) for name, values in named.items()},
        groups=column("groups", groups),
        pairs=column("pairs", pairs),
        splits=column("splits", splits),
        texts=None if texts is None else list(_checked(column("texts", texts))),
        given_lengths=None if lengths is None else np.asarray(column("lengths", lengths), dtype=np.int64),
    )
    info = StoreInfo(
        sites=tuple(stored),
        layers={site: _layer_numbers(site, array, layers) for site, array in stored.items()},
        dtype=_one_dtype(stored),
        tokens=tokens or ("last" if examples is None else "all"),
        model_name=model_name,
        dataset_name=dataset_name,
        provenance=dict(provenance or {"source": "from_arrays"}),
        identity=dict(identity or {}),
    )
    where = np.zeros(n_rows, dtype=np.int64) if positions is None else np.asarray(positions, dtype=np.int64)
    return ActivationStore(info, columns, ArrayValues(stored, lens), examples=rows_of, positions=where)


def _with_layer_axis(site: str, given: Any) -> np.ndarray:
    if hasattr(given, "detach"):  # a torch tensor; numpy has no bfloat16
        given = given.detach().cpu()
        given = (given.float() if str(given.dtype) == "torch.bfloat16" else given).numpy()
    array: np.ndarray = np.asarray(given)
    if array.dtype.kind != "f":
        raise LayerprobeError(f"{site} has type {array.dtype}, expected floating-point activations")
    array = array[None] if site in LAYERLESS else array
    if array.ndim < 3:
        expected = "[rows, width]" if site in LAYERLESS else "[layers, rows, width]"
        raise LayerprobeError(
            f"{site} has shape {array.shape}, expected {expected}; for one layer pass x[None]"
        )
    return array


def _same_rows(stored: Mapping[str, np.ndarray], lens: LensTable | None) -> int:
    counts = {site: int(array.shape[1]) for site, array in stored.items()}
    if lens is not None:
        counts["lens"] = lens.n_rows
    if not counts:
        raise LayerprobeError(
            'from_arrays was given no arrays: pass {"resid_post": X} with X [layers, rows, width]'
        )
    if len(set(counts.values())) > 1:
        raise LayerprobeError(f"sites differ in their number of rows: {counts}")
    return next(iter(counts.values()))


def _layer_numbers(
    site: str, array: np.ndarray, layers: Mapping[str, Sequence[int]] | None
) -> tuple[int, ...]:
    if site in LAYERLESS:
        return ()
    numbers = tuple(int(layer) for layer in (layers or {}).get(site, range(array.shape[0])))
    if len(numbers) != array.shape[0]:
        raise LayerprobeError(f"layers[{site!r}] names {len(numbers)} layers, the array has {array.shape[0]}")
    return numbers


def _one_dtype(stored: Mapping[str, np.ndarray]) -> str:
    kinds = {str(array.dtype) for array in stored.values()}
    return kinds.pop() if len(kinds) == 1 else "float32"


def _checked(values: np.ndarray | None) -> np.ndarray:
    assert values is not None
    return values
