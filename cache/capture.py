"""`capture`: run prompts through a model once and keep what passes the sites asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..hooks.errors import LayerprobeError
from ..hooks.sites import SiteAt
from .batches import Plan, make_plan
from .creation import Contents
from .identity import check_same, model_fields
from .layout import ArraySpec
from .lens_table import LensTable
from .memory import ArrayValues
from .opening import read_layout
from .pipeline import run_plan
from .prepare import Prepared, prepare
from .prompts import PromptTable
from .provenance import volatile_provenance
from .reader import open_file
from .running import TORCH_TYPES, Request
from .sinks import MemorySink
from .store import ActivationStore, StoreInfo
from .tokens import TokenRule, parse_rule
from .writer import StoreWriter

if TYPE_CHECKING:
    from ..hooks.model import Model

#: bytes of rows that are committed together
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True)
class Options:
    """The arguments of a capture that decide what is stored."""

    sites: tuple[SiteAt, ...]
    rule: TokenRule
    lens_layers: tuple[int, ...]
    lens_tokens: tuple[str, ...]
    lens_first_difference: bool
    chat_template: bool
    dtype: str
    top_k: int
    on_long: Literal["error", "truncate"]

    def as_dict(self) -> dict[str, Any]:
        """Fields of the identity."""
        return {
            "sites": [str(at) for at in self.sites],
            "tokens": self.rule.text,
            "lens.layers": list(self.lens_layers),
            "lens.tokens": list(self.lens_tokens),
            "lens.first_difference": self.lens_first_difference,
            "lens.top_k": self.top_k if self.lens_layers else None,
            "chat_template": self.chat_template,
            "dtype": self.dtype,
            "on_long": self.on_long,
        }


def capture(
    model: Model,
    prompts: PromptTable | Sequence[str],
    *,
    sites: Sequence[str] | str,
    tokens: str = "last",
    path: str | Path | None = None,
    chat_template: bool | None = None,
    lens_tokens: Sequence[str] = (),
    lens_first_difference: bool = False,
    batch_tokens: int | Literal["auto"] = "auto",
    dtype: str | None = None,
    top_k: int = 5,
    on_long: Literal["error", "truncate"] = "error",
    progress: bool = True,
) -> ActivationStore:
    """Run prompts through a model and keep activations, in a file or in memory.

    The same command goes on where an interrupted one stopped, and returns at once where it has finished.

    Args:
        model: from `load_model`; interventions in force (`model.edit`) apply and are recorded.
        prompts: from `read_prompts`, or a list of texts.
        sites: selections such as `resid_post`, `head_out[-4:]`, `lens`.
        tokens: the token rule: `last`, `first`, `mean`, `pos:3`, `all`, `content`, `special`, `span:COLUMN`,
            `chars:COLUMN`, `regex:PATTERN`, `role:ROLE`; a set takes `:last`, `:first`, `:mean` or `:all`.
        path: the file; None keeps everything in memory.
        chat_template: None uses the template for chat messages only; True wraps plain texts as one user
            message.
        lens_tokens: label columns whose strings are candidate answers, read through the lens at every layer.
        lens_first_difference: where the answers of a prompt begin with the same tokens, append those tokens
            to the
            prompt and score the first that differs; otherwise such prompts are an error.
        batch_tokens: tokens of a batch, padding included; `auto` chooses by device.
        dtype: stored type; None is the model's. `float32`, `float16` or `bfloat16`.
        top_k: tokens that the lens keeps per row and layer.
        on_long: what to do with a prompt longer than the context.
        progress: show a progress bar.

    Returns:
        The store, opened.

    Raises:
        LayerprobeError: before anything runs, for what does not fit (sites, rule, columns, long prompts,
            another
            capture in the same file, another process writing it, a full disk).
    """
    table = prompts if isinstance(prompts, PromptTable) else text_table(prompts)
    options = _options(
        model,
        table,
        sites=sites,
        tokens=tokens,
        chat_template=chat_template,
        lens_tokens=tuple(lens_tokens),
        lens_first_difference=lens_first_difference,
        dtype=dtype,
        top_k=top_k,
        on_long=on_long,
    )
    target = None if path is None else Path(path)
    identity = capture_identity(model, table, options)
    if target is not None and target.exists():
        check_same(target, identity, read_layout(target).header["identity"])
        store = open_file(target)
        if store.complete:
            return store
    prepared = prepare(
        model,
        table,
        options.rule,
        chat_template=options.chat_template,
        lens_tokens=options.lens_tokens,
        first_difference=lens_first_difference,
        on_long=on_long,
    )
    if target is not None and target.exists():
        writer = StoreWriter.resume(target)
        request = make_request(model, options, writer.layout.arrays, prepared)
        run_plan(model, request, prepared, writer.layout.plan, writer, progress=progress)
        return open_file(target)
    arrays = array_specs(model, options, prepared)
    plan = _plan(model, prepared, arrays, batch_tokens)
    request = make_request(model, options, arrays, prepared)
    if target is None:
        sink = MemorySink(plan, arrays, len(prepared.examples))
        run_plan(model, request, prepared, plan, sink, progress=progress)
        return _in_memory(model, table, options, identity, prepared, arrays, sink)
    check_room(target, arrays, len(prepared.examples))
    contents = _contents(model, table, options, identity, prepared, arrays, plan)
    writer = StoreWriter.create(target, contents)
    run_plan(model, request, prepared, plan, writer, progress=progress)
    return open_file(target)


def text_table(texts: Sequence[str]) -> PromptTable:
    """A bare table of texts."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or not len(texts):
        raise LayerprobeError(
            f"expected a PromptTable or a list of texts, got {type(texts).__name__}: use read_prompts"
        )
    return PromptTable(tuple(str(row) for row in range(len(texts))), tuple(texts), name="texts")


