"""`layerprobe info`: what is in a file, in words."""

from __future__ import annotations

from pathlib import Path

from ...hooks.errors import LayerprobeError
from ..file.disk_space import human_bytes
from ..file.journal import Journal
from ..file.opening import FileLayout
from .activations import ActivationStore
from .index import open_part
from .manifest import is_index, open_index, read_manifest
from .reader import read_whole


def describe(path: str | Path) -> str:
    """A description of a store file, or of an index and its stores, for people to read.

    Raises:
        LayerprobeError: as `open_store`; an index with parts that are missing or changed is described.
    """
    if is_index(Path(path)):
        return _index(Path(path))
    store, layout, journal, _ = read_whole(Path(path))
    lines = [
        str(path),
        *_state(layout, journal),
        "",
        *_held(store, layout.path.stat().st_size),
        "",
        *_origin(store),
    ]
    if store.complete:
        lines += ["", *_statistics(store)]
    return "\n".join(lines)


def _index(path: Path) -> str:
    """An index: what each of its stores is in, then what they hold together."""
    groups = read_manifest(path)["groups"]
    entries = [entry for parts in groups for entry in parts]
    states = [_part_state(path.parent / entry["path"], entry["fingerprint"]) for entry in entries]
    sound = states.count("complete")
    lines = [
        str(path),
        f"  index of {len(entries)} stores, {sound} of them complete and as they were when it was made",
        *(
            f"    {entry['path']}: {entry['prompts']:,} prompts, {entry['rows']:,} rows, {state}"
            for entry, state in zip(entries, states, strict=True)
        ),
    ]
    if sound < len(entries):
        return "\n".join([*lines, "", "  it does not open: restore what is named, or merge again"])
    store = open_index(path)
    total = sum((path.parent / entry["path"]).stat().st_size for entry in entries)
    return "\n".join([*lines, "", *_held(store, total), "", *_origin(store)])


def _part_state(path: Path, fingerprint: str) -> str:
    if not path.exists():
        return "MISSING"
    try:
        part = open_part(path)
    except LayerprobeError as error:
        return f"NOT USABLE ({str(error).removeprefix(str(path)).lstrip(': ')})"
    return "complete" if part.fingerprint == fingerprint else "CHANGED since the index was made"


def _state(layout: FileLayout, journal: Journal) -> list[str]:
    total, done = layout.plan.n_blocks, journal.states.count("committed")
    if journal.complete:
        return [f"  complete: {total} of {total} blocks, format {layout.version}"]
    lines = [f"  INCOMPLETE: {done} of {total} blocks committed; run the same capture again to finish it"]
    if journal.damaged:
        lines.append(f"  damaged journal entries: blocks {', '.join(map(str, journal.damaged))}")
    return lines


def _held(store: ActivationStore, size: int) -> list[str]:
    lines = [
        f"  {store.n_prompts:,} prompts, {store.n_rows:,} rows (tokens={store.tokens!r}), {human_bytes(size)}"
    ]
    for site in store.sites:
        layers = store.layers(site)
        shape = " x ".join(map(str, store.shape(site)))
        where = f"layers {layers[0]}-{layers[-1]} ({len(layers)}), " if layers else ""
        lines.append(f"  {site}: {where}{store.n_rows:,} rows x {shape}, {store.dtype}")
    if store.lens_layers:
        columns = ", ".join(store.identity.get("lens.tokens", ())) or "none"
        lines.append(f"  lens: layers {store.lens_layers[0]}-{store.lens_layers[-1]}, lens tokens: {columns}")
    for name in store.label_names:
        values = store.labels(name)
        kinds = sorted({str(value) for value in values[:100_000]})
        shown = ", ".join(kinds[:4]) + (f", ... ({len(kinds)} values)" if len(kinds) > 4 else "")
        lines.append(f"  label {name}: {shown}")
    for name, keys in (("groups", store.groups), ("pairs", store.pairs), ("splits", store.splits)):
        if keys is not None:
            lines.append(f"  {name}: {len(set(keys.tolist()))}")
    return lines


def _origin(store: ActivationStore) -> list[str]:
    origin = store.provenance
    model = origin.get("model", {})
    versions = ", ".join(f"{name} {version}" for name, version in sorted(origin.get("versions", {}).items()))
    return [
        f"  model: {store.model_name} from {model.get('source')}"
        + (f" at {model['revision']}" if model.get("revision") else ""),
        f"    weights sha256 {str(model.get('weights_sha256'))[:16]}, run in {model.get('dtype')}",
        f"  prompts: {store.dataset_name} from {origin.get('prompts_source') or 'a list'}",
        f"  captured {origin.get('created')} on {origin.get('device')} ({origin.get('engine')} "
        f"engine; {versions})",
    ]


def _statistics(store: ActivationStore) -> list[str]:
    lines = []
    for site in store.sites:
        if site == "attn_pattern":
            continue
        kept = store.statistics(site)
        bad = int(kept.nonfinite.sum())
        first = kept.dominant(1)[-1][0]
        lines.append(
            f"  {site}: last layer's dimension {first[0]} carries {100 * first[1]:.0f} % of the second moment"
            + (f"; {bad} rows with NaN or infinity" if bad else "")
        )
    return lines
