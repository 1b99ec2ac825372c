"""The comparisons of the self-check: each judges one site, lens or way of running against another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from einops import EinopsError
from torch import Tensor

from .errors import LayerprobeError
from .in_memory import pad
from .interventions import add
from .sites import SITES, SiteAt

if TYPE_CHECKING:
    from .model import Model


TEXT = "One day the cat was at the park and it was late . Who was happy ? They were not in the old house"


# Largest difference, relative to the largest value compared. Half precision rounds at 2^-8 (bf16) and 2^-11
# (fp16) per sum.
QUANTISED = 1e-1  # 8-bit kernels round each row of activations to 1/127 of its largest


TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 2e-2}


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Attributes:
        name: what was compared.
        difference: largest absolute difference over the largest absolute value; None where it does not apply.
        tolerance: what it may be (for the intervention: must exceed 0).
        note: why it does not apply, or where the largest difference lies.
        sites: what is not to be used if it fails; none: the model as a whole.
    """

    name: str
    difference: float | None
    tolerance: float
    note: str = ""
    sites: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """It holds, or does not apply; a NaN is not good."""
        if self.difference is None:
            return True
        if self.name == "intervention":
            return self.difference > self.tolerance
        return self.difference <= self.tolerance

    @property
    def reason(self) -> str:
        """What is wrong, in words."""
        if self.difference == float("inf"):
            return f"{self.name}: {self.note}"
        verb = "changes the output by only" if self.name == "intervention" else "is off by"
        return f"{self.name} {verb} {self.difference:.2e} ({self.note}; allowed {self.tolerance:.0e})"

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.name}: not checked, {self.note}"
        if not self.good:
            what = f"; not available: {', '.join(self.sites)}" if self.sites else ""
            return f"{self.reason}{what}"
        return f"{self.name}: {self.difference:.1e} (allowed {self.tolerance:.0e}), {self.note}"


def _tokens(model: "Model") -> list[int]:
    """A text where the tokenizer knows its words, else ids of its own, such as moves or residues."""
    longest = min(24, model.max_length)
    try:
        ids = model.encode(TEXT).input_ids if model.tokenizer is not None else []
    except LayerprobeError:
        ids = []
    # the embedding's own padding id, which some families count no position for, is no text
    body: Any = model.hf.get_submodule(model.anatomy.body)
    unused = getattr(body.get_input_embeddings(), "padding_idx", None)
    ids = [i for i in ids if i < model.vocab_size and i != unused][:longest]
    if len(set(ids)) > longest // 3:
        return ids
    special = {unused, *getattr(model.tokenizer, "all_special_ids", ())}
    # of a multimodal model, ids that stand for images and the like
    special |= {v for k, v in vars(model.hf.config).items() if "token_i" in k and isinstance(v, int)}
    own = [i for i in range(min(model.vocab_size, 50_000)) if i not in special] or [0]
    chosen = torch.randint(len(own), (longest,), generator=torch.Generator().manual_seed(0))
    return [own[int(i)] for i in chosen]


def _tolerance(model: "Model") -> float:
    """What rounding may do: that of the dtype, or that of kernels that round activations to 8 bits."""
    kinds: Any = getattr(model.hf, "is_quantized", False) and not getattr(
        model.hf, "is_loaded_in_4bit", False
    )
    return max(TOLERANCE.get(model.dtype, 1e-4), QUANTISED if kinds else 0.0)


def difference(got: Tensor, want: Tensor) -> float:
    """Largest absolute difference over the largest absolute value wanted; NaN where either is not finite."""
    got, want = got.detach().double().cpu(), want.detach().double().cpu()
    if not (torch.isfinite(got).all() and torch.isfinite(want).all()):
        return float("nan")
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-12))


def _worst(
    pairs: dict[str, tuple[Tensor, Tensor]], name: str, tolerance: float, sites: tuple[str, ...] = ()
) -> Finding:
    sizes = {where: difference(got, want) for where, (got, want) in pairs.items()}
    # NaN first, then the largest
    where = max(sizes, key=lambda w: (sizes[w] != sizes[w], sizes[w]))
    return Finding(name, sizes[where], tolerance, f"largest at {where}", sites)


def _available(model: "Model", site: str) -> list[SiteAt]:
    """The places of a site that the model has."""
    layers: Sequence[int | None] = range(model.n_layers) if SITES[site].layered else (None,)
    places = (SiteAt(site, layer) for layer in layers)
    return [at for at in places if model.engine.available(at) is None]


