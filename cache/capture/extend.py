"""More layers, sites or prompts for a store that is finished: only what is missing runs, an index opens it as
one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ...hooks.sites import SiteAt
from ..file.provenance import rendered_moment
from ..prompts.table import PromptTable
from ..store.activations import ActivationStore
from ..store.index import Part, open_part
from ..store.manifest import is_index, read_manifest, write_index
from ..store.open import open_store
from ..store.protocol import layer_ranges
from ..store.sameness import check_same
from .execute import run_job
from .job import CaptureJob
from .request import ResolvedRequest

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


def extend_store(job: CaptureJob, base: Path) -> ActivationStore:
    """Capture what a finished store lacks into siblings beside it, and open all as one.

    Args:
        job: the same model; the store's prompts, in order, and maybe more after them; the whole request,
            sites already held included or not.
        base: the store, or an index that an earlier extension made of it.

    Raises:
        LayerprobeError: the store is incomplete or holds something else; other prompts come first.
    """
    request, table = job.request, job.table
    index = base if is_index(base) else base.with_name(f"{base.stem}-index{base.suffix}")
    there = index if index.exists() else base
    groups, held = parts_of(there), open_store(there)
    _check_extension(job, base, held)
    present = _held_sites(held)
    missing = tuple(at for at in request.sites if at not in present)
    lens = request.lens_layers if not held.lens_layers else ()
    everything = tuple(sorted({*present, *request.sites}, key=str))
    if missing or lens:
        wanted = request.narrowed(missing, lens, request.lens_tokens)
        starts = np.cumsum([0, *(parts[0].store.n_prompts for parts in groups)]).tolist()
        for parts, start, stop in zip(groups, starts[:-1], starts[1:], strict=True):
            parts.append(_sibling(job, base, held, table[start:stop], wanted, parts[0].path))
    if len(table) > held.n_prompts:
        full = request.narrowed(everything, request.lens_layers, request.lens_tokens)
        if held.lens is not None:
            full = request.narrowed(everything, held.lens.layers, held.lens.columns)
        groups.append([_sibling(job, base, held, table[held.n_prompts :], full)])
    sites = [str(at) for at in everything]
    grown = {"prompts": table.sha256, "n_prompts": len(table), "sites": sites}
    write_index(index, groups, {**held.identity, **grown})
    return open_store(index)


def _sibling(
    job: CaptureJob,
    base: Path,
    held: ActivationStore,
    part: PromptTable,
    wanted: ResolvedRequest,
    like: Path | None = None,
) -> Part:
    """Some prompts and sites, captured to a file beside the store that is named after what it holds; with the
    tokens of `like`, where that holds the same prompts.
    """
    chosen = [*map(str, wanted.sites), *(f"lens[{layer}]" for layer in wanted.lens_layers)]
    said = json.dumps([held.identity, chosen, part.sha256], sort_keys=True)
    name = hashlib.sha256(said.encode()).hexdigest()
    path = base.with_name(f"{base.stem.removesuffix('-index')}-{name[:8]}{base.suffix}")
    moment = rendered_moment(held.provenance)
    run_job(replace(job, table=part, request=wanted, path=path, now=moment, like=like))
    return open_part(path)


def _check_extension(job: CaptureJob, base: Path, held: ActivationStore) -> None:
    check_same(base, _fixed(job.identity), _fixed(held.identity))
    if job.table[: held.n_prompts].sha256 != held.identity["prompts"]:
        raise LayerprobeError(
            f"the first {held.n_prompts} prompts are not those of {base}: give its prompts, then the new "
            f"ones, or capture to another path"
        )
    _check_lens(base, job.request, held)


def parts_of(path: Path) -> list[list[Part]]:
    """The stores behind an index, or a store as an index of one."""
    if not is_index(path):
        return [[open_part(path)]]
    manifest = read_manifest(path)
    return [[open_part(path.parent / entry["path"]) for entry in entries] for entries in manifest["groups"]]


def _held_sites(store: ActivationStore) -> set[SiteAt]:
    return {SiteAt(site, layer) for site in store.sites for layer in (store.layers(site) or (None,))}


def _check_lens(base: Path, request: ResolvedRequest, held: ActivationStore) -> None:
    """A lens that is held does not grow."""
    if held.lens is None or not request.lens_layers:
        return
    layers, columns = set(held.lens.layers), held.lens.columns
    if not layers.issuperset(request.lens_layers) or request.lens_tokens != columns:
        raise LayerprobeError(
            f"{base} holds the lens of layers {layer_ranges(held.lens.layers)} with lens_tokens="
            f"{list(columns)}, not of {layer_ranges(request.lens_layers)} with {list(request.lens_tokens)}: "
            f"a lens cannot be extended, capture it to another path"
        )


def _fixed(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name not in GROWING}
