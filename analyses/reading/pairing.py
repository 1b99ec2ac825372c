"""Bringing several models' stores of the same prompts into one row order, checked by their ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..statistics.row_order import canonical_order


@dataclass(frozen=True)
class Paired:
    """Stores whose rows correspond: row i of every model is `order[model][i]` of its store."""

    stores: dict[str, Any]
    order: dict[str, NDArray[np.int64]]
    reference: str

    @property
    def n_rows(self) -> int:
        return len(self.order[self.reference])

    def activations(self, name: str, site: str, layer: int | None) -> NDArray[np.float64]:
        """[rows, width] of one model, in the common order; sites with heads are flattened."""
        values = np.asarray(self.stores[name].activations(site, layer), dtype=np.float64)[self.order[name]]
        return values.reshape(len(values), -1)

    def labels(self, column: str) -> NDArray[Any]:
        """The reference's labels, in the common order.

        Raises:
            LayerprobeError: another model's store labels the same prompts differently.
        """
        given = np.asarray(self.stores[self.reference].labels(column))[self.order[self.reference]]
        for name, store in self.stores.items():
            if column in store.label_names:
                other = np.asarray(store.labels(column))[self.order[name]]
                if (other.astype(str) != given.astype(str)).any():
                    row = int(np.flatnonzero(other.astype(str) != given.astype(str))[0])
                    raise LayerprobeError(
                        f"{column!r} of prompt {self.ids[row]!r} is {given[row]!r} in "
                        f"{self.reference!r} and {other[row]!r} in {name!r}; "
                        "capture both from one prompt file"
                    )
        return given

    @property
    def ids(self) -> NDArray[Any]:
        return np.asarray(self.stores[self.reference].ids)[self.order[self.reference]]

    def shared_layers(self, site: str) -> tuple[int | None, ...]:
        """Layers that every model has of a site; (None,) for a site without layers."""
        sets = [store.layers(site) for store in self.stores.values()]
        if not any(sets):
            return (None,)
        return tuple(sorted(set(sets[0]).intersection(*map(set, sets[1:]))))

    def depth(self, name: str) -> int:
        """Blocks of a model: as its store says, or up to the last layer that it holds."""
        store = self.stores[name]
        known = store.identity.get("model.n_layers")
        held = [layer for site in store.sites if site != "lens" for layer in store.layers(site)]
        held += [] if store.lens is None else list(store.lens.layers)
        return int(known) if known else max(held, default=0) + 1

    def places(self, site: str) -> list[dict[str, int | None]]:
        """Layers that are compared, by model, each list entry a layer per model.

        Models with as many blocks as the reference meet it at the layers that all of them hold. Every layer
        of a model with more or fewer meets the reference's nearest in relative depth, l / (L − 1).
        """
        deep = {name: self.depth(name) for name in self.stores}
        alike = {n: s for n, s in self.stores.items() if deep[n] == deep[self.reference]}
        same = Paired(alike, self.order, self.reference)
        found: list[dict[str, int | None]] = [
            dict.fromkeys(alike, layer) for layer in same.shared_layers(site)
        ]
        held = self.stores[self.reference].layers(site)
        for name, store in self.stores.items():
            if name in alike:
                continue
            own = store.layers(site)
            met = matched_layers(own, deep[name], held, deep[self.reference]) if held else ()
            found += [
                {self.reference: theirs, name: layer} for layer, theirs in zip(own, met, strict=True)
            ] or [{self.reference: None, name: None}]
        return found

    def shared_sites(self) -> tuple[str, ...]:
        return tuple(
            site
            for site in self.stores[self.reference].sites
            if site != "lens" and all(site in store.sites for store in self.stores.values())
        )


def matched_layers(
    layers: Sequence[int], n_layers: int, others: Sequence[int], n_others: int
) -> tuple[int, ...]:
    """For each layer of one model the nearest of another's in relative depth, l / (L − 1).

    >>> matched_layers(range(5), 5, range(4), 4)
    (0, 1, 2, 2, 3)
    """
    given = np.asarray(others) / max(n_others - 1, 1)
    return tuple(int(others[int(np.abs(given - layer / max(n_layers - 1, 1)).argmin())]) for layer in layers)


def model_key(key: Any) -> str:
    """A mapping's key as a name: ("instruct", "chat") becomes "instruct/chat"."""
    return "/".join(str(part) for part in key) if isinstance(key, tuple) else str(key)


def row_keys(store: ActivationStore) -> NDArray[Any]:
    """[rows] what identifies a row across models: its prompt's id, and its rank among that prompt's rows."""
    ids = np.asarray(store.ids).astype(str)
    order = np.lexsort((np.asarray(store.positions), np.asarray(store.examples)))
    rank = np.empty(len(ids), dtype=np.int64)
    examples = np.asarray(store.examples)[order]
    starts = (
        np.flatnonzero(np.r_[True, examples[1:] != examples[:-1]]) if len(ids) else np.array([], dtype=int)
    )
    run = np.repeat(starts, np.diff(np.r_[starts, len(ids)]))
    rank[order] = np.arange(len(ids)) - run
    return np.array([f"{name}\x00{number}" for name, number in zip(ids, rank, strict=True)])


def pair_stores(stores: Mapping[Any, Any], reference: Any = None) -> Paired:
    """Match the rows of several stores by prompt id (and by token within the prompt).

    Raises:
        LayerprobeError: fewer than two stores, an id twice, or ids that one store lacks.
    """
    if not isinstance(stores, Mapping) or len(stores) < 2:
        raise LayerprobeError(
            'compare takes a mapping of at least two stores, such as {"base": base_store, '
            '"instruct": instruct_store}'
        )
    named = {model_key(key): store for key, store in stores.items()}
    first = next(iter(named)) if reference is None else model_key(reference)
    if first not in named:
        raise LayerprobeError(f"reference={first!r} is not one of the models compared: {', '.join(named)}")
    keys = {name: row_keys(store) for name, store in named.items()}
    for name, values in keys.items():
        unique, counts = np.unique(values, return_counts=True)
        if len(unique) < len(values):
            twice = unique[counts > 1][0].split("\x00")[0]
            raise LayerprobeError(
                f"prompt id {twice!r} occurs twice in the store of {name!r}, so rows cannot be "
                "matched; give every prompt an id of its own"
            )
    order = {first: canonical_order(named[first])}
    for name, values in keys.items():
        if name == first:
            continue
        missing, extra = np.setdiff1d(keys[first], values), np.setdiff1d(values, keys[first])
        if len(missing) or len(extra):
            raise LayerprobeError(
                f"the stores of {first!r} and {name!r} do not hold the same rows: {len(missing)} only in "
                f"{first!r}, {len(extra)} only in {name!r} (for example "
                f"{np.r_[missing, extra][0].split(chr(0))[0]!r}); capture "
                "both from one prompt file with the same token rule"
            )
        position = {key: row for row, key in enumerate(values)}
        order[name] = np.array([position[key] for key in keys[first][order[first]]])
    return Paired(named, order, first)