def _shapes(model: "Model") -> list[Finding]:
    """Every site against the width and the heads that everything downstream counts on: hyper-connections keep
    several streams, for example."""
    ids, mask = pad([_tokens(model)], device=model.device)
    found = []
    for site in SITES:
        places = _available(model, site) if site != "lens" else []
        if not places:
            continue
        try:
            got = model.forward(ids, mask, sites=places, select=lambda _, value: tuple(value.shape))
            wrong = _of_other_shape(model, got, ids)
        except (LayerprobeError, RuntimeError, ValueError, TypeError, IndexError, EinopsError) as error:
            wrong = f"{site} cannot be read ({str(error).splitlines()[0][:200] if str(error) else error!r})"
        found.append(Finding("shapes", float("inf") if wrong else 0.0, 0.0, wrong or site, (site,)))
    return found


def _of_other_shape(model: "Model", shapes: dict[SiteAt, tuple[int, ...]], ids: Tensor) -> str:
    for place, shape in shapes.items():
        per_token = tuple(ids.shape[1] if size == -1 else size for size in model.site_shape(place))
        want = (*ids.shape, *per_token)
        if shape != want:
            return (
                f"{place} has shape {list(shape)}, expected {list(want)} (batch, tokens, per token): this "
                "architecture keeps something else there"
            )
    return ""


def _hidden_states(model: "Model") -> list[Finding]:
    """embed, resid_pre and resid_post against transformers' own `output_hidden_states`."""
    ids, mask = pad([_tokens(model)], device=model.device)
    sites = [site for site in ("embed", "resid_pre", "resid_post") if _usable(model, site)]
    out = model.forward(ids, mask, sites=sites)
    body: Any = model.hf.get_submodule(model.anatomy.body)
    with torch.no_grad():
        options = {**_no_cache(model), "output_hidden_states": True}
        states = body(input_ids=ids, attention_mask=mask, **options).hidden_states
    if not states or len(states) != model.n_layers + 1:
        return [Finding("hidden states", None, 0.0, "this model gives none of its own")]
    normed = model.anatomy.final_norm is not None or model.anatomy.after_norm is not None
    by_site: dict[str, dict[str, tuple[Tensor, Tensor]]] = {site: {} for site in sites}
    # Mamba's states begin after block 0
    first = out.get(SiteAt("resid_post", 0))
    late = first is not None and difference(first, states[0]) < difference(first, states[1])
    for at, value in out.items():
        index = (at.layer or 0) + (at.site == "resid_post") - late
        if index < 0:
            continue
        if not (normed and index == model.n_layers - late):  # transformers' last is after the final norm
            by_site[at.site][str(at)] = (value, states[index])
    allowed = _tolerance(model)
    last = by_site["resid_post"].pop(f"resid_post[{model.n_layers - 1}]", None)
    found = [_worst(pairs, "hidden states", allowed, (site,)) for site, pairs in by_site.items() if pairs]
    if last is not None and model.n_layers > 1:
        # by itself: where it alone is off, transformers' last state is after a norm that was not found
        found.append(_worst({"the last block": last}, "final norm", allowed, ("final_norm", "lens")))
    return found


def _head_sums(model: "Model") -> list[Finding]:
    """Σ over heads of what each writes through the output projection, plus its bias, against the attention
    output."""
    ids, mask = pad([_tokens(model)], device=model.device)
    written = {at.layer for at in _usable(model, "attn_out")}
    layers = [at.layer for at in _usable(model, "head_out") if at.layer in written and at.layer is not None]
    if not layers:
        return [Finding("head sums", None, 0.0, "head_out or attn_out is not available")]
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
    # where blocks add up, attn_out is judged by that
    sites = ("head_out",) if model.anatomy.additive else ("head_out", "attn_out")
    return [_worst(pairs, "head sums", _tolerance(model), sites)]


def _only(heads: Tensor, head: int) -> Tensor:
    kept = torch.zeros_like(heads)
    kept[:, :, head] = heads[:, :, head]
    return kept


def _usable(model: "Model", site: str) -> list[SiteAt]:
    return [] if site in model.unavailable else _available(model, site)


