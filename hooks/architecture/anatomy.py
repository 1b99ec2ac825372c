"""Where a model keeps its parts, found from its module tree: no list of architectures, only of the names
parts go by."""

import inspect
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..errors import LayerprobeError
from .block_parts import BlockParts, child, find_parts
from .head_shapes import head_shapes
from .names import FUSED_ORDER, KNOWN, NO_ATTENTION, PARALLEL, Names
from .suggestion import call_to_try


@dataclass(frozen=True)
class Anatomy:
    """Where a model keeps its parts.

    Attributes:
        body: path of the module that is called with `input_ids` and runs the blocks (no language-model head).
        blocks_path: path of the list of blocks.
        blocks: the parts of each block.
        final_norm: path of the last norm, or None (post-norm encoders).
        after_norm: path of a projection between final norm and unembedding (OPT-350m), or None.
        unembed: path of the language-model head, or None (encoders, reward models).
        additive: `resid_pre + attn_out + mlp_out = resid_post` holds in each block.
        parallel: attention and MLP read the same stream.
        fused_order: order of a fused query-key-value projection, see `FUSED_ORDER`.
        n_heads, n_kv_heads, d_head, d_model: sizes (d_head is set apart from d_model / n_heads in some
            families).
        names: the words that the parts were found by.
    """

    body: str
    blocks_path: str
    blocks: tuple[BlockParts, ...]
    final_norm: str | None
    after_norm: str | None
    unembed: str | None
    additive: bool
    parallel: bool
    fused_order: str | None
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    names: Names = field(default=KNOWN, compare=False)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)


def text_config(config: Any) -> Any:
    """The configuration of the text model: of a multimodal wrapper, that of its language model."""
    getter = getattr(config, "get_text_config", None)
    return getter(decoder=True) if callable(getter) else config


def discover(model: nn.Module, names: Names | None = None) -> Anatomy:
    """Find embedding input, blocks, sublayers, norms and unembedding of a transformers model.

    Args:
        model: any module with a transformers `config`.
        names: what its parts are called, where layerprobe does not know them.

    Raises:
        LayerprobeError: no list of blocks, or a block without attention, with the `names=` to try.
    """
    if names is not None and not isinstance(names, Names):
        raise LayerprobeError(
            f"names={names!r}: give Names(attention=..., ...), from layerprobe import Names"
        )
    words = KNOWN if names is None else names.before(KNOWN)
    config = text_config(getattr(model, "config", None))
    if getattr(config, "model_type", "") in NO_ATTENTION:
        words = replace(words, attention=(), mixer=words.words("attention"))
    n_layers = _size(model, config, words, "num_hidden_layers")
    blocks_path = _find_blocks(model, n_layers, words)
    body = _find_body(model, blocks_path)
    blocks = tuple(
        find_parts(model.get_submodule(f"{blocks_path}.{i}"), f"{blocks_path}.{i}", words)
        for i in range(n_layers)
    )
    # a single norm before both sublayers is a parallel block too (GPT-J, Phi-2, Cohere)
    parallel = _is_parallel(config) or all(parts.mid_norm is None for parts in blocks)
    blocks = tuple(replace(parts, mid_norm=None) for parts in blocks) if parallel else blocks
    prefix = blocks_path.rpartition(".")[0]
    has_heads = any(parts.attention for parts in blocks)
    n_heads = _size(model, config, words, "num_attention_heads") if has_heads else 1
    d_model = _size(model, config, words, "hidden_size")
    sizes = _head_sizes(config, n_heads, d_model, words)
    queries, keys = (n_heads, sizes[1]), sizes
    usual = {"head_out": queries, "q": queries, "k": keys, "v": keys}
    blocks = tuple(replace(parts, shapes=head_shapes(parts, model, usual)) for parts in blocks)
    return Anatomy(
        body=body,
        blocks_path=blocks_path,
        blocks=blocks,
        final_norm=child(model.get_submodule(prefix), words.words("final_norm"), prefix),
        after_norm=child(model.get_submodule(prefix), ("project_out",), prefix),
        unembed=_find_unembed(model),
        additive=_is_additive(model, config, blocks),
        parallel=parallel,
        fused_order=words.fused_order or _fused_order(config),
        n_heads=n_heads,
        n_kv_heads=sizes[0],
        d_head=sizes[1],
        d_model=d_model,
        names=words,
    )