def _options(
    model: Model,
    table: PromptTable,
    *,
    sites: Sequence[str] | str,
    tokens: str,
    chat_template: bool | None,
    lens_tokens: tuple[str, ...],
    lens_first_difference: bool,
    dtype: str | None,
    top_k: int,
    on_long: Literal["error", "truncate"],
) -> Options:
    rule = parse_rule(tokens)
    if rule.span is not None and rule.span not in table.spans:
        raise LayerprobeError(
            f"tokens={tokens!r} needs a span column {rule.span!r}: read_prompts(..., spans=[{rule.span!r}])"
        )
    chosen = model.parse_sites(sites)
    lens_layers = tuple(sorted(at.layer for at in chosen if at.site == "lens" and at.layer is not None))
    if lens_tokens and not lens_layers:
        lens_layers = tuple(range(model.n_layers))
    if lens_layers:
        model.parse_sites("lens")
    stored = tuple(
        sorted((at for at in chosen if at.site != "lens"), key=lambda at: (at.site, at.layer or 0))
    )
    if any(at.site == "attn_pattern" for at in stored) and (not rule.one_row or rule.pooled):
        raise LayerprobeError(
            f"attn_pattern is stored for one-token rules only, not tokens={tokens!r}: use "
            f"tokens='last' or 'pos:3', "
            f"or model.run for a look at whole patterns"
        )
    name = dtype or str(model.dtype).removeprefix("torch.")
    if name not in TORCH_TYPES:
        raise LayerprobeError(f"dtype={dtype!r}: expected {', '.join(TORCH_TYPES)}")
    if on_long not in ("error", "truncate"):
        raise LayerprobeError(f"on_long={on_long!r}: expected 'error' or 'truncate'")
    return Options(
        sites=stored,
        rule=rule,
        lens_layers=lens_layers,
        lens_tokens=lens_tokens,
        lens_first_difference=lens_first_difference,
        chat_template=table.chat or bool(chat_template),
        dtype=name,
        top_k=min(top_k, model.vocab_size),
        on_long=on_long,
    )


def capture_identity(model: Model, table: PromptTable, options: Options) -> dict[str, Any]:
    """Everything that must agree for two captures to be the same.

    Token ids follow from the prompts, the tokenizer and the template, all of which are in here, so that a
    finished file is recognised without tokenising anything.
    """
    return {**model_fields(model), **options.as_dict(), "prompts": table.sha256, "n_prompts": len(table)}


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
    lengths = prepared.columns.lengths
    assert lengths is not None
    return int(lengths.max())


def make_request(
    model: Model, options: Options, arrays: tuple[ArraySpec, ...], prepared: Prepared
) -> Request:
    """What to take from every batch; the lens needs the last layer too, for the KL."""
    layers = options.lens_layers
    if layers and layers[-1] != model.n_layers - 1:
        layers = (*layers, model.n_layers - 1)
    return Request(options.sites, layers, options.top_k, options.dtype, arrays, _longest(prepared))


def _plan(
    model: Model, prepared: Prepared, arrays: tuple[ArraySpec, ...], batch_tokens: int | Literal["auto"]
) -> Plan:
    if batch_tokens == "auto":
        batch_tokens = 1024 if model.device.type == "cpu" else 16384
    if not isinstance(batch_tokens, int) or batch_tokens < 1:
        raise LayerprobeError(f"batch_tokens={batch_tokens!r}: expected a number of tokens, or 'auto'")
    total = max(1, sum(spec.n_layers * spec.row_bytes for spec in arrays))
    lengths = prepared.columns.lengths
    assert lengths is not None
    return make_plan(
        lengths,
        prepared.rows_per_prompt,
        prepared.identical(),
        batch_tokens=batch_tokens,
        block_rows=max(1, BLOCK_BYTES // total),
        row_bytes=max((spec.row_bytes for spec in arrays), default=1),
    )


def check_room(path: Path, arrays: tuple[ArraySpec, ...], n_rows: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        LayerprobeError: with the bytes needed and the bytes free.
    """
    needed = n_rows * sum(spec.n_layers * spec.row_bytes for spec in arrays)
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if needed > free:
        raise LayerprobeError(
            f"{path} needs {needed / 1e9:,.2f} GB and its disk has {free / 1e9:,.2f} GB free: choose "
            f"fewer sites or "
            f"layers, tokens='last', dtype='bfloat16', or another disk"
        )


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


def _contents(
    model: Model,
    table: PromptTable,
    options: Options,
    identity: Mapping[str, Any],
    prepared: Prepared,
    arrays: tuple[ArraySpec, ...],
    plan: Plan,
) -> Contents:
    return Contents(
        header=_header(model, table, options, identity, arrays),
        volatile=volatile_provenance(model),
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


def _in_memory(
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
        provenance={**header["provenance"], **volatile_provenance(model)},
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
