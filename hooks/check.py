"""The self-check of a loaded model: hooks compared with the model's own outputs and with each other."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import LayerprobeError
from .identity import text_sha256
from .in_memory import pad
from .interventions import add
from .remembered import recall, remember
from .sites import SiteAt

if TYPE_CHECKING:
    from .model import Model

TEXT = "One day the cat was at the park and it was late . Who was happy ? They were not in the old house"
# Largest difference, relative to the largest value compared. Half precision rounds at 2^-8 (bf16) and 2^-11
# (fp16) per sum.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Attributes:
        name: what was compared.
        difference: largest absolute difference over the largest absolute value; None where it does not apply.
        tolerance: what it may be (for the intervention: must exceed 0).
        note: why it does not apply, or where the largest difference lies.
    """

    name: str
    difference: float | None
    tolerance: float
    note: str = ""

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.name}: not checked, {self.note}"
        return f"{self.name}: {self.difference:.1e} (allowed {self.tolerance:.0e}), {self.note}"


@dataclass(frozen=True)
class CheckReport:
    """What `model.check()` found.

    Attributes:
        findings: one per comparison.
        remembered: the report of an earlier run with the same weights, engine, dtype and versions.
    """

    findings: tuple[Finding, ...]
    remembered: bool = False

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check(model: "Model", *, again: bool = False) -> CheckReport:
    """Run the self-check, or recall its result for the same weights, engine, dtype and library versions.

    Args:
        model: any loaded model.
        again: run it even if it is remembered.

    Raises:
        LayerprobeError: naming the first comparison that fails, where, and by how much.
    """
    key = _key(model)
    known = None if again else recall("checks.json", key)
    if known:
        return CheckReport(tuple(Finding(**f) for f in known), remembered=True)
    findings = tuple(compare(model) for compare in COMPARISONS)
    for finding in findings:
        _judge(model, finding)
    remember("checks.json", key, [asdict(f) for f in findings])
    return CheckReport(findings)


def _key(model: "Model") -> str:
    who = model.identity
    parts = [
        who.weights_sha256,
        who.config_sha256,
        who.dtype,
        who.engine,
        str(model.device),
        *map("=".join, who.versions.items()),
        *(compare.__name__ for compare in COMPARISONS),  # a pass of fewer comparisons is not one of these
    ]
    return str(text_sha256("|".join(parts)))


def _judge(model: "Model", finding: Finding) -> None:
    if finding.difference is None:
        return
    wanted_change = finding.name == "intervention"
    good = (
        finding.difference > finding.tolerance if wanted_change else finding.difference <= finding.tolerance
    )
    if not good:  # a NaN is not good either
        verb = "changes the output by only" if wanted_change else "is off by"
        raise LayerprobeError(
            f"self-check of {model.name} (engine {model.engine.name}) failed: {finding.name} {verb} "
            f"{finding.difference:.2e} "
            f"({finding.note}; allowed {finding.tolerance:.0e}). See docs/sites.md, or load with "
            f"check=False at your own risk"
        )


def _tokens(model: "Model") -> list[int]:
    ids = model.encode(TEXT).input_ids if model.tokenizer is not None else list(range(1, 13))
    return [i % model.vocab_size for i in ids][: min(24, model.max_length)]


def _tolerance(model: "Model") -> float:
    return TOLERANCE.get(model.dtype, 1e-4)


