"""What a stored type could not hold, said once a capture has run: by site and layer, with the first row."""

from __future__ import annotations

import logging

import numpy as np

from ..store.activations import ActivationStore

log = logging.getLogger(__name__)

#: layers that the warning names, and rows looked at together
SHOWN, ROWS = 3, 4096


def warn_of_nonfinite(store: ActivationStore) -> None:
    """Warn of rows with NaN or infinity; statistics and probes leave them out or fail on them.

    Counted from the statistics kept while rows were written, so that it costs nothing where there are none.
    """
    for site in store.sites:
        if site == "attn_pattern":
            continue  # padded with NaN
        bad = store.statistics(site).nonfinite
        layers = store.layers(site) or (None,)
        found = [(layer, int(count)) for layer, count in zip(layers, bad, strict=True) if count]
        if not found:
            continue
        row = _first_row(store, site, found[0][0])
        named = ", ".join(f"{_name(site, layer)} {count:,}" for layer, count in found[:SHOWN])
        log.warning(
            "%s rows hold NaN or infinity (%s%s of %s; first row %s, prompt %r)%s",
            f"{sum(count for _, count in found):,}",
            named,
            f" and {len(found) - SHOWN} more layers" if len(found) > SHOWN else "",
            f"{store.n_rows:,}",
            row,
            store.ids[row],
            ": float16 holds nothing beyond 65,504, capture with dtype='bfloat16' or 'float32'"
            if store.dtype == "float16"
            else "",
        )


def _first_row(store: ActivationStore, site: str, layer: int | None) -> int:
    start = 0
    for rows in store.iter_rows(site, layer, batch=ROWS):
        bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1))
        if len(bad):
            return start + int(bad[0])
        start += len(rows)
    return 0


def _name(site: str, layer: int | None) -> str:
    return site if layer is None else f"{site}[{layer}]"
