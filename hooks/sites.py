"""The vocabulary of sites: the places inside a model whose values can be read or edited."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .errors import LayerprobeError


@dataclass(frozen=True)
class SiteInfo:
    """What one site is.

    Attributes:
        name: the word used everywhere.
        layered: one value per block (False: `embed` and `final_norm`, of which a model has one).
        shape: the per-token shape in words.
        meaning: one line.
        transformer_lens: TransformerLens's hook of the same tensor (`{l}` stands for the layer).
        transformers: where transformers computes it.
    """

    name: str
    layered: bool
    shape: str
    meaning: str
    transformer_lens: str
    transformers: str


_ROWS = (
    (
        "embed",
        False,
        "d_model",
        "what enters block 0; equals resid_pre[0]",
        "blocks.0.hook_in",
        "input of block 0",
    ),
    ("resid_pre", True, "d_model", "what enters the block", "blocks.{l}.hook_in", "input of the block"),
    (
        "resid_mid",
        True,
        "d_model",
        "the stream between attention and MLP (sequential blocks only)",
        "blocks.{l}.ln2.hook_in",
        "input of the norm before the MLP",
    ),
    (
        "resid_post",
        True,
        "d_model",
        "the block's output, before the final norm",
        "blocks.{l}.hook_out",
        "output of the block (`hidden_states[l + 1]`, except the last, which is after the final norm)",
    ),
    (
        "attn_out",
        True,
        "d_model",
        "what attention adds to the stream, after a post-norm or a scale of its own",
        "blocks.{l}.attn.o.hook_out (ln1_post.hook_out)",
        "output of the attention module (of its post-norm)",
    ),
    (
        "mixer_out",
        True,
        "d_model",
        "what a mixer that is no attention (Mamba, linear attention, convolution) adds to the stream",
        "none",
        "output of the mixer",
    ),
    (
        "mlp_out",
        True,
        "d_model",
        "what the MLP adds to the stream, after a post-norm or a scale of its own",
        "blocks.{l}.mlp.out.hook_out (ln2_post.hook_out)",
        "output of the MLP (of its post-norm)",
    ),
    (
        "head_out",
        True,
        "heads x d_head",
        "each head's output, before the output projection",
        "blocks.{l}.attn.o.hook_in",
        "input of the attention output projection",
    ),
    (
        "q",
        True,
        "heads x d_head",
        "queries out of their projection, before query norm and rotary embedding",
        "blocks.{l}.attn.q.hook_out",
        "output of the query projection",
    ),
    (
        "k",
        True,
        "kv heads x d_head",
        "keys out of their projection, before key norm and rotary embedding",
        "blocks.{l}.attn.k.hook_out",
        "output of the key projection",
    ),
    (
        "v",
        True,
        "kv heads x d_head",
        "values out of their projection",
        "blocks.{l}.attn.v.hook_out",
        "output of the value projection",
    ),
    (
        "attn_pattern",
        True,
        "heads x tokens",
        "attention probabilities, indexed query token, head, key token",
        "blocks.{l}.attn.hook_pattern",
        "softmax of eager attention",
    ),
    (
        "mlp_act",
        True,
        "d_ff",
        "input of the MLP's down projection (dense MLPs)",
        "blocks.{l}.mlp.out.hook_in",
        "input of the down projection",
    ),
    (
        "router_logits",
        True,
        "experts",
        "the router's scores before its softmax (mixture of experts)",
        "none",
        "first output of the router",
    ),
    (
        "final_norm",
        False,
        "d_model",
        "the stream after the last norm, what the unembedding reads",
        "ln_final.hook_out",
        "output of the final norm",
    ),
    (
        "lens",
        True,
        "LensReadout",
        "resid_post read through the final norm and the unembedding",
        "none",
        "none",
    ),
)


SITES: dict[str, SiteInfo] = {row[0]: SiteInfo(*row) for row in _ROWS}


# Sites that hold no vector per row, and why: an analysis of vectors leaves them out, and refuses them by name
NO_VECTORS = {
    "lens": "is a readout of the lens and no vector",
    "attn_pattern": "holds attention over positions, padded where a prompt ends, and no vector",
}


@dataclass(frozen=True, order=True)
class SiteAt:
    """A site at a layer: `resid_post[3]`; `embed` and `final_norm` have layer None.

    >>> str(SiteAt("resid_post", 3)), str(SiteAt("embed"))
    ('resid_post[3]', 'embed')
    """

    site: str
    layer: int | None = None

    def __str__(self) -> str:
        return self.site if self.layer is None else f"{self.site}[{self.layer}]"


class Sites(Mapping[str, "tuple[int, ...] | str"]):
    """The sites of a model: the layers that have each, () for one without layers, or why there is none."""

    def __init__(self, found: Mapping[str, "tuple[int, ...] | str"]) -> None:
        self._found = dict(found)

    def __getitem__(self, name: str) -> "tuple[int, ...] | str":
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        width = max(map(len, self._found))
        return "\n".join(f"{name:{width}}  {_said(found)}" for name, found in self._found.items())


def _said(found: "tuple[int, ...] | str") -> str:
    if isinstance(found, str):
        return f"- {found}"
    if not found:
        return "available"
    whole = found == tuple(range(found[0], found[-1] + 1))
    listed = f"{found[0]}-{found[-1]}" if whole and len(found) > 1 else ", ".join(map(str, found))
    return f"layers {listed}" if len(found) > 1 else f"layer {listed}"


def site_info(name: str) -> SiteInfo:
    """The site of this name.

    Raises:
        LayerprobeError: there is no such site.
    """
    if name not in SITES:
        raise LayerprobeError(f"unknown site {name!r}: the sites are {', '.join(SITES)}")
    return SITES[name]
