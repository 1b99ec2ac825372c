"""From a job to the arrays it fills, the batches it runs, a file's contents, or a store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...hooks.edit_texts import n_texts
from ...hooks.errors import LayerprobeError
from ...hooks.sites import SiteAt
from ..file.batch_plan import Plan, make_plan
from ..file.creation import Contents
from ..file.layout import ArraySpec
from ..file.provenance import volatile_provenance
from ..store.activations import ActivationStore
from ..store.lens_table import LensTable
from ..store.memory import ArrayValues
from ..store.protocol import StoreInfo
from .forward import Reads
from .job import CaptureJob
from .prepare import Prepared
from .sinks import MemorySink

#: bytes of rows that are committed together
BLOCK_BYTES = 64 << 20


def array_specs(job: CaptureJob, prepared: Prepared) -> tuple[ArraySpec, ...]:
    """Every dataset that the capture fills.

    Raises:
        LayerprobeError: a site has another shape in some of its layers.
    """
    request, specs = job.request, []
    for site in dict.fromkeys(at.site for at in request.sites):
        layers = tuple(at.layer for at in request.sites if at.site == site)
        shapes = {job.model.site_shape(SiteAt(site, layer)) for layer in layers}
        if len(shapes) > 1:
            raise LayerprobeError(
                f"{site} has different shapes in different layers ({shapes}): choose some of them"
            )
        shape = shapes.pop()
        if site == "attn_pattern":
            shape = (shape[0], _longest(prepared))
        numbers = None if layers == (None,) else tuple(int(layer) for layer in layers if layer is not None)
        specs.append(ArraySpec(f"activations/{site}", numbers, shape, request.dtype))
    if request.lens_layers:
        candidates = (0, 0) if prepared.candidates is None else prepared.candidates.shape[1:]
        for name, extra, kind in (
            ("candidate_logits", candidates, "float32"),
            ("candidate_ranks", candidates, "int32"),
            ("kl_to_final", (), "float32"),
            ("logsumexp", (), "float32"),
            ("top_ids", (request.asked.top_k,), "int32"),
            ("top_logits", (request.asked.top_k,), "float32"),
        ):
            specs.append(ArraySpec(f"lens/{name}", request.lens_layers, tuple(extra), kind))
    return tuple(specs)


def _longest(prepared: Prepared) -> int:
    return int(prepared.lengths.max())


def batch_reads(job: CaptureJob, arrays: tuple[ArraySpec, ...], prepared: Prepared) -> Reads:
    """What to take from every batch; the lens needs the last layer too, for the KL."""
    layers, last = job.request.lens_layers, job.model.n_layers - 1
    if layers and layers[-1] != last:
        layers = (*layers, last)
    asked = job.request.asked
    return Reads(job.request.sites, layers, asked.top_k, job.request.dtype, arrays, _longest(prepared))


def batch_plan(job: CaptureJob, prepared: Prepared, arrays: tuple[ArraySpec, ...]) -> Plan:
    """Which prompts run together, and whose rows are committed together."""
    total = max(1, sum(spec.n_layers * spec.row_bytes for spec in arrays))
    return make_plan(
        prepared.lengths,
        prepared.rows_per_prompt,
        _identical(job, prepared),
        batch_tokens=job.batch_tokens,
        block_rows=max(1, BLOCK_BYTES // total),
        row_bytes=max((spec.row_bytes for spec in arrays), default=1),
    )


def _identical(job: CaptureJob, prepared: Prepared) -> np.ndarray:
    """Which prompts stand for which; all for themselves under an edit that differs from text to text."""
    if any(n_texts(edit) is not None for edit in job.model.edits):
        return np.arange(len(prepared.columns), dtype=np.int64)
    return prepared.identical()


def _header(job: CaptureJob, prepared: Prepared, arrays: Sequence[ArraySpec]) -> dict[str, Any]:
    model, table, request = job.model, job.table, job.request
    return {
        "model_name": model.name,
        "dataset_name": table.name,
        "dtype": request.dtype,
        "tokens": request.rule.text,
        "lens_tokens": list(request.lens_tokens),
        "labels": list(prepared.columns.labels),
        "spans": list(table.spans),
        "identity": job.identity,
        "provenance": {
            "model": {key: value for key, value in model.identity.as_dict().items() if key != "versions"},
            "prompts_source": table.source,
            "options": request.fields(),
        },
        "arrays": [spec.as_entry() for spec in arrays],
    }


def file_contents(job: CaptureJob, prepared: Prepared, arrays: tuple[ArraySpec, ...], plan: Plan) -> Contents:
    """What a new file holds before any activation is written."""
    header = _header(job, prepared, arrays)
    if job.shard is not None:
        header["provenance"]["shard"] = dict(job.shard)
    return Contents(
        header=header,
        volatile=volatile_provenance(job.model, prepared.rendered),
        columns=prepared.columns,
        examples=prepared.examples,
        positions=prepared.positions,
        plan=plan,
        arrays=arrays,
        candidate_ids=_row_candidates(job, prepared),
    )


def _row_candidates(job: CaptureJob, prepared: Prepared) -> np.ndarray | None:
    if not job.request.lens_layers:
        return None
    if prepared.candidates is None:
        return np.empty((len(prepared.examples), 0, 0), dtype=np.int32)
    return np.asarray(prepared.candidates[prepared.examples])


def in_memory(
    job: CaptureJob, prepared: Prepared, arrays: tuple[ArraySpec, ...], sink: MemorySink
) -> ActivationStore:
    """The rows in a sink as a store."""
    header = _header(job, prepared, arrays)
    kept = {
        spec.key.removeprefix("activations/"): spec for spec in arrays if spec.key.startswith("activations/")
    }
    info = StoreInfo(
        sites=tuple(kept),
        layers={site: spec.layers or () for site, spec in kept.items()},
        dtype=header["dtype"],
        tokens=header["tokens"],
        model_name=header["model_name"],
        dataset_name=header["dataset_name"],
        provenance={**header["provenance"], **volatile_provenance(job.model, prepared.rendered)},
        identity=header["identity"],
    )
    lens = None
    candidate_ids = _row_candidates(job, prepared)
    if candidate_ids is not None:
        lens = LensTable(
            layers=job.request.lens_layers,
            columns=job.request.lens_tokens,
            candidate_ids=candidate_ids,
            **{key.removeprefix("lens/"): sink.arrays[key] for key in sink.arrays if key.startswith("lens/")},
        )
    return ActivationStore(
        info,
        prepared.columns,
        ArrayValues({site: sink.arrays[spec.key] for site, spec in kept.items()}, lens),
        examples=prepared.examples,
        positions=prepared.positions,
    )
