"""`layerprobe info`: what is in a store, in a few lines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..cache.store import ActivationStore


def describe(store: ActivationStore) -> str:
    """The store in words, one fact a line."""
    lines = [
        str(store.path or "in memory"),
        f"  state     {'complete' if store.complete else 'INCOMPLETE: run its capture again'}",
    ]
    lines += [
        f"  rows      {store.n_rows:,} of {store.n_prompts:,} prompts, tokens = {store.tokens}, {store.dtype}"
    ]
    for site in store.sites:
        layers = store.layers(site)
        held = f"{len(layers)} layers ({layers[0]}–{layers[-1]}) x " if layers else ""
        lines.append(f"  site      {site}: {held}{' x '.join(map(str, store.shape(site)))}")
    if store.lens is not None:
        lines.append(
            f"  lens      {len(store.lens.layers)} layers, answers {', '.join(store.lens.columns) or 'none'}"
        )
    for name in store.label_names:
        counts = Counter(map(str, store.labels(name))).most_common()
        shown = ", ".join(f"{value} {n:,}" for value, n in counts[:5])
        lines.append(f"  label     {name}: {shown}{f' … {len(counts)} values' if len(counts) > 5 else ''}")
    groups = store.groups
    lines.append("  groups    none" if groups is None else f"  groups    {len(set(map(str, groups))):,}")
    lines.append(f"  model     {store.model_name}; prompts {store.dataset_name}")
    lines += [f"  identity  {key}: {_short(value)}" for key, value in store.identity.items()]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= 160 else text[:157] + "..."