def _additive(model: "Model") -> list[Finding]:
    """resid_pre + attn_out against resid_mid, and + mlp_out against resid_post; which of them is off follows
    from which sums are."""
    if not model.anatomy.additive:
        why = (
            "post-norm blocks, whose output is a norm of the sum, or blocks that scale it or make one branch "
            "of two modules: there is no sum to check"
        )
        return [Finding("additive blocks", None, 0.0, why)]
    names = ("resid_pre", "attn_out", "mlp_out", "resid_post")
    if any(len(_usable(model, name)) < model.n_layers for name in names):
        return [Finding("additive blocks", None, 0.0, "attn_out or mlp_out is not available")]
    ids, mask = pad([_tokens(model)], device=model.device)
    out = model.forward(ids, mask, sites=[*names, *map(str, _usable(model, "resid_mid"))])
    whole, upper, lower = {}, {}, {}
    for layer in range(model.n_layers):
        pre, attn, mlp, post = (out[SiteAt(name, layer)].double() for name in names)
        whole[f"resid_post[{layer}]"] = (pre + attn + mlp, post)
        if SiteAt("resid_mid", layer) in out:
            mid = out[SiteAt("resid_mid", layer)].double()
            upper[f"resid_mid[{layer}]"], lower[f"resid_post[{layer}]"] = (pre + attn, mid), (mid + mlp, post)
    allowed = _tolerance(model)
    sums = _worst(whole, "additive blocks", allowed)
    first = _worst(upper, "additive blocks", allowed) if upper else sums
    second = _worst(lower, "additive blocks", allowed) if lower else sums
    blamed: tuple[str, ...] = (
        ("resid_mid",) if sums.good else ("mlp_out",) if first.good else ("attn_out",) if second.good else ()
    )
    blamed = blamed or (("attn_out", "mlp_out", "resid_mid") if upper else ("attn_out", "mlp_out"))
    shown = first if sums.good else sums
    return [replace(shown, sites=blamed)]


def _no_cache(model: "Model") -> dict[str, Any]:
    return {"use_cache": False} if hasattr(model.config, "use_cache") else {}


def _lens_is_logits(model: "Model") -> list[Finding]:
    """The lens of the last layer against the logits of the whole model."""
    if model.engine.head is None:
        return [Finding("lens", None, 0.0, "no language-model head")]
    ids, mask = pad([_tokens(model)], device=model.device)
    last = SiteAt("resid_post", model.n_layers - 1)
    resid = model.forward(ids, mask, sites=[last])[last]
    try:
        with torch.no_grad():
            logits = model.hf(input_ids=ids, attention_mask=mask, **_no_cache(model)).logits
            read = model.lens.unembed(resid)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        why = f"it cannot be computed ({str(error).splitlines()[0][:200]})"
        return [Finding("lens", float("inf"), 0.0, why, ("lens",))]
    if read.shape != logits.shape:
        why = f"it has shape {list(read.shape)}, the model's logits {list(logits.shape)}"
        return [Finding("lens", float("inf"), 0.0, why, ("lens",))]
    return [_worst({"the last layer": (read, logits)}, "lens", _tolerance(model), ("lens",))]


def _padding(model: "Model") -> list[Finding]:
    """A text padded right, as batches are, and left, as they are while generating, against the text alone."""
    long = _tokens(model)
    short = long[: max(2, len(long) // 2)]
    last = SiteAt("resid_post", model.n_layers - 1)
    alone = model.forward(*pad([short], device=model.device), sites=[last])[last][0]
    right = model.forward(*pad([short, long], side="right", device=model.device), sites=[last])[last][0]
    left = model.forward(*pad([short, long], side="left", device=model.device), sites=[last])[last][0]
    allowed = _tolerance(model)
    return [
        _worst({"right padding": (right[: len(short)], alone)}, "padding", allowed),
        _worst({"left padding": (left[-len(short) :], alone)}, "padding", allowed, ("generate",)),
    ]


def _intervention(model: "Model") -> list[Finding]:
    """A vector added to the middle of the stream must change what comes out."""
    ids, mask = pad([_tokens(model)], device=model.device)
    last = SiteAt("resid_post", model.n_layers - 1)

    def outcome() -> Tensor:
        stream: Tensor = model.forward(ids, mask, sites=[last])[last]
        return stream

    before = outcome()
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(model.d_model, generator=generator)
    middle = SiteAt("resid_post", model.n_layers // 2)
    size = model.forward(ids, mask, sites=[middle])[middle].float().abs().mean().item()
    with model.edit(add("resid_post", layer=middle.layer, vector=vector * max(size, 1e-3))):
        after = outcome()
    back = difference(outcome(), before)
    if back != 0.0:
        return [Finding("removed intervention", back, 0.0, "the output does not come back")]
    return [Finding("intervention", difference(after, before), 1e-4, f"added at {middle}")]