def _size(model: nn.Module, config: Any, names: Names, key: str) -> int:
    found = names.value(config, key)
    if found is None:
        looked = ", ".join(names.config.get(key, (key,)))
        raise LayerprobeError(
            f"the configuration of {type(model).__name__} ({type(config).__name__}) has none of {looked}. "
            f"{call_to_try(model, config, names)}"
        )
    return found


def _find_blocks(model: nn.Module, n_layers: int, names: Names) -> str:
    """The ModuleList of `n_layers` blocks, all or some of which (hybrids) hold attention; of several (vision
    towers), the language model's."""
    attention = names.words("attention")
    lists: dict[str, nn.ModuleList] = {
        n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == n_layers
    }
    if names.blocks is not None:
        if names.blocks not in lists:
            raise LayerprobeError(
                f"Names(blocks={names.blocks!r}): {type(model).__name__} has no ModuleList of {n_layers} "
                f"modules there, but at {', '.join(lists) or 'no place'}"
            )
        return names.blocks
    text = {n: m for n, m in lists.items() if not any(w in n for w in ("vision", "audio", "visual"))}
    # a block without attention is one that mixes tokens otherwise, if no list has any
    for parts in (attention, names.words("mixer")):
        found = [name for name, blocks in text.items() if any(child(b, parts, "") for b in blocks)]
        if found:
            break
    if not found:
        raise LayerprobeError(
            f"cannot find the blocks of {type(model).__name__}: looked for a ModuleList of {n_layers} "
            f"modules that hold one of {', '.join(attention)}; found lists {list(lists) or 'none'}. "
            f"{call_to_try(model, text_config(model.config), names)}"
        )
    return min(found, key=lambda name: name.count("."))


def _find_body(model: nn.Module, blocks_path: str) -> str:
    """The nearest module around the blocks that takes `input_ids`: it runs them without the language-model
    head."""
    path = blocks_path
    while path:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
        if "input_ids" in inspect.signature(type(module).forward).parameters:
            return path
    raise LayerprobeError(
        f"no module around {blocks_path} of {type(model).__name__} takes input_ids: it is not a text model"
    )


def _is_parallel(config: Any) -> bool:
    return any(bool(getattr(config, flag, False)) for flag in PARALLEL)


def _find_unembed(model: nn.Module) -> str | None:
    getter = getattr(model, "get_output_embeddings", None)
    head = getter() if callable(getter) else None
    if head is None:
        return None
    return next((name for name, module in model.named_modules() if module is head), None)


def _is_additive(model: nn.Module, config: Any, blocks: tuple[BlockParts, ...]) -> bool:
    if any(parts.mid_is_output or not (parts.attn_out and parts.mlp_out) for parts in blocks):
        return False
    return not (
        any(
            hasattr(model.get_submodule(parts.block), "layer_scalar") for parts in blocks
        )  # Gemma-4's sum is scaled
        or getattr(config, "do_layer_norm_before", True) is False
        or getattr(config, "apply_residual_connection_post_layernorm", False)
    )


def _fused_order(config: Any) -> str | None:
    order = FUSED_ORDER.get(getattr(config, "model_type", ""))
    if getattr(config, "model_type", "") == "gpt_bigcode" and not config.multi_query:
        return "per_head"
    if (
        order == "per_group"
        and not getattr(config, "new_decoder_architecture", False)
        and not getattr(config, "multi_query", False)
    ):
        return "per_head"
    return order


def _head_sizes(config: Any, n_heads: int, d_model: int, names: Names) -> tuple[int, int]:
    """(key/value heads, width of a head)."""
    config = _first_layer(config)
    d_head = getattr(config, "head_dim", None) or d_model // n_heads
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        return 1, d_head  # Falcon-7B, StarCoder
    if getattr(config, "model_type", "") == "falcon" and not config.new_decoder_architecture:
        return n_heads, d_head
    return names.value(config, "num_key_value_heads") or n_heads, d_head


def _first_layer(config: Any) -> Any:
    """The configuration of block 0 where layers differ in size (Gemma-4): the whole one raises when asked."""
    return config.per_layer_config[0] if getattr(config, "is_heterogeneous", False) else config


def input_device(body: nn.Module) -> torch.device:
    """Where token ids go: the device of the embedding. Offloaded weights rest on meta until accelerate brings
    them, so
    its hook is asked first."""
    embedding: Any = body.get_input_embeddings()  # type: ignore[operator]
    device = getattr(getattr(embedding, "_hf_hook", None), "execution_device", None)
    return next(embedding.parameters()).device if device is None else torch.device(device)
