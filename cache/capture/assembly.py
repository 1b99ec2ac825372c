"""From a request to a plan, a file's contents, or a store in memory."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...hooks.edit_texts import n_texts
from ...hooks.errors import LayerprobeError
from ...hooks.sites import SiteAt
from ..file.batch_plan import Plan, make_plan
from ..file.creation import Contents
from ..file.layout import ArraySpec
from ..file.provenance import volatile_provenance
from ..prompts.table import PromptTable
from ..store.activations import ActivationStore
from ..store.lens_table import LensTable
from ..store.memory import ArrayValues
from ..store.protocol import StoreInfo
from .forward import Request
from .options import Options
from .prepare import Prepared
from .sinks import MemorySink

if TYPE_CHECKING:
    from ...hooks.model import Model

#: bytes of rows that are committed together
BLOCK_BYTES = 64 << 20


def array_specs(model: Model, options: Options, prepared: Prepared) -> tuple[ArraySpec, ...]:
    """Every dataset that the capture fills."""
    specs = []
    for site in dict.fromkeys(at.site for at in options.sites):
        layers = tuple(at.layer for at in options.sites if at.site == site)
        shapes = {model.site_shape(SiteAt(site, layer)) for layer in layers}
        if len(shapes) > 1:
            raise LayerprobeError(
                f"{site} has different shapes in different layers ({shapes}): choose some of them"
            )
        shape = shapes.pop()
        if site == "attn_pattern":
            shape = (shape[0], _longest(prepared))
        numbers = None if layers == (None,) else tuple(int(layer) for layer in layers if layer is not None)
        specs.append(ArraySpec(f"activations/{site}", numbers, shape, options.dtype))
    if options.lens_layers:
        shape = () if prepared.candidates is None else prepared.candidates.shape[1:]
        shape = shape if prepared.candidates is not None else (0, 0)
        for name, extra, kind in (
            ("candidate_logits", shape, "float32"),
            ("candidate_ranks", shape, "int32"),
            ("kl_to_final", (), "float32"),
            ("logsumexp", (), "float32"),
            ("top_ids", (options.top_k,), "int32"),
            ("top_logits", (options.top_k,), "float32"),
        ):
            specs.append(ArraySpec(f"lens/{name}", options.lens_layers, tuple(extra), kind))
    return tuple(specs)


def _longest(prepared: Prepared) -> int:
    return int(prepared.lengths.max())


def make_request(
    model: Model, options: Options, arrays: tuple[ArraySpec, ...], prepared: Prepared
) -> Request:
    """What to take from every batch; the lens needs the last layer too, for the KL."""
    layers = options.lens_layers
    if layers and layers[-1] != model.n_layers - 1:
        layers = (*layers, model.n_layers - 1)
    return Request(options.sites, layers, options.top_k, options.dtype, arrays, _longest(prepared))


def batch_plan(
    model: Model, prepared: Prepared, arrays: tuple[ArraySpec, ...], batch_tokens: int | Literal["auto"]
) -> Plan:
    if batch_tokens == "auto":
        batch_tokens = 1024 if model.device.type == "cpu" else 16384
    if not isinstance(batch_tokens, Integral) or isinstance(batch_tokens, bool) or batch_tokens < 1:
        raise LayerprobeError(f"batch_tokens={batch_tokens!r}: expected a number of tokens, or 'auto'")
    total = max(1, sum(spec.n_layers * spec.row_bytes for spec in arrays))
    return make_plan(
        prepared.lengths,
        prepared.rows_per_prompt,
        _identical(model, prepared),
        batch_tokens=int(batch_tokens),
        block_rows=max(1, BLOCK_BYTES // total),
        row_bytes=max((spec.row_bytes for spec in arrays), default=1),
    )


def _identical(model: Model, prepared: Prepared) -> np.ndarray:
    """Which prompts stand for which; all for themselves under an edit that differs from text to text."""
    if any(n_texts(edit) is not None for edit in model.edits):
        return np.arange(len(prepared.columns), dtype=np.int64)
    return prepared.identical()


def _header(
    model: Model,
    table: PromptTable,
    options: Options,
    identity: Mapping[str, Any],
    arrays: tuple[ArraySpec, ...],
) -> dict[str, Any]:
    return {
        "model_name": model.name,
        "dataset_name": table.name,
        "dtype": options.dtype,
        "tokens": options.rule.text,
        "lens_tokens": list(options.lens_tokens),
        "labels": list(table.labels),
        "spans": list(table.spans),
        "identity": dict(identity),
        "provenance": {
            "model": {key: value for key, value in model.identity.as_dict().items() if key != "versions"},
            "prompts_source": table.source,
            "options": options.as_dict(),
        },
        "arrays": [
            {
                "key": spec.key,
                "layers": None if spec.layers is None else list(spec.layers),
                "shape": list(spec.shape),
                "dtype": spec.dtype,
            }
            for spec in arrays
        ],
    }


def file_contents(
    model: Model,
    table: PromptTable,
    options: Options,
    identity: Mapping[str, Any],
    prepared: Prepared,
    arrays: tuple[ArraySpec, ...],
    plan: Plan,
    shard: Mapping[str, Any] | None = None,
) -> Contents:
    """What a new file holds before any activation is written."""
    header = _header(model, table, options, identity, arrays)
    if shard is not None:
        header["provenance"]["shard"] = dict(shard)
    return Contents(
        header=header,
        volatile=volatile_provenance(model, prepared.rendered),
        columns=prepared.columns,
        examples=prepared.examples,
        positions=prepared.positions,
        plan=plan,
        arrays=arrays,
        candidate_ids=_row_candidates(prepared, options),
    )


def _row_candidates(prepared: Prepared, options: Options) -> np.ndarray | None:
    if not options.lens_layers:
        return None
    if prepared.candidates is None:
        return np.empty((len(prepared.examples), 0, 0), dtype=np.int32)
    return prepared.candidates[prepared.examples]


def in_memory(
    model: Model,
    table: PromptTable,
    options: Options,
    identity: Mapping[str, Any],
    prepared: Prepared,
    arrays: tuple[ArraySpec, ...],
    sink: MemorySink,
) -> ActivationStore:
    header = _header(model, table, options, identity, arrays)
    kept = {
        spec.key.removeprefix("activations/"): spec for spec in arrays if spec.key.startswith("activations/")
    }
    info = StoreInfo(
        sites=tuple(kept),
        layers={site: spec.layers or () for site, spec in kept.items()},
        dtype=options.dtype,
        tokens=options.rule.text,
        model_name=model.name,
        dataset_name=table.name,
        provenance={**header["provenance"], **volatile_provenance(model, prepared.rendered)},
        identity=identity,
    )
    lens = None
    candidate_ids = _row_candidates(prepared, options)
    if candidate_ids is not None:
        lens = LensTable(
            layers=options.lens_layers,
            columns=options.lens_tokens,
            candidate_ids=candidate_ids,
            **{key.removeprefix("lens/"): sink.arrays[key] for key in sink.arrays if key.startswith("lens/")},
        )
    return ActivationStore(
        info,
        prepared.columns,
        ArrayValues({site: sink.arrays[spec.key] for site, spec in kept.items()}),
        examples=prepared.examples,
        positions=prepared.positions,
        lens=lens,
    )