def difference(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference over the largest absolute value wanted; NaN where either is not finite."""
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    if not (torch.isfinite(got).all() and torch.isfinite(want).all()):
        return float("nan")
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-12))


def _worst(pairs: dict[str, tuple[Tensor, Tensor]], name: str, tolerance: float) -> Finding:
    sizes = {where: difference(got, want) for where, (got, want) in pairs.items()}
    # NaN first, then the largest
    where = max(sizes, key=lambda w: (sizes[w] != sizes[w], sizes[w]))
    return Finding(name, sizes[where], tolerance, f"largest at {where}")


def _shapes(model: "Model") -> Finding:
    """The stream against the width and the heads that everything downstream counts on.

    Raises:
        LayerprobeError: a site of another shape (hyper-connections keep several streams, for example).
    """
    ids, mask = pad([_tokens(model)], device=model.device)
    sites = ("embed", "resid_pre", "resid_mid", "attn_out", "mlp_out", "head_out", "q", "k", "v")
    at = [SiteAt(s, x) for s in sites for x in ((None,) if s == "embed" else range(model.n_layers))]
    at = [place for place in at if model.engine.available(place) is None]
    found = model.forward(ids, mask, sites=at, select=lambda _, value: tuple(value.shape))
    for place, shape in found.items():
        want = (*ids.shape, *model.site_shape(place))
        if shape != want:
            raise LayerprobeError(
                f"self-check of {model.name} (engine {model.engine.name}) failed: {place} has shape "
                f"{list(shape)}, expected {list(want)} (batch, tokens, per token): this architecture keeps "
                "something else there, and layerprobe does not support it. See docs/sites.md, 'A new family'"
            )
    return Finding("shapes", 0.0, 0.0, f"{len(at)} places")


def _hidden_states(model: "Model") -> Finding:
    """resid_pre and resid_post against transformers' own `output_hidden_states`."""
    ids, mask = pad([_tokens(model)], device=model.device)
    out = model.forward(ids, mask, sites=["embed", "resid_pre", "resid_post"])
    body: Any = model.hf.get_submodule(model.anatomy.body)
    with torch.no_grad():
        states = body(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    if not states or len(states) != model.n_layers + 1:
        return Finding("hidden states", None, 0.0, "this model gives none of its own")
    pairs = {"embed": (out[SiteAt("embed")], states[0])}
    for layer in range(model.n_layers):
        pairs[f"resid_pre[{layer}]"] = (out[SiteAt("resid_pre", layer)], states[layer])
        if layer < model.n_layers - 1 or (
            model.anatomy.final_norm is None and model.anatomy.after_norm is None
        ):
            pairs[f"resid_post[{layer}]"] = (out[SiteAt("resid_post", layer)], states[layer + 1])
    return _worst(pairs, "hidden states", _tolerance(model))


def _head_sums(model: "Model") -> Finding:
    """Σ over heads of what each writes through the output projection, plus its bias, against the attention
    output."""
    ids, mask = pad([_tokens(model)], device=model.device)
    layers = [
        layer
        for layer in range(model.n_layers)
        if all(model.engine.available(SiteAt(site, layer)) is None for site in ("head_out", "attn_out"))
    ]
    if not layers:
        return Finding("head sums", None, 0.0, "head_out or attn_out is not available")
    out = model.forward(ids, mask, sites=[f"{s}[{x}]" for x in layers for s in ("head_out", "attn_out")])
    pairs = {}
    for layer in layers:
        parts = model.anatomy.blocks[layer]
        heads = out[SiteAt("head_out", layer)]
        project = model.engine.raw_module(str(parts.o_proj))
        with torch.no_grad():
            none = project(torch.zeros_like(heads).flatten(2))
            each = [
                project(_only(heads, h).flatten(2)).double() - none.double() for h in range(heads.shape[2])
            ]
            total = (torch.stack(each).sum(0) + none.double()).to(heads.dtype)
            if parts.attn_out not in (parts.attention, parts.o_proj):  # a post-norm of its own
                total = model.engine.raw_module(str(parts.attn_out))(total)
        pairs[f"attn_out[{layer}]"] = (total * parts.branch_scale, out[SiteAt("attn_out", layer)])
    return _worst(pairs, "head sums", _tolerance(model))


def _only(heads: Tensor, head: int) -> Tensor:
    kept = torch.zeros_like(heads)
    kept[:, :, head] = heads[:, :, head]
    return kept


def _additive(model: "Model") -> Finding:
    """resid_pre + attn_out against resid_mid, and + mlp_out against resid_post."""
    if not model.anatomy.additive:
        return Finding(
            "additive blocks",
            None,
            0.0,
            "post-norm blocks, whose output is a norm of the sum, or blocks that scale it or make one branch "
            "of two modules: there is no sum to check",
        )
    ids, mask = pad([_tokens(model)], device=model.device)
    names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    middle = [SiteAt("resid_mid", layer) for layer in range(model.n_layers)]
    middle = [at for at in middle if model.engine.available(at) is None]
    out = model.forward(ids, mask, sites=[*names, *map(str, middle)])
    pairs = {}
    for layer in range(model.n_layers):
        pre, attn, mlp, post = (out[SiteAt(name, layer)].double() for name in names)
        pairs[f"resid_post[{layer}]"] = (pre + attn + mlp, post)
        if SiteAt("resid_mid", layer) in out:
            pairs[f"resid_mid[{layer}]"] = (pre + attn, out[SiteAt("resid_mid", layer)])
    return _worst(pairs, "additive blocks", _tolerance(model))


def _lens_is_logits(model: "Model") -> Finding:
    """The lens of the last layer against the logits of the whole model."""
    if model.engine.head is None:
        return Finding("lens", None, 0.0, "no language-model head")
    ids, mask = pad([_tokens(model)], device=model.device)
    last = SiteAt("resid_post", model.n_layers - 1)
    resid = model.forward(ids, mask, sites=[last])[last]
    with torch.no_grad():
        whole: Any = model.hf(input_ids=ids, attention_mask=mask)
    return _worst({"the last layer": (model.lens.unembed(resid), whole.logits)}, "lens", _tolerance(model))


def _padding(model: "Model") -> Finding:
    """A text padded left and right against the same text alone."""
    long = _tokens(model)
    short = long[: max(2, len(long) // 2)]
    last = SiteAt("resid_post", model.n_layers - 1)
    alone = model.forward(*pad([short], device=model.device), sites=[last])[last][0]
    right = model.forward(*pad([short, long], side="right", device=model.device), sites=[last])[last][0]
    left = model.forward(*pad([short, long], side="left", device=model.device), sites=[last])[last][0]
    pairs = {"right padding": (right[: len(short)], alone), "left padding": (left[-len(short) :], alone)}
    return _worst(pairs, "padding", _tolerance(model))


def _intervention(model: "Model") -> Finding:
    """A vector added to the middle of the stream must change what comes out."""
    ids, mask = pad([_tokens(model)], device=model.device)
    last = SiteAt("resid_post", model.n_layers - 1)

    def outcome() -> Tensor:
        return (
            model.forward(ids, mask, sites=[last])[last]
            if model.engine.head is None
            else model.logits(ids, mask)
        )

    before = outcome()
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(model.d_model, generator=generator)
    middle = SiteAt("resid_post", model.n_layers // 2)
    size = model.forward(ids, mask, sites=[middle])[middle].float().abs().mean().item()
    with model.edit(add("resid_post", layer=middle.layer, vector=vector * max(size, 1e-3))):
        after = outcome()
    back = difference(outcome(), before)
    if back != 0.0:
        return Finding("removed intervention", back, 0.0, "the output does not come back")
    return Finding("intervention", difference(after, before), 1e-4, f"added at {middle}")


COMPARISONS: tuple[Callable[["Model"], Finding], ...] = (
    _shapes,
    _hidden_states,
    _head_sums,
    _additive,
    _lens_is_logits,
    _padding,
    _intervention,
)
