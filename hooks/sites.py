"""The vocabulary of sites: the places inside a model whose values can be read or edited, and how to write a
selection."""

import re
from collections.abc import Iterable, Sequence
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

_SELECTION = re.compile(r"^\s*(?P<name>\w+)\s*(?:\[(?P<index>[^\]]*)\])?\s*$")
_SLICE = re.compile(r"^\s*(-?\d*)\s*:\s*(-?\d*)\s*(?::\s*(-?\d*)\s*)?$")


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


def parse_sites(selections: Sequence[str | SiteAt] | str, n_layers: int) -> tuple[SiteAt, ...]:
    """Expand selections into sites at layers, in the order given, each once; layers count from 0.

    Args:
        selections: `"resid_post"` (every layer), `"resid_post[3]"`, `"resid_post[8:24:2]"`,
            `"head_out[-4:]"`, `"mlp_out[0,2,5]"`; one or several.
        n_layers: number of blocks L of the model.

    Raises:
        LayerprobeError: unknown site, layer out of range, or a layer given to a site that has none.

    >>> [str(s) for s in parse_sites(["embed", "resid_post[-2:]"], 4)]
    ['embed', 'resid_post[2]', 'resid_post[3]']
    """
    given = [selections] if isinstance(selections, (str, SiteAt)) else list(selections)
    if not given:
        raise LayerprobeError('no sites given: pass for example sites=["resid_post"]')
    found: dict[SiteAt, None] = {}
    for selection in given:
        found.update(dict.fromkeys(_expand(selection, n_layers)))
    return tuple(found)


def _expand(selection: object, n_layers: int) -> Iterable[SiteAt]:
    match = _SELECTION.match(str(selection)) if isinstance(selection, (str, SiteAt)) else None
    if match is None:
        raise LayerprobeError(
            f"cannot read the site {selection!r}: write it as resid_post, resid_post[3] or resid_post[8:24:2]"
        )
    info, index = site_info(match["name"]), match["index"]
    if not info.layered:
        if index is not None:
            raise LayerprobeError(f"{selection!r}: {info.name} has no layers, write {info.name}")
        return [SiteAt(info.name)]
    if index is None:
        return [SiteAt(info.name, layer) for layer in range(n_layers)]
    return [SiteAt(info.name, layer) for layer in _layers(index, n_layers, str(selection))]


def _layers(index: str, n_layers: int, selection: str) -> list[int]:
    window = _SLICE.match(index)
    if window is not None:
        start, stop, step = (int(part) if part else None for part in window.groups())
        if step == 0:
            raise LayerprobeError(f"{selection!r}: a slice step cannot be 0")
        layers = list(range(n_layers))[start:stop:step]
        if not layers:
            raise LayerprobeError(f"{selection!r} selects no layer: the model has layers 0 to {n_layers - 1}")
        return layers
    try:
        return [check_layer(int(part), n_layers, selection) for part in index.split(",")]
    except ValueError as error:
        if isinstance(error, LayerprobeError):
            raise
        raise LayerprobeError(
            f"cannot read the layers of {selection!r}: write [3], [8:24:2], [-4:] or [0,2,5]"
        ) from None


def site_info(name: str) -> SiteInfo:
    """The site of this name.

    Raises:
        LayerprobeError: there is no such site.
    """
    if name not in SITES:
        raise LayerprobeError(f"unknown site {name!r}: the sites are {', '.join(SITES)}")
    return SITES[name]


def check_layer(layer: int, n_layers: int, given: str) -> int:
    """The layer counted from 0 (negative ones count from the end).

    Raises:
        LayerprobeError: the model has no such layer.
    """
    if not -n_layers <= layer < n_layers:
        raise LayerprobeError(
            f"{given!r}: layer {layer} is out of range, the model has layers 0 to {n_layers - 1}"
        )
    return layer % n_layers
