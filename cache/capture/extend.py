"""More layers, sites or prompts for a store that is finished: only what is missing runs, an index opens it as
one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...hooks.errors import LayerprobeError
from ...hooks.sites import SiteAt
from ..file.provenance import rendered_moment
from ..prompts.table import PromptTable
from ..store.activations import ActivationStore, open_store
from ..store.index import Part, is_index, open_part, read_manifest
from ..store.index_file import write_index
from ..store.protocol import layer_ranges
from ..store.sameness import check_same
from .options import Options, capture_identity

if TYPE_CHECKING:
    from ...hooks.model import Model

#: what may differ between a store and what extends it
GROWING = (
    "sites",
    "prompts",
    "n_prompts",
    "lens.layers",
    "lens.tokens",
    "lens.top_k",
    "lens.first_difference",
)


def extend(
    model: Model,
    table: PromptTable,
    options: Options,
    base: Path,
    *,
    batch_tokens: int | Literal["auto"],
    progress: bool,
) -> ActivationStore:
    """Capture what a finished store lacks into siblings beside it, and open all as one.

    Args:
        model: the same model.
        table: the store's prompts, in order, and maybe more after them.
        options: the whole request, sites already held included or not.
        base: the store, or an index that an earlier extension made of it.
        batch_tokens: as in `capture`.
        progress: as in `capture`.

    Raises:
        LayerprobeError: the store is incomplete or holds something else; other prompts come first.
    """
    from .run import capture_to

    index = base if is_index(base) else base.with_name(f"{base.stem}-index{base.suffix}")
    groups = parts_of(index if index.exists() else base)
    held = open_store(index if index.exists() else base)
    ours, theirs = capture_identity(model, table, options), held.identity
    check_same(base, _fixed(ours), _fixed(theirs))
    count = held.n_prompts
    if table[:count].sha256 != theirs["prompts"]:
        raise LayerprobeError(
            f"the first {count} prompts are not those of {base}: give its prompts, then the new ones, or "
            "capture to "
            f"another path"
        )
    _check_lens(base, options, held)
    present = _held_sites(held)
    missing = tuple(at for at in options.sites if at not in present)
    lens = options.lens_layers if held.lens is None else ()
    everything = tuple(sorted({*present, *options.sites}, key=str))

    moment = rendered_moment(held.provenance)

    def sibling(part: PromptTable, wanted: Options, of: ActivationStore | None = None) -> Part:
        chosen = [*map(str, wanted.sites), *(f"lens[{layer}]" for layer in wanted.lens_layers)]
        name = hashlib.sha256(json.dumps([theirs, chosen, part.sha256], sort_keys=True).encode()).hexdigest()
        path = base.with_name(f"{base.stem.removesuffix('-index')}-{name[:8]}{base.suffix}")
        like = None if of is None else (of.path or base, of.columns)
        capture_to(
            model,
            part,
            wanted,
            path,
            batch_tokens=batch_tokens,
            progress=progress,
            now=moment,
            like=like,
        )
        return open_part(path)

    if missing or lens:
        starts = [0]
        for parts in groups:
            starts.append(starts[-1] + parts[0].store.n_prompts)
        for parts, start, stop in zip(groups, starts[:-1], starts[1:], strict=True):
            parts.append(sibling(table[start:stop], _narrowed(options, missing, lens), parts[0].store))
    if len(table) > count:
        full = replace(options, sites=everything)
        if held.lens is not None:
            full = replace(full, lens_layers=held.lens.layers, lens_tokens=held.lens.columns)
        groups.append([sibling(table[count:], full)])
    identity = {
        **theirs,
        "prompts": table.sha256,
        "n_prompts": len(table),
        "sites": [str(at) for at in everything],
    }
    write_index(index, groups, identity)
    return open_store(index)


def parts_of(path: Path) -> list[list[Part]]:
    """The stores behind an index, or a store as an index of one."""
    if not is_index(path):
        return [[open_part(path)]]
    manifest = read_manifest(path)
    return [[open_part(path.parent / entry["path"]) for entry in entries] for entries in manifest["groups"]]


def _held_sites(store: ActivationStore) -> set[SiteAt]:
    return {SiteAt(site, layer) for site in store.sites for layer in (store.layers(site) or (None,))}


def _narrowed(options: Options, sites: tuple[SiteAt, ...], lens_layers: tuple[int, ...]) -> Options:
    """The same request for fewer sites; answers are tokenised only where a lens reads them."""
    answers = options.lens_tokens if lens_layers else ()
    return replace(options, sites=sites, lens_layers=lens_layers, lens_tokens=answers)


def _check_lens(base: Path, options: Options, held: ActivationStore) -> None:
    """A lens that is held does not grow."""
    if held.lens is None or not options.lens_layers:
        return
    layers, columns = set(held.lens.layers), held.lens.columns
    if not layers.issuperset(options.lens_layers) or options.lens_tokens != columns:
        raise LayerprobeError(
            f"{base} holds the lens of layers {layer_ranges(held.lens.layers)} with lens_tokens="
            f"{list(columns)}, not of {layer_ranges(options.lens_layers)} with {list(options.lens_tokens)}: "
            f"a lens cannot be extended, capture it to another path"
        )


def _fixed(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in GROWING}
