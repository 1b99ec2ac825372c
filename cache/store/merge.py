"""`layerprobe merge`: shards as one index, or as one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from ...hooks.errors import LayerprobeError
from ..file.atomic import give_name, remove_leftovers, sync_folder
from ..file.batch_plan import Plan
from ..file.creation import Contents
from ..file.disk_space import bytes_of, check_disk_space
from ..file.faults import cannot_write, damaged
from ..file.layout import ArraySpec
from ..file.writer import StoreWriter
from ..prompts.columns import join_columns
from .activations import ActivationStore
from .index import Part, join, joined_layers, open_part
from .manifest import write_index
from .open import open_store
from .sameness import differences

#: what shards of one capture may differ in
_ROW_FIELDS = ("prompts", "n_prompts")


def merge(paths: Sequence[str | Path], out: str | Path, *, consolidate: bool = False) -> ActivationStore:
    """Join stores that hold different prompts of the same capture.

    Args:
        paths: the stores; shards of `capture_shards` are put into their order, others stay as given.
        out: the index (virtual datasets and a manifest), or with `consolidate` an ordinary store.
        consolidate: copy all rows into one file, block by block, each compared with its checksum.

    Returns:
        The joined store, opened.

    Raises:
        LayerprobeError: a shard is missing (named), incomplete, of another capture, or holds prompts of
            another one; `out` is there already; the disk refuses.

    >>> import tempfile
    >>> import layerprobe as lp
    >>> from layerprobe.probe import demo
    >>> model, folder = lp.load_model(demo.models()["base"], check=False), Path(tempfile.mkdtemp())
    >>> for id, text in {"a": "who was late ?", "b": "the pilot"}.items():
    ...     prompts = lp.PromptTable((id,), (text,), name="t")
    ...     _ = lp.capture(model, prompts, sites="embed", path=folder / f"{id}.h5", progress=False)
    >>> lp.merge(sorted(folder.glob("*.h5")), folder / "both.h5").activations("embed").shape
    (2, 96)
    """
    out = Path(out)
    if not paths:
        raise LayerprobeError(
            "merge was given no stores: name them, such as merge(['a.h5', 'b.h5'], 'all.h5')"
        )
    if out.exists():
        raise LayerprobeError(
            f"{out} exists already: a store never changes; choose another name or delete it"
        )
    parts = in_order([open_part(Path(path)) for path in paths])
    _check_compatible(parts)
    identity = joined_identity(parts)
    groups = [[part] for part in parts]
    joined_layers(groups)
    if consolidate:
        _consolidate(parts, out, identity)
    else:
        join(groups, identity=identity, path=out)
        write_index(out, groups, identity)
    return open_store(out)


def in_order(parts: list[Part]) -> list[Part]:
    """Shards by their number, all of them there once.

    Raises:
        LayerprobeError: shards that are missing or there twice, by number.
    """
    shards = [shard_entry(part.store, part.path) for part in parts]
    numbers = [shard[0] for shard in shards if shard is not None]
    if len(numbers) < len(parts):
        return parts
    of = next(shard[1] for shard in shards if shard is not None)
    n_missing = of - len(set(numbers))
    if n_missing > 0:
        # `of` is whatever a file says: never a list of that length
        some = list(islice((number for number in count() if number not in numbers), min(n_missing, 8)))
        names = ", ".join(shard_name(parts[0].path, number) for number in some)
        more = f" and {n_missing - len(some):,} more" if n_missing > len(some) else ""
        raise LayerprobeError(
            f"{n_missing:,} of {of:,} shards are missing: {names}{more}; capture them again, or "
            f"give their paths"
        )
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise LayerprobeError(
            f"shard {twice[0]} was given {numbers.count(twice[0])} times: name every store once"
        )
    return [part for _, part in sorted(zip(numbers, parts, strict=True), key=lambda pair: pair[0])]


def shard_entry(store: ActivationStore, path: Path) -> tuple[int, int] | None:
    """(number, of how many) of a store that is a shard, None for any other.

    Raises:
        LayerprobeError: its file says something else there.
    """
    shard = store.provenance.get("shard")
    if shard is None:
        return None
    try:
        index, of = shard["index"], shard["of"]
        sound = (
            type(index) is int and type(of) is int and 0 <= index < of and isinstance(shard["prompts"], str)
        )
    except (TypeError, KeyError):
        sound = False
    if not sound:
        raise damaged(path, "the header", f"says of its shard {str(shard)[:60]}")
    return index, of


def shard_name(sibling: Path, number: int) -> str:
    """The file name of a shard, from that of another: shard-0003.h5."""
    return f"{sibling.parent / f'shard-{number:04d}.h5'}"


def _check_compatible(parts: Sequence[Part]) -> None:
    first = parts[0]
    ids: dict[str, Path] = {}
    for part in parts:
        ours, theirs = (
            {name: value for name, value in one.store.identity.items() if name not in _ROW_FIELDS}
            for one in (part, first)
        )
        found = differences(ours, theirs)
        if found:
            raise LayerprobeError(f"{part.path} is of another capture than {first.path}: {'; '.join(found)}")
        for name in part.store.columns.ids:
            if name in ids:
                raise LayerprobeError(
                    f"prompt {name!r} is in {ids[name]} and in {part.path}: rows would count twice"
                )
            ids[name] = part.path


def joined_identity(parts: Sequence[Part]) -> dict[str, Any]:
    """The identity of the whole: that of an undivided capture where the shards say which it was."""
    identity = dict(parts[0].store.identity)
    shard = parts[0].store.provenance.get("shard")
    identity["n_prompts"] = sum(part.store.n_prompts for part in parts)
    identity["prompts"] = (
        shard["prompts"] if shard else [str(part.store.identity.get("prompts")) for part in parts]
    )
    return identity


def _consolidate(parts: Sequence[Part], out: Path, identity: dict[str, Any]) -> None:
    arrays = _common_arrays(parts)
    plan = join_plans([part.layout.plan for part in parts])
    whole = join([[part] for part in parts], identity=identity, path=None)
    header = {**parts[0].layout.header, "identity": identity, "arrays": [spec.as_entry() for spec in arrays]}
    header["provenance"] = {key: value for key, value in header["provenance"].items() if key != "shard"}
    contents = Contents(
        header=header,
        volatile=parts[0].layout.volatile,
        columns=join_columns([part.store.columns for part in parts]),
        examples=whole.examples,
        positions=whole.positions,
        plan=plan,
        arrays=arrays,
        candidate_ids=None if whole.lens is None else np.asarray(whole.lens.candidate_ids),
    )
    remove_leftovers(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        check_disk_space(out, bytes_of(arrays, len(whole.examples)))
        _copy(parts, temporary, out, contents)
        give_name(temporary, out)
        sync_folder(out.parent)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # nothing half-merged: it could not be resumed


def _copy(parts: Sequence[Part], temporary: Path, out: Path, contents: Contents) -> None:
    with StoreWriter.create(temporary, contents, called=out) as writer:
        blocks = count()
        for part in parts:
            with StoreWriter.reading(part.path) as source:
                for own in range(part.layout.plan.n_blocks):
                    writer.write(next(blocks), _block(source, own, contents.arrays))


def _block(source: StoreWriter, block: int, arrays: tuple[ArraySpec, ...]) -> dict[str, np.ndarray]:
    if source.block_checksums(block) != source.expected(block):
        raise LayerprobeError(
            f"{source.layout.path}: block {block} is damaged: run `layerprobe verify` on it"
        )
    out = {}
    for spec, wide in zip(source.layout.arrays, arrays, strict=True):
        rows = source.read_block(spec, block)
        extra = [(0, 0), (0, 0), *((0, b - a) for a, b in zip(spec.shape, wide.shape, strict=True))]
        fill = -1 if spec.dtype == "int32" else (0x7FC0 if spec.dtype == "bfloat16" else np.nan)
        out[spec.key] = np.pad(rows, extra, constant_values=fill) if spec.shape != wide.shape else rows
    return out


def _common_arrays(parts: Sequence[Part]) -> tuple[ArraySpec, ...]:
    """Arrays wide enough for every shard: answer variants and attention patterns differ in width."""
    out = []
    for specs in zip(*(part.layout.arrays for part in parts), strict=True):
        shape = tuple(max(sizes) for sizes in zip(*(spec.shape for spec in specs), strict=True))
        out.append(ArraySpec(specs[0].key, specs[0].layers, shape, specs[0].dtype))
    return tuple(out)


def join_plans(plans: Sequence[Plan]) -> Plan:
    """The plans of shards, one after the other."""
    prompts = np.concatenate([[0], np.cumsum([len(plan.same_as) for plan in plans])])
    return Plan(
        order=np.concatenate([plan.order + base for plan, base in zip(plans, prompts[:-1], strict=True)]),
        batches=_chained([plan.batches for plan in plans]),
        blocks=_chained([plan.blocks for plan in plans]),
        same_as=np.concatenate(
            [
                np.where(plan.same_as < 0, -1, plan.same_as + base)
                for plan, base in zip(plans, prompts[:-1], strict=True)
            ]
        ),
        row_starts=_chained([plan.row_starts for plan in plans]),
    )


def _chained(bounds: Sequence[np.ndarray]) -> np.ndarray:
    """Bounds that begin at 0, each where the one before ends."""
    out = [np.zeros(1, dtype=np.int64)]
    for one in bounds:
        out.append(one[1:] + out[-1][-1])
    return np.concatenate(out)
