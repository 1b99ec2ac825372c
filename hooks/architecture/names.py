"""The words that the parts of a model go by: the one place to add a family, for good or for one call.

`discover` looks for these names in a model's tree and configuration. A user's own come first, see `Names`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import LayerprobeError

Words = tuple[str, ...]
FUSED_ORDERS = ("blocks", "per_head", "per_group")


@dataclass(frozen=True)
class Names:
    """What a model calls its parts: attributes of its modules, and fields of its configuration.

    Every field takes one word or several, in order of preference, and is tried before the names that
    layerprobe knows. Leave out what is called as in Llama, GPT-2 or any other family that loads.

    Args:
        attention: the attention module of a block.
        mixer: what mixes tokens in blocks that have no attention (linear attention, Mamba, convolution).
        mlp: the feed-forward module of a block.
        output_projection: the projection out of attention, a child of it.
        down_projection: the projection out of the MLP, a child of it.
        query: the three projections (query, key, value), children of attention; one triple or several.
        fused_query: the one projection that yields all three.
        fused_order: how it orders them: "blocks" (all queries, all keys, all values), "per_head" (q, k, v of
            head 0, then of head 1) or "per_group" (the queries of one key/value head, its key, its value).
        router: the router of a mixture of experts, a child of the MLP.
        mid_norm: the norm before the MLP, a child of the block.
        post_attention_norm: a norm on what attention returns, before it is added (Gemma-2).
        post_mlp_norm: a norm on what the MLP returns, before it is added.
        final_norm: the norm after the last block, beside the list of blocks.
        branch_scale: the attribute of a block by which it multiplies what its sublayers return (Granite).
        blocks: path of the list of blocks, where there are several to choose from.
        config: configuration fields, transformers' usual name to this model's.

    Raises:
        LayerprobeError: a field that is no word, or an order that does not exist.

    >>> Names(attention="token_mixer", config={"num_hidden_layers": "depth"}).words("attention")
    ('token_mixer',)
    """

    attention: str | Sequence[str] = ()
    mixer: str | Sequence[str] = ()
    mlp: str | Sequence[str] = ()
    output_projection: str | Sequence[str] = ()
    down_projection: str | Sequence[str] = ()
    query: Sequence[str] | Sequence[Sequence[str]] = ()
    fused_query: str | Sequence[str] = ()
    fused_order: str | None = None
    router: str | Sequence[str] = ()
    mid_norm: str | Sequence[str] = ()
    post_attention_norm: str | Sequence[str] = ()
    post_mlp_norm: str | Sequence[str] = ()
    final_norm: str | Sequence[str] = ()
    branch_scale: str | Sequence[str] = ()
    blocks: str | None = None
    config: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in WORD_FIELDS:
            object.__setattr__(self, part, _words(part, getattr(self, part)))
        one = bool(self.query) and isinstance(self.query[0], str)
        triples: tuple[Any, ...] = (tuple(self.query),) if one else tuple(self.query)
        if any(len(triple) != 3 for triple in triples):
            raise LayerprobeError(f"Names(query={self.query!r}): give (query, key, value), three names")
        object.__setattr__(self, "query", tuple(_words("query", triple) for triple in triples))
        if self.fused_order is not None and self.fused_order not in FUSED_ORDERS:
            raise LayerprobeError(
                f"Names(fused_order={self.fused_order!r}): choose one of {', '.join(FUSED_ORDERS)}"
            )
        if not isinstance(self.config, Mapping):
            raise LayerprobeError(
                f"Names(config={self.config!r}): give a dict such as {{'num_hidden_layers': 'depth'}}"
            )
        given = {key: _words(f"config[{key!r}]", value) for key, value in self.config.items()}
        object.__setattr__(self, "config", given)

    def words(self, part: str) -> Words:
        """The names of one part, best first."""
        found: Words = getattr(self, part)
        return found

    def triples(self) -> tuple[Words, ...]:
        """The names of (query, key, value), best first."""
        found: tuple[Words, ...] = self.query  # type: ignore[assignment]
        return found

    def before(self, other: "Names") -> "Names":
        """These names first, then those of `other`."""
        joined: dict[str, Any] = {p: (*self.words(p), *other.words(p)) for p in WORD_FIELDS}
        keys = {**self.config, **other.config}
        config = {key: (*self.config.get(key, ()), *other.config.get(key, ())) for key in keys}
        return Names(
            **joined,
            query=(*self.triples(), *other.triples()),
            fused_order=self.fused_order or other.fused_order,
            blocks=self.blocks or other.blocks,
            config=config,
        )

    def value(self, config: Any, key: str) -> int | None:
        """A whole number of a configuration, whatever the field is called; None where it has none."""
        for name in self.config.get(key, (key,)):
            value = getattr(config, name, None)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None


WORD_FIELDS = tuple(
    f.name for f in fields(Names) if f.name not in ("query", "fused_order", "blocks", "config")
)


def _words(part: str, given: object) -> Words:
    several = (given,) if isinstance(given, str) else given
    if not isinstance(several, Sequence) or not all(isinstance(w, str) and w for w in several):
        raise LayerprobeError(f"Names({part}={given!r}): give a name, or a list of names")
    return tuple(several)


# What families are known to call their parts. A family for good: add its word here.
KNOWN = Names(
    attention=(
        *("self_attn", "self_attention", "attn", "attention", "self_attention_layer", "multi_head_attention"),
    ),
    mixer=("linear_attn", "mamba", "conv", "mixer"),
    mlp=("mlp", "feed_forward", "ffn", "block_sparse_moe", "mixer_mlp", "ff", "shared_mlp"),
    output_projection=("o_proj", "out_proj", "c_proj", "dense", "Wo", "wo", "out_lin", "o"),
    down_projection=(
        *("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "Wo", "wo", "output_linear", "lin2"),
    ),
    query=(
        *(("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("wq", "wk", "wv"), ("q", "k", "v")),
        *(("Wq", "Wk", "Wv"), ("q_lin", "k_lin", "v_lin")),
    ),
    fused_query=("c_attn", "query_key_value", "qkv_proj", "Wqkv", "qkv"),
    router=("gate", "router"),
    mid_norm=(
        *("pre_feedforward_layernorm", "ln_2", "mlp_norm", "ffn_norm", "norm2", "norm_2"),
        *("feedforward_layernorm", "pre_ff_layernorm", "pre_mlp_layernorm"),
    ),
    # `post_attention_layernorm` is one of these only where the MLP has a post-norm too, see block_parts.py
    post_attention_norm=("post_self_attn_layernorm", "post_norm1", "post_attention_layernorm"),
    post_mlp_norm=("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2"),
    final_norm=(
        *("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "ln_final"),
        *("layer_norm", "embedding_norm", "ln", "emb_layer_norm_after", "ln_out"),
    ),
    branch_scale=("residual_multiplier", "residual_scale"),
    config={
        "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
        "num_attention_heads": ("num_attention_heads", "n_head", "num_heads"),
        "num_key_value_heads": ("num_key_value_heads", "num_kv_heads"),
        "hidden_size": ("hidden_size", "n_embd", "d_model"),
        "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_sequence_length"),
    },
)
# Model types whose blocks call a mixer without a softmax `attention`
NO_ATTENTION = ("rwkv",)
# Model types that count positions from the padding id on
PADDED_POSITIONS = (
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "data2vec-text"),
    *("mpnet", "longformer", "ibert", "luke", "mluke", "xmod"),
)
# Two modules whose sum is one branch: no module's output is what is added, so the branch has no site
MIXER_BESIDE = ("self_attn", "mamba")  # Falcon-H1
MLP_BESIDE = ("block_sparse_moe", "shared_mlp")  # Granite's shared experts
# Configuration flags of blocks whose attention and MLP read the same stream
PARALLEL = ("use_parallel_residual", "parallel_attn", "new_decoder_architecture")
# How a fused query-key-value projection orders its output, by config.model_type, see `Names.fused_order`
FUSED_ORDER = {
    "gpt2": "blocks",
    "gpt_bigcode": "blocks",  # with one key/value head; per_head without
    "phi3": "blocks",
    "modernbert": "blocks",
    "openai-gpt": "blocks",
    "mpt": "blocks",
    "gpt_neox": "per_head",
    "bloom": "per_head",
    "persimmon": "per_head",
    "falcon": "per_group",
}
